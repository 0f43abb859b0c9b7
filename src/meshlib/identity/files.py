"""The identity in a directory: a certificate, its key and the roots, written and renewed by somebody else.

Understood by the names that Kubernetes secrets and cert-manager, Istio's agent, spiffe-helper and most tutorials use.
"""

from __future__ import annotations

import asyncio
import logging
import stat
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import NamedTuple

from meshlib.errors import IdentityError
from meshlib.identity.certificates import make_material
from meshlib.identity.material import Material

__all__ = ["LOOK_INTERVAL", "MAX_FILE", "NAMES", "FilesIdentity"]

log = logging.getLogger("meshlib.identity")

LOOK_INTERVAL = 0.5
"""Seconds between two looks at the files. A renewal is taken once two looks in a row see the same."""

MAX_FILE = 1 << 20
"""Bytes of one file that are read at most."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "certificate": ("tls.crt", "cert-chain.pem", "svid.pem", "cert.pem"),
    "key": ("tls.key", "key.pem", "svid_key.pem"),
    "bundle of roots": ("ca.crt", "root-cert.pem", "svid_bundle.pem", "bundle.pem", "roots.pem", "ca.pem"),
}
"""What each of the three may be called; exactly one of each is expected in the directory."""

_OPEN = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP


class _Mark(NamedTuple):
    """What changes when a file does."""

    path: Path
    inode: int
    size: int
    changed: int


_Marks = Mapping[str, _Mark]


class FilesIdentity:
    """An `IdentitySource` that watches `directory` by looking.

    Three files can't be replaced in one instant. What is seen is taken when it has stood still between two looks and
    the three fit together; until then, and when they never do, the identity before stays.

    Args:
        directory: absolute.
        interval: seconds between two looks.
    """

    def __init__(self, directory: Path, interval: float = LOOK_INTERVAL) -> None:
        self.url = f"files://{directory}"
        self._directory = directory
        self._interval = interval
        self._before: _Marks | None = None
        self._taken: _Marks | None = None
        self._warned: object = None

    async def watch(self) -> AsyncGenerator[Material | IdentityError, None]:
        """See `IdentitySource.watch`."""
        self._before = self._taken = None
        trouble = ""
        first = True
        while True:
            try:
                material = self._look(first)
            except IdentityError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    yield error
            else:
                if material is not None:
                    trouble = ""
                    yield material
            first = False
            await asyncio.sleep(self._interval)

    async def aclose(self) -> None:
        """See `IdentitySource.aclose`."""

    def _look(self, first: bool) -> Material | None:
        """Material, when there is other than was last given. Raises IdentityError.

        What was refused is looked at each time: a certificate that isn't valid yet becomes so with no change of a file.
        """
        before, self._before = self._before, None
        try:
            marks = {role: self._mark(role) for role in NAMES}
            self._before = marks
            if marks == self._taken or not (first or marks == before):
                return None
            certificate, key, roots = (_read(marks[role].path) for role in NAMES)
            if marks != {role: self._mark(role) for role in NAMES}:
                return None
        except OSError as error:
            way_out = "let this user read it" if isinstance(error, PermissionError) else "put it back"
            raise IdentityError(self.url, f"{error.strerror}: {error.filename}", way_out) from error
        except ValueError as error:
            raise IdentityError(self.url, str(error)) from error
        material = make_material(self.url, certificate, key, roots)
        self._warn_if_open(marks["key"].path)
        self._taken = marks
        return material

    def _mark(self, role: str) -> _Mark:
        names = NAMES[role]
        present = [path for name in names if (path := self._directory / name).exists()]
        if not present:
            # So that a directory which isn't there, or is closed to us, says so itself.
            self._directory.stat()
            way_out = f"expected one of {', '.join(names)}"
            raise IdentityError(self.url, f"the directory holds no {role}", way_out)
        if len(present) > 1:
            problem = f"the directory holds more than one {role}: {', '.join(path.name for path in present)}"
            raise IdentityError(self.url, problem, "leave the one that is meant")
        status = present[0].stat()
        return _Mark(present[0], status.st_ino, status.st_size, status.st_mtime_ns)

    def _warn_if_open(self, key: Path) -> None:
        mode = stat.S_IMODE(key.stat().st_mode)
        if mode & _OPEN and self._warned != (key, mode):
            self._warned = (key, mode)
            log.warning("%s can be read or written by others (its mode is %04o); 0400 or 0440 would do", key, mode)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise ValueError(f"{path.name} is larger than {MAX_FILE >> 20} MiB")
    return content
