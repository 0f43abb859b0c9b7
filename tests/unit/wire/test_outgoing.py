"""Which host a request is for."""

from __future__ import annotations

import httpx
import pytest

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
