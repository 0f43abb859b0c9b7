"""A service that is its own authorizer: its checks are requests that would be checked, and so on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from meshlib.registries import default_url, open_registry
from meshlib.resources import Source, load
from tests.support import eventually
from tests.support.servers import Fleet

ITSELF = b"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask}
spec:
  selector: {matchLabels: {app: circle}}
  action: CUSTOM
  provider: {name: itself}
  rules: [{to: [{operation: {notPaths: [/reached]}}]}]
---
apiVersion: meshlib/v1
kind: InboundPolicy
metadata: {name: inbound}
spec:
  selector: {matchLabels: {app: circle}}
  extensionProviders:
  - name: itself
    envoyExtAuthzHttp: {service: circle, port: 80, timeout: 5s, failOpen: %s}
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, Path(__file__).parents[1] / "apps")
    yield fleet
    fleet.end()


def apply(fleet: Fleet, documents: bytes) -> None:
    async def work() -> None:
        registry = open_registry(default_url(fleet.state_dir))
        try:
            await registry.apply(load([Source("the test", documents)]).resources)
        finally:
            await registry.aclose()

    asyncio.run(work())


@pytest.mark.parametrize("fail_open", [b"false", b"true"])
def test_a_service_that_is_its_own_authorizer_refuses_and_ends(fail_open: bytes, fleet: Fleet) -> None:
    apply(fleet, ITSELF % fail_open)
    server = fleet.start("circle", "circular.py")
    fleet.wait_for("circle")
    with fleet.client() as client:
        # Whom it doesn't know yet it can't ask.
        eventually(lambda: client.get("http://circle/reached").headers["x-known"] == "1", 10.0)
        began = monotonic()
        reply = client.get("http://circle/x")
        assert reply.status_code == 403
        assert reply.headers["x-meshlib-reason"] == "RBAC"
        assert monotonic() - began < 4.0
        assert client.get("http://circle/reached").headers["x-reached"] == "0", "nobody came in"
    checks = server.written().count('"GET /x HTTP/1.1"')
    assert checks == 4, "the request, a check of it, one of that, and one that is refused"
