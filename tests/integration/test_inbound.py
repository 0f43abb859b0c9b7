"""Services as users start them: they register, pass on what they inherit, and go without being missed."""

from __future__ import annotations

import re
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from meshlib import Client
from meshlib.registries.base import Instance
from tests.support import eventually
from tests.support.servers import Fleet, Server

UVICORN = ("-m", "uvicorn", "--port", "0", "--log-level", "warning", "--no-access-log")
GUNICORN = ("-m", "gunicorn", "--bind", "127.0.0.1:0", "--no-control-socket")
ASGI = (*UVICORN, "asgi_echo:app")

SERVERS = {
    "uvicorn": ASGI,
    "uvicorn with two workers": (*ASGI, "--workers", "2"),
    "uvicorn with uvloop": (*ASGI, "--loop", "uvloop"),
    "uvicorn on every interface": (*ASGI, "--host", "0.0.0.0"),
    "uvicorn on localhost": (*ASGI, "--host", "localhost"),
    "uvicorn, an application without lifespan": (*UVICORN, "asgi_echo:no_lifespan"),
    "gunicorn": (*GUNICORN, "wsgi_echo:app"),
    "gunicorn with preload": (*GUNICORN, "--preload", "--workers", "2", "wsgi_echo:app"),
    "gunicorn with threads": (*GUNICORN, "--threads", "4", "wsgi_echo:app"),
    "gunicorn with threads and preload": (*GUNICORN, "--threads", "4", "--preload", "wsgi_echo:app"),
    "flask": ("-m", "flask", "--app", "wsgi_echo", "run", "--port", "0"),
}

KEEPING_ALIVE = [
    "uvicorn", "uvicorn with two workers", "gunicorn", "gunicorn with threads", "gunicorn with threads and preload",
]  # fmt: skip
INHERITING = {"uvicorn": "relay", "gunicorn": "relay", "gunicorn with threads": "streamed"}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, Path(__file__).parent / "apps")
    yield fleet
    fleet.end()


def url(instance: Instance) -> str:
    return f"http://{instance.host}:{instance.port}"


def accepts(instance: Instance) -> bool:
    """Whether a connection can be opened."""
    try:
        with socket.create_connection((instance.host, instance.port), timeout=1.0):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("kind", SERVERS)
def test_a_service_leaves_the_registry_before_it_refuses_a_caller(kind: str, fleet: Fleet) -> None:
    server = fleet.start("web", *SERVERS[kind])
    (instance,) = fleet.wait_for("web")
    with fleet.client() as client:
        assert client.get("http://web/seen").json()["pid"]
    server.tell(signal.SIGTERM)
    eventually(lambda: not accepts(instance), 20.0)
    assert fleet.instances("web") == [], "callers still believe it is there, and it refuses them"
    assert server.wait() in {0, -signal.SIGTERM}
    assert "Traceback" not in server.written()


def test_a_process_without_a_service_name_registers_nothing_and_keeps_its_signal_handlers(fleet: Fleet) -> None:
    server = fleet.start(None, *UVICORN[:-1], "--log-level", "info", "asgi_echo:app")
    eventually(lambda: "Uvicorn running" in server.written(), 30.0)
    server.tell(signal.SIGTERM)
    assert server.wait() == -signal.SIGTERM
    assert not (fleet.state_dir / "registry.db").exists()


def test_the_address_that_is_set_is_the_one_that_is_registered(fleet: Fleet) -> None:
    fleet.start("web", *ASGI, MESHLIB_ADDRESS="10.9.8.7:6543")
    (instance,) = fleet.wait_for("web")
    assert (instance.host, instance.port) == ("10.9.8.7", 6543)


def test_without_lifespan_the_first_request_tells_where_the_server_is(fleet: Fleet) -> None:
    server = fleet.start("web", *UVICORN[:-3], "--lifespan", "off", "asgi_echo:app")
    address = eventually(lambda: re.search(r"running on (http://\S+)", server.written()), 30.0)
    assert httpx.get(address[1] + "/seen").status_code == 200
    (instance,) = fleet.wait_for("web")
    assert url(instance) == address[1]
    assert server.stop() == -signal.SIGTERM
    assert fleet.instances("web") == []


