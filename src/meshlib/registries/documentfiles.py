"""Documents as files: one file, or all YAML and JSON files of a directory (not of those below it).

Symbolic links are followed: the way Kubernetes swaps a mounted ConfigMap is one change.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from urllib.parse import quote

from meshlib.errors import RegistryError
from meshlib.registries.base import MAX_DOCUMENT_BYTES, MAX_DOCUMENTS
from meshlib.registries.lockfile import shared
from meshlib.resources import ResourceKey, Source
from meshlib.resources.yamltext import TextError, compose

__all__ = ["DocumentFiles", "Homes", "Signature"]

SUFFIXES = (".json", ".yaml", ".yml")

Signature = tuple[tuple[str, int, int, int, int], ...]
"""Name, device, inode, size and mtime in ns of every file."""

Homes = dict[ResourceKey, tuple[Path, int]]
"""Where each document stands: its file, and how many documents that file holds."""


class DocumentFiles:
    """The documents in `path`, a directory or a file; `url` is the registry's, for errors."""

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self.lock = str(path / ".lock")
        self._url = url
        self._known: tuple[Signature, tuple[Source, ...]] | None = None

    def is_directory(self) -> bool:
        """Raises OSError when there is neither a directory nor a file."""
        return stat.S_ISDIR(os.stat(self.path).st_mode)

    def signature(self) -> Signature:
        """What changes when a document does. Raises OSError, RegistryError."""
        found = []
        for path in self._files():
            status = os.stat(path)
            if stat.S_ISREG(status.st_mode):
                found.append((path.name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(found)

    def read(self, signature: Signature) -> tuple[Source, ...] | None:
        """The documents as `signature` saw them, or None when they are being changed. Raises OSError, RegistryError."""
        if self._known is not None and self._known[0] == signature:
            return self._known[1]
        with contextlib.ExitStack() as stack:
            directory = self.is_directory()
            if directory and not stack.enter_context(shared(self.lock)):
                return None
            paths = [self.path / name if directory else self.path for name, *_ in signature]
            sources = tuple(Source(str(path), self.text(path)) for path in paths)
            if self.signature() != signature:
                return None
        self._known = signature, sources
        return sources

    def text(self, path: Path) -> bytes:
        """What is in a file, unless it is too large. Raises OSError, RegistryError."""
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            text = b"" if size > MAX_DOCUMENT_BYTES else file.read(MAX_DOCUMENT_BYTES + 1)
        self.check_size(path, max(size, len(text)))
        return text

    def check_size(self, name: object, size: int) -> None:
        """Raises RegistryError when a document of `size` bytes is too large."""
        if size > MAX_DOCUMENT_BYTES:
            raise RegistryError(self._url, f"{name} has {size} bytes; {MAX_DOCUMENT_BYTES} are allowed", "split it")

    def homes(self) -> Homes:
        """Where each document stands. Raises OSError, RegistryError."""
        homes = {}
        for name, *_ in self.signature():
            keys, count = _keys(self.text(self.path / name))
            homes.update(dict.fromkeys(keys, (self.path / name, count)))
        return homes

    def home(self, key: ResourceKey, homes: Homes) -> Path:
        """The file to write `key` to, and nothing else. Raises RegistryError when there is none."""
        if key not in homes:
            # A namespace has no dot, so that no two keys have one name.
            path = self.path / f"{quote(f'{key.kind.lower()}.{key.namespace}.{key.name}', safe='')}.json"
            if path.exists():
                raise RegistryError(self._url, f"{path} holds something else than {key}", "move that file away")
            return path
        path, count = homes[key]
        if count > 1:
            raise RegistryError(self._url, f"{key} is one of {count} documents in {path}", "edit that file")
        return path.resolve()

    def _files(self) -> list[Path]:
        if not self.is_directory():
            return [self.path]
        names = sorted(name for name in os.listdir(self.path) if name.endswith(SUFFIXES) and not name.startswith("."))
        if len(names) > MAX_DOCUMENTS:
            raise RegistryError(self._url, f"has {len(names)} files; {MAX_DOCUMENTS} are allowed", "join some")
        return [self.path / name for name in names]


def _keys(text: bytes) -> tuple[list[ResourceKey], int]:
    """The documents of a text by their keys, and how many it holds; none of a text that is broken."""
    keys, count = [], 0
    with contextlib.suppress(TextError, UnicodeDecodeError):
        for document in compose(text.decode()):
            count += document.value is not None
            if isinstance(document.value, dict) and isinstance(metadata := document.value.get("metadata"), dict):
                kind, name = document.value.get("kind"), metadata.get("name")
                keys.append(ResourceKey(str(kind), str(metadata.get("namespace") or "default"), str(name)))
    return keys, count
