"""Texts of any kind as documents: YAML streams, JSON, and lists of documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from meshlib.resources.yamltext import MAX_DEPTH, MAX_NODES, Document, TextError, compose

__all__ = ["MAX_BYTES", "MAX_DOCUMENTS", "documents"]

MAX_BYTES = 4 * 1024 * 1024
MAX_DOCUMENTS = 10_000
_INT64 = 2**63


def documents(text: bytes) -> Iterator[Document]:
    """The documents of a text, in order; the items of a list or of `kind: List` are documents of their own.

    Raises:
        TextError: at the first place that can't be read; documents before it have been given out.
    """
    count = 0
    for whole in _values(text):
        for document in _items(whole):
            count += 1
            if count > MAX_DOCUMENTS:
                raise TextError(0, f"has more than {MAX_DOCUMENTS} documents; split the file")
            yield document


def _values(text: bytes) -> Iterator[Document]:
    if len(text) > MAX_BYTES:
        raise TextError(0, f"has {len(text)} bytes; at most {MAX_BYTES} are read, split it into several files")
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise TextError(0, f"is not UTF-8 at line {line} (byte {error.start}); save it as UTF-8") from error
    if decoded.lstrip()[:1] in ("{", "["):
        json = _json(decoded)
        if json is not None:
            yield json
            return
    yield from compose(decoded)


def _json(text: str) -> Document | None:
    """The text as JSON; None when it is YAML in braces, or neither."""
    try:
        value = msgspec.json.decode(text)
    except RecursionError as error:
        raise TextError(0, f"is nested deeper than {MAX_DEPTH} levels") from error
    except msgspec.DecodeError:
        return None
    _judge(value)
    if "\n" in text.strip():
        try:
            return next(compose(text), None)
        except TextError:
            pass  # what JSON allows and YAML doesn't, a key that stands twice for one, only costs the line numbers
    return Document(value, 1, {})


def _judge(value: Any) -> None:
    level, depth, nodes = [value], 0, 0
    while level:
        nodes += len(level)
        if depth >= MAX_DEPTH and any(isinstance(entry, dict | list) for entry in level):
            raise TextError(0, f"is nested deeper than {MAX_DEPTH} levels")
        if nodes > MAX_NODES:
            raise TextError(0, f"has more than {MAX_NODES} values; split the file")
        if any(type(entry) is int and not -_INT64 < entry < _INT64 for entry in level):
            raise TextError(0, "has a number that does not fit 64 bits; quote it if text is meant")
        level = [child for entry in level for child in _children(entry)]
        depth += 1


def _children(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _items(document: Document) -> Iterator[Document]:
    value = document.value
    if value is None:
        return
    if isinstance(value, dict) and str(value.get("kind", "")).endswith("List") and isinstance(value.get("items"), list):
        value = value["items"]
    if not isinstance(value, list):
        yield document
        return
    lines = document.marks.get(id(value))
    for index, item in enumerate(value):
        line = lines[index] if isinstance(lines, list) else document.line
        yield Document(item, line, document.marks)