@pytest.mark.parametrize("kind", INHERITING)
def test_a_second_service_inherits_deadline_attempt_and_trace(kind: str, fleet: Fleet) -> None:
    fleet.start("back", *ASGI)
    fleet.start("front", *SERVERS[kind])
    fleet.wait_for("back")
    (front,) = fleet.wait_for("front")
    headers = {
        "x-envoy-expected-rq-timeout-ms": "9000",
        "x-envoy-attempt-count": "3",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "x-request-id": "r-1",
        "cookie": "not=passed-on",
    }

    def asked() -> dict[str, Any] | None:
        reply = httpx.get(f"{url(front)}/{INHERITING[kind]}/back", headers=headers)
        return reply.json() if reply.status_code == 200 else None  # the front has yet to hear of the back

    seen = eventually(asked)
    assert seen is not None
    assert 0 < int(seen["headers"]["x-envoy-expected-rq-timeout-ms"]) <= 9000
    assert 0 < seen["left"] <= 9
    assert seen["headers"]["x-envoy-attempt-count"] == "3"
    assert seen["headers"]["traceparent"] == headers["traceparent"]
    assert seen["headers"]["x-request-id"] == "r-1"
    assert "cookie" not in seen["headers"]


@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn"])
def test_work_that_nobody_waits_for_is_refused(kind: str, fleet: Fleet) -> None:
    fleet.start("web", *SERVERS[kind])
    (instance,) = fleet.wait_for("web")
    reply = httpx.get(url(instance) + "/seen", headers={"x-envoy-expected-rq-timeout-ms": "0"})
    assert reply.status_code == 504
    assert reply.headers["x-meshlib-reason"] == "DT"
    assert reply.json()["status"] == 504


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn with uvloop"])
def test_a_server_told_to_end_has_its_callers_give_up_their_connections(
    kind: str, fleet: Fleet, tmp_path: Path
) -> None:
    (tmp_path / "patient.yaml").write_text(
        "{apiVersion: meshlib/v1, kind: InboundPolicy, metadata: {name: patient}, spec: {drainWait: 30s}}"
    )
    fleet.run("-m", "meshlib", "apply", "-f", str(tmp_path / "patient.yaml"))
    server = fleet.start("web", *SERVERS[kind])
    (instance,) = fleet.wait_for("web")
    with httpx.Client(base_url=url(instance)) as client:
        assert client.get("/seen").headers.get("connection") != "close"
        server.tell(signal.SIGTERM)
        eventually(lambda: client.get("/seen").headers.get("connection") == "close", 10.0)
    server.tell(signal.SIGTERM)
    server.wait()


class Load:
    """Steady POSTs from four threads, each of which is sent once."""

    def __init__(self, client: Client) -> None:
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []
        self._client = client
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(4)
        self._workers = [self._pool.submit(self._send) for _ in range(4)]

    def _send(self) -> None:
        while not self._stop.is_set():
            try:
                reply = self._client.post("http://orders/work", json={"one": "order"})
                with self._lock:
                    self.answers[reply.json()["pid"] if reply.status_code == 200 else -reply.status_code] += 1
            except httpx.HTTPError as error:
                self.failures.append(repr(error))

    @property
    def count(self) -> int:
        return self.answers.total() + len(self.failures)

    def further(self, calls: int) -> None:
        """Wait for that many calls from now on."""
        target = self.count + calls
        eventually(lambda: self.count >= target, 20.0)

    def end(self) -> None:
        self._stop.set()
        self._pool.shutdown()
        for worker in self._workers:
            worker.result()


@pytest.mark.parametrize("kind", KEEPING_ALIVE)
def test_a_rolling_shutdown_under_posts_loses_none(kind: str, fleet: Fleet) -> None:
    servers: list[Server] = [fleet.start("orders", *SERVERS[kind]) for _ in range(2)]
    fleet.wait_for("orders", 2)
    with fleet.client() as client:
        load = Load(client)
        try:
            load.further(100)
            servers[0].tell(signal.SIGTERM)
            load.further(50)
            servers[0].wait()
            before = Counter(load.answers)
            load.further(50)
        finally:
            load.end()
    assert load.failures == []
    assert not [status for status in load.answers if status < 0]
    both, one = set(before), {pid for pid in load.answers if load.answers[pid] > before[pid]}
    assert one < both, "the instances didn't share the load"
