"""Keys into OpenSSL without leaving them on a disk."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["load_into"]


def load_into(context: ssl.SSLContext, certificates: bytes, key: bytes) -> None:
    """Have `context` present `certificates` and prove itself by `key`.

    `ssl` takes a path only. On Linux that is one of a memory file, which no file system ever holds; elsewhere a file
    in a directory that only this user may enter, removed at once.

    Meant for a context that isn't in use yet: OpenSSL replaces the certificate first and the key after it, so a
    handshake that another thread begins in between finds neither pair. To rotate, build a context and swap it in.

    Args:
        context: to load into.
        certificates: PEM, the leaf first.
        key: PEM, of the leaf, not encrypted.

    Raises:
        ssl.SSLError: one of them is no PEM, or the key isn't the leaf's.
        ValueError: the key is encrypted.
    """
    pem = certificates.rstrip() + b"\n" + key
    with _held_in_memory(pem) as path:
        if path is not None:
            context.load_cert_chain(path, password=_refuse)
            return
    with tempfile.TemporaryDirectory(prefix="meshlib-") as folder:  # 0700 by mkdtemp
        file = Path(folder) / "pair.pem"
        file.touch(mode=0o600)
        file.write_bytes(pem)
        context.load_cert_chain(file, password=_refuse)


@contextlib.contextmanager
def _held_in_memory(content: bytes) -> Iterator[str | None]:
    """A path that reads as `content` while the block runs; None where the system has no such thing."""
    try:
        number = os.memfd_create("meshlib-identity")
    except (AttributeError, OSError):  # not Linux; a sandbox that forbids it
        yield None
        return
    with open(number, "wb") as file:
        file.write(content)
        file.flush()
        path = f"/proc/self/fd/{number}"
        # Where /proc isn't mounted, or is closed to a process that changed its user, there is nothing to open.
        yield path if os.access(path, os.R_OK) else None


def _refuse() -> str:
    # Without this OpenSSL would ask for the passphrase on the terminal, and wait.
    raise ValueError("the private key is encrypted; meshlib needs it without a passphrase")
