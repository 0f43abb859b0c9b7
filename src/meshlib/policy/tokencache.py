"""Tokens that were verified a moment ago."""

from __future__ import annotations

from hashlib import sha256
from typing import Generic, TypeVar

__all__ = ["TokenCache"]

MOST = 2000
"""Tokens."""

MOST_BYTES = 4 * 1024 * 1024
"""Of tokens; what is kept of one is some three times as large."""

Entry = TypeVar("Entry")


class TokenCache(Generic[Entry]):
    """Keeps what came of tokens by their digest, so that no token lies in memory. Used by many threads at once.

    The young half takes what is new or was used again; when it is full it becomes the old half, and the old one goes.
    So what is used stays, and neither reading nor writing takes a lock: a race costs a token its place, and no more.

    Args:
        most: tokens kept.
        most_bytes: of them all together.
    """

    __slots__ = ("_bytes", "_most", "_most_bytes", "_old", "_young")

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most = most // 2
        self._most_bytes = most_bytes // 2
        self._young: dict[bytes, Entry] = {}
        self._old: dict[bytes, Entry] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())

    def get(self, token: bytes) -> Entry | None:
        """What is kept of a token; whether it still holds is for the caller to see."""
        digest = sha256(token).digest()
        entry = self._young.get(digest)
        if entry is None and (entry := self._old.get(digest)) is not None:
            self._put(digest, entry, len(token))
        return entry

    def put(self, token: bytes, entry: Entry) -> None:
        """Keep what came of a token."""
        self._put(sha256(token).digest(), entry, len(token))

    def _put(self, digest: bytes, entry: Entry, size: int) -> None:
        if len(self._young) >= self._most or self._bytes + size > self._most_bytes:
            self._old, self._young, self._bytes = self._young, {}, 0
        self._bytes += size
        self._young[digest] = entry
