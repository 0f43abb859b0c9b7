"""A trust domain of the test's own, whose certificates turn in the directories of running processes."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from pathlib import Path
from typing import Any, NamedTuple

import meshlib
from meshlib.identity.certificates import split
from meshlib.registries import default_url, open_registry
from meshlib.registries.base import Instance
from tests.integration.workers.fleet import loaded
from tests.support import eventually
from tests.support.authority import Authority, Issued
from tests.support.servers import Fleet, Server
from tests.unit.identity.hands import client_context

__all__ = ["LEDGER", "Answered", "Realm", "address", "any_root", "ask", "put_in", "shown"]

LEDGER = ("mtls_ledger.py",)
GET = b"GET /%s HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n"


class Realm:
    """Issues certificates of `spiffe://mesh.test`, and lays them down where processes look for theirs.

    Args:
        folder: holds a directory for each process.
        lifetime: seconds a certificate is valid.

    Attributes:
        issuer: signs what is laid down from now on.
        roots: trusted by whom something is laid down from now on.
    """

    def __init__(self, folder: Path, lifetime: float = 3600) -> None:
        self.issuer = Authority("first")
        self.roots: tuple[Authority, ...] = (self.issuer,)
        self.lifetime = lifetime
        self._folder = folder
        self._turns = 0
        folder.mkdir()

    @staticmethod
    def id(service: str) -> str:
        return f"spiffe://mesh.test/ns/default/sa/{service}"

    def url(self, process: str) -> str:
        """What MESHLIB_IDENTITY is for a process."""
        return f"files://{self._folder / process}"

    def lay_down(self, process: str) -> Issued:
        """Replace what a process has, all at once, as Kubernetes does; its service is its name without a number."""
        issued = self.issuer.issue(self.id(process.rstrip("-0123456789")), ends=self.lifetime)
        self._turns += 1
        directory = self._folder / f"{process}.{self._turns}"
        directory.mkdir()
        contents = {
            "tls.crt": issued.certificates,
            "tls.key": issued.key,
            "ca.crt": b"".join(root.roots for root in self.roots),
        }
        for name, content in contents.items():
            file = directory / name
            file.touch(0o600)
            file.write_bytes(content)
        link = directory.with_suffix(".link")
        link.symlink_to(directory)
        link.rename(self._folder / process)
        return issued

    def serve(self, fleet: Fleet, process: str, *arguments: str, **variables: str) -> Server:
        """Start a server that has an identity; don't wait for it."""
        self.lay_down(process)
        service = process.rstrip("-0123456789")
        return fleet.start(service, *(arguments or LEDGER), MESHLIB_IDENTITY=self.url(process), **variables)

    def mesh(self, fleet: Fleet, process: str) -> meshlib.Mesh:
        """The mesh of a caller in this process."""
        self.lay_down(process)
        return meshlib.Mesh(
            state_dir=fleet.state_dir, service=process.rstrip("-0123456789"), identity=self.url(process)
        )

    def caller(self, service: str, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        """What somebody needs to call without a mesh: a certificate by the issuer of now."""
        return client_context(self.issuer, self.issuer.issue(self.id(service)), maximum_version=version)


def put_in(fleet: Fleet, text: str = "", *instances: Instance) -> None:
    """Have documents, and instances that nobody renews, in the fleet's registry."""

    async def run() -> None:
        registry = open_registry(default_url(fleet.state_dir))
        try:
            for instance in instances:
                await registry.register(instance, 600.0)
            await registry.apply(loaded(text))
        finally:
            await registry.aclose()

    asyncio.run(run())


def address(server: Server) -> tuple[str, int]:
    """Where a server listens, once it does."""

    def listening() -> re.Match[str] | None:
        assert server.process.poll() is None, server.written()
        return re.search(r"https?://127\.0\.0\.1:(\d+)", server.written())

    found = eventually(listening, 30.0)
    assert found is not None
    return "127.0.0.1", int(found[1])


def any_root() -> ssl.SSLContext:
    """A client's that looks at nothing and shows nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def shown(where: tuple[str, int]) -> bytes:
    """The certificate that a server shows, PEM."""
    with socket.create_connection(where, timeout=10.0) as sock, any_root().wrap_socket(sock) as tls:
        return _certificate(tls)


class Answered(NamedTuple):
    """What came of one request on a connection of its own.

    Attributes:
        came: all that the server sent, b"" if it hung up.
        session: of the connection.
        reused: whether it resumed one.
        shown: the certificate of the server, PEM, b"" if there was no handshake.
    """

    came: bytes
    session: ssl.SSLSession | None
    reused: bool
    shown: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.came.partition(b"\r\n\r\n")[2])

    @property
    def ok(self) -> bool:
        return self.came.startswith(b"HTTP/1.1 200")


def ask(
    where: tuple[str, int], context: ssl.SSLContext, session: ssl.SSLSession | None = None, path: str = ""
) -> Answered:
    """A request by somebody who is in no mesh."""
    came, kept, reused, certificate = b"", None, False, b""
    with socket.create_connection(where, timeout=10.0) as sock:
        try:
            with context.wrap_socket(sock, session=session) as tls:
                kept, reused, certificate = tls.session, bool(tls.session_reused), _certificate(tls)
                tls.sendall(GET % path.encode())
                while data := tls.recv(65536):
                    came += data
                    kept = tls.session
        except (ssl.SSLError, ConnectionError):
            pass
    return Answered(came, kept, reused, certificate)


def _certificate(tls: ssl.SSLSocket) -> bytes:
    return split(ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True) or b"").encode())[0]
