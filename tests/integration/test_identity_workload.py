"""Identities from a real Workload API: a gRPC server on a unix socket that streams what it is given."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import ssl
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from spiffe._proto import workload_pb2, workload_pb2_grpc

from meshlib.errors import IdentityError
from meshlib.identity.certificates import split
from meshlib.identity.workload import WorkloadIdentity
from tests.support.authority import Authority, Issued
from tests.support.watched import Watch, error, material

WEB = "spiffe://example.org/ns/default/sa/web"
OLD, NEW, FOREIGN = Authority("old"), Authority("new"), Authority("foreign")


class WorkloadApi(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """One Workload API at `socket`; several may follow each other there."""

    def __init__(self, socket: Path) -> None:
        self.refusal: grpc.StatusCode | None = None
        self.streams = 0
        self._socket = socket
        self._answers: queue.Queue[Any] = queue.Queue()
        self._latest: Any = None
        self._server: grpc.Server | None = None

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4))
        workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{self._socket}")
        self._server.start()

    def kill(self) -> None:
        if self._server is not None:
            self._answers.put(None)
            self._server.stop(None).wait()
            self._server = None
            self._socket.unlink(missing_ok=True)

    def say(self, *issued: Issued, roots: bytes = OLD.roots) -> None:
        self._latest = workload_pb2.X509SVIDResponse(
            svids=[
                workload_pb2.X509SVID(
                    spiffe_id=WEB, x509_svid=_der(each.certificates), x509_svid_key=each.key_der, bundle=_der(roots)
                )
                for each in issued
            ],
            federated_bundles={"spiffe://foreign.test": _der(FOREIGN.roots)},
        )
        self._answers.put(self._latest)

    def FetchX509SVID(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802 - gRPC's name
        if ("workload.spiffe.io", "true") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        if self.refusal is not None:
            context.abort(self.refusal, "no identity issued")
        self.streams += 1
        while not self._answers.empty():
            self._answers.get()
        if self._latest is not None:
            yield self._latest
        while (answer := self._answers.get()) is not None:
            yield answer


def _der(pem: bytes) -> bytes:
    return b"".join(ssl.PEM_cert_to_DER_cert(block.decode()) for block in split(pem))


@pytest.fixture
def api() -> Iterator[WorkloadApi]:
    with tempfile.TemporaryDirectory(prefix="wl-") as folder:  # a unix socket's path is 100 bytes long at most
        api = WorkloadApi(Path(folder) / "agent.sock")
        yield api
        api.kill()


def watching(api: WorkloadApi) -> contextlib.aclosing[Watch]:
    return contextlib.aclosing(WorkloadIdentity(api._socket).watch())


def test_identity_and_roots_follow_the_stream(api: WorkloadApi) -> None:
    api.start()
    first, second = OLD.issue(WEB), NEW.issue(WEB)

    async def run() -> None:
        async with watching(api) as watch:
            api.say(first)
            one = await material(watch)
            assert (str(one.id), one.certificates) == (WEB, first.certificates)
            assert one.roots == OLD.roots, "the roots of another trust domain are not ours"
            api.say(second, roots=OLD.roots + NEW.roots)
            two = await material(watch)
            assert two.certificates == second.certificates
            assert set(split(two.roots)) == {OLD.roots, NEW.roots}
            assert api.streams == 1

    asyncio.run(run())


def test_the_first_of_several_identities_is_taken(api: WorkloadApi) -> None:
    api.start()
    api.say(OLD.issue(WEB), OLD.issue(WEB + "-admin"))

    async def run() -> None:
        async with watching(api) as watch:
            assert str((await material(watch)).id) == WEB

    asyncio.run(run())


def test_an_agent_that_is_killed_and_comes_back_is_followed_again(api: WorkloadApi) -> None:
    api.start()
    api.say(OLD.issue(WEB))
    renewed = OLD.issue(WEB)

    async def run() -> None:
        async with watching(api) as watch:
            await material(watch)
            await asyncio.to_thread(api.kill)
            assert "spiffe:///" in await error(watch)
            api.say(renewed)
            api.start()
            said = await asyncio.wait_for(anext(watch), 20)
            while isinstance(said, IdentityError):  # the socket missing, then nobody behind it
                said = await asyncio.wait_for(anext(watch), 20)
            assert said.certificates == renewed.certificates

    asyncio.run(run())


def test_an_agent_that_starts_late_is_waited_for(api: WorkloadApi) -> None:
    api.say(OLD.issue(WEB))

    async def run() -> None:
        async with watching(api) as watch:
            assert "agent.sock" in await error(watch)
            api.start()
            assert str((await material(watch)).id) == WEB

    asyncio.run(run())


def test_one_that_knows_no_identity_for_us_says_what_to_do(api: WorkloadApi) -> None:
    api.refusal = grpc.StatusCode.PERMISSION_DENIED
    api.start()

    async def run() -> None:
        async with watching(api) as watch:
            assert "registration entry" in await error(watch)
            api.refusal = None
            api.say(OLD.issue(WEB))
            assert str((await material(watch)).id) == WEB

    asyncio.run(run())


def test_an_identity_of_no_use_is_an_error_and_the_next_is_taken(api: WorkloadApi) -> None:
    api.start()
    api.say(OLD.issue(WEB), roots=NEW.roots)

    async def run() -> None:
        async with watching(api) as watch:
            assert "a peer would refuse the certificate" in await error(watch)
            api.say(OLD.issue(WEB))
            assert str((await material(watch)).id) == WEB

    asyncio.run(run())


def test_one_that_says_nothing_is_told_and_waited_for(api: WorkloadApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshlib.identity.workload.ANSWER_WAIT", 0.2)
    api.start()

    async def run() -> None:
        async with watching(api) as watch:
            assert "nobody has answered" in await error(watch)
            api.say(OLD.issue(WEB))
            assert str((await material(watch)).id) == WEB

    asyncio.run(run())
