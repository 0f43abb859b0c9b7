"""Which host a request is for."""

from __future__ import annotations

import httpx
import pytest

import meshlib
from meshlib.call.effects import Send
from meshlib.state.endpoint import EndpointState
from meshlib.wire.outgoing import SyncStream, outgoing
from tests.unit.plan.compiled import compiled, doc

ENTRY = doc(
    "ServiceEntry",
    """\
    hosts: [xn--bcher-kva.example]
    ports: [{number: 80, name: http, protocol: HTTP}]
    resolution: STATIC
    endpoints: [{address: 10.0.0.1}]
    """,
)


@pytest.mark.parametrize(
    "host", ["xn--bcher-kva.example", "b\u00fccher.example", "B\u00dcCHER.example", "xn--bcher-kva.example."]
)
def test_a_host_beyond_ascii_is_known_by_its_name_in_the_dns(host: str) -> None:
    request = httpx.Request("GET", f"http://{host}/")
    assert outgoing(compiled(ENTRY), request, 0.0, httpx, SyncStream) is not None


def headers_sent(**headers: str) -> list[tuple[bytes, bytes]]:
    """Of one attempt, without those of every request."""
    request = httpx.Request("GET", "http://xn--bcher-kva.example/", headers=headers)
    found = outgoing(compiled(ENTRY), request, 0.0, httpx, SyncStream)
    assert found is not None
    wire = found.wire_request(Send(EndpointState("10.0.0.1", 80, 0.0), 1, None, 10.0), 0.0)
    return [(name.lower(), value) for name, value in wire.headers if name.lower().startswith(b"x-")]


def test_a_priority_travels_with_the_call() -> None:
    assert headers_sent() == []
    with meshlib.priority("best-effort"):
        assert headers_sent() == [(b"x-meshlib-priority", b"best-effort")]


def test_a_priority_that_the_request_brings_goes_before_the_one_it_inherits() -> None:
    with meshlib.priority("best-effort"):
        sent = headers_sent(**{"X-Meshlib-Priority": "critical"})
    assert sent == [(b"x-meshlib-priority", b"critical")]
