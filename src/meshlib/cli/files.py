"""Documents from files, directories and stdin."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from meshlib.cli.output import CommandError
from meshlib.registries.base import MAX_DOCUMENTS
from meshlib.resources import ResourceKey, Source
from meshlib.resources.texts import MAX_BYTES, documents
from meshlib.resources.yamltext import Document, TextError

__all__ = ["in_namespace", "keys_in", "sources"]

ENDINGS = (".yaml", ".yml", ".json")
STDIN = "-"


def sources(names: Iterable[str]) -> tuple[Source, ...]:
    """The texts behind the arguments of `-f`, in order.

    Raises:
        CommandError: one can't be read, or there is nothing to read.
    """
    found = tuple(source for name in names for source in _sources(name))
    if len(found) > MAX_DOCUMENTS:
        raise CommandError(f"{len(found)} files are too many; at most {MAX_DOCUMENTS} are read")
    return found


def _sources(name: str) -> Iterator[Source]:
    if name == STDIN:
        # One byte more than is allowed: `load` then says that it is too much.
        yield Source("stdin", sys.stdin.buffer.read(MAX_BYTES + 1))
        return
    path = Path(name)
    try:
        files = _files_in(path) if path.is_dir() else [path]
        for file in files:
            with file.open("rb") as opened:
                yield Source(str(file), opened.read(MAX_BYTES + 1))
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error


def _files_in(directory: Path) -> list[Path]:
    files = sorted(file for file in directory.iterdir() if file.suffix in ENDINGS and file.is_file())
    if not files:
        raise CommandError(f"{directory} has no file that ends in {', '.join(ENDINGS)}")
    return files


def keys_in(texts: Iterable[Source], namespace: str) -> tuple[ResourceKey, ...]:
    """What the documents call themselves, those that have a kind and a name; `namespace` is for those without one."""
    return tuple(
        ResourceKey(str(document["kind"]), str(metadata.get("namespace", namespace)), str(metadata["name"]))
        for source in texts
        for document in (found.value for found in _readable(source))
        if isinstance(document, dict) and isinstance(metadata := document.get("metadata"), dict)
        if "kind" in document and "name" in metadata
    )


def in_namespace(texts: Iterable[Source], namespace: str) -> tuple[Source, ...]:
    """The texts with `namespace` in every document that names none; documents keep the lines they begin at."""
    return tuple(_moved(source, namespace) if namespace != "default" else source for source in texts)


def _moved(source: Source, namespace: str) -> Source:
    try:
        found = list(documents(source.text))
    except TextError:
        return source
    if all(_namespaced(document) for document in found):
        return source
    text = b""
    for document in found:
        separator = b"---" if text else b""
        text += separator + b"\n" * max(document.line - 1 - text.count(b"\n"), 1 if separator else 0)
        text += msgspec.json.encode(_with_namespace(document.value, namespace)) + b"\n"
    return source._replace(text=text)


def _namespaced(document: Document) -> bool:
    value = document.value
    return not isinstance(value, dict) or "namespace" in (value.get("metadata") or {})


def _with_namespace(document: object, namespace: str) -> object:
    if not isinstance(document, dict) or not isinstance(document.get("metadata", {}), dict):
        return document
    return document | {"metadata": {"namespace": namespace} | document.get("metadata", {})}


def _readable(source: Source) -> Iterator[Document]:
    try:
        yield from documents(source.text)
    except TextError:
        return  # `load` tells it with its place
