"""An application that lives in the mesh."""

from __future__ import annotations

from typing import assert_type

import httpx
import httpx2
import tenacity

import meshlib


async def shortest() -> httpx.Response:
    async with meshlib.AsyncClient(timeout=3.0) as client:
        return await client.get("http://reviews/42")


def wrapped() -> int:
    mesh = meshlib.Mesh("sqlite:///tmp/mesh.db", service="web", labels={"version": "v2"})
    assert_type(mesh.transport(), httpx.BaseTransport)
    assert_type(mesh.async_transport(http2=True), httpx.AsyncBaseTransport)
    with mesh, httpx.Client(transport=mesh.transport()) as client, meshlib.deadline(0.5):
        reply = client.get("http://reviews/42")
    return reply.status_code


def unimportant(client: httpx.Client) -> None:
    with meshlib.priority("best-effort"):
        client.post("http://search/reindex")


def other_client(mesh: meshlib.Mesh) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=mesh.async_transport(httpx2))


def strategies() -> meshlib.Mesh:
    return meshlib.Mesh(retry_wait=tenacity.wait_fixed(0.1), retry_stop=tenacity.stop_after_attempt(5))


def failures() -> str:
    try:
        wrapped()
    except meshlib.DeadlineExceeded as error:
        return error.evidence.attempts[-1].endpoint
    except meshlib.CallError as error:
        return error.reason
    return meshlib.default_mesh().explain("GET", "http://reviews/42", {"end-user": "jason"}).answer


def who_may(mesh: meshlib.Mesh) -> bool:
    found = mesh.explain_inbound("GET", "/42", caller="spiffe://mesh.test/ns/default/sa/web", claims={"role": "admin"})
    assert_type(found.decision.code, str)
    return found.decision.allowed


meshlib.Mesh(registry=7)  # type: ignore[arg-type]
meshlib.deadline("soon")  # type: ignore[arg-type]
