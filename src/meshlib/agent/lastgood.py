"""The last good configuration on disk: what a process starts with when its registry is away."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path

import msgspec

from meshlib.registries.base import Instance, Update
from meshlib.resources import Intentions, Source

__all__ = ["LastGood"]

log = logging.getLogger("meshlib.agent")

MAX_BYTES = 256 * 1024 * 1024
DIGEST_BYTES = 64


class _Stored(msgspec.Struct):
    version: str
    instances: tuple[Instance, ...]
    sources: tuple[Source, ...]
    asked: frozenset[str] | None = None
    intentions: Intentions | None = None


class LastGood:
    """One file for each registry, namespace and service: the SHA-256 of the rest in hex, a line end, JSON.

    Services share a machine and its state directory, and not what they were told: whom one lets in is for no other.

    Args:
        directory: the state directory; it is made, for the user alone, when something is saved.
        registry: the registry's URL.
        namespace: of the mesh.
        service: of this process, None: a pure client.
    """

    def __init__(self, directory: Path, registry: str, namespace: str, service: str | None = None) -> None:
        name = hashlib.sha256(f"{registry} {namespace} {service or ''}".encode()).hexdigest()[:16]
        self.path = directory / f"last-good-{name}.json"

    def save(self, update: Update) -> None:
        """Replace the file, atomically. A failure is logged: it costs nothing now.

        Args:
            update: a snapshot that was compiled without a problem.
        """
        payload = msgspec.json.encode(
            _Stored(update.version, update.instances, update.sources, update.asked, update.intentions)
        )
        temporary = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".last-good-")
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        except OSError as error:
            log.warning("the last good configuration can't be kept in %s: %s", self.path, error)
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)

    def load(self) -> Update | None:
        """What was saved, or None: nothing was, or it is damaged (which is logged)."""
        try:
            if self.path.stat().st_size > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES} bytes")
            content = self.path.read_bytes()
            payload = content[DIGEST_BYTES + 1 :]
            if hashlib.sha256(payload).hexdigest().encode() != content[:DIGEST_BYTES]:
                raise ValueError("its checksum is wrong")
            stored = msgspec.json.decode(payload, type=_Stored)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("the last good configuration in %s can't be used: %s", self.path, error)
            return None
        return Update(
            stored.instances, stored.sources, stored.version, asked=stored.asked, intentions=stored.intentions
        )
