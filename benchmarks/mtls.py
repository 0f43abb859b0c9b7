"""Small GETs over loopback, one after another: CPU of the client, mTLS of the mesh against https of bare httpx."""

from __future__ import annotations

import asyncio
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import trustme

from benchmarks.call import UPSTREAM, calls, meshed_view
from benchmarks.policy import View
from benchmarks.rounds import interleave, spread
from meshlib.plan.peers import PeerTls
from meshlib.wire.transport import Options, transports

NAME = "reviews.test"


def secured_view(port: int, folder: Path) -> View:
    """A plan whose endpoint is spoken to with TLS, our own certificate shown."""
    view = meshed_view(port)
    peer = PeerTls("MUTUAL", NAME, (NAME,), *(str(folder / name) for name in ("roots.pem", "pair.pem", "pair.pem")))
    for cluster in view.plan.clusters.values():
        cluster.peers = {("127.0.0.1", port): peer}
    view.peers.prepare([peer])
    return view


async def meshed(view: View) -> float:
    """Microseconds of CPU a call in the mesh."""
    async with httpx.AsyncClient(transport=transports(httpx).asynchronous(view, Options())) as client:
        return await calls(client, "http://reviews/42")


async def bare(port: int, context: ssl.SSLContext) -> float:
    """Microseconds of CPU a call of httpx alone."""
    async with httpx.AsyncClient(verify=context) as client:
        return await calls(client, f"https://localhost:{port}/42")


def synchronous(view: View) -> float:
    """The same as `meshed` without an event loop."""
    with httpx.Client(transport=transports(httpx).sync(view, Options())) as client:
        for _ in range(20):
            client.get("http://reviews/42")
        begun = time.process_time()
        for _ in range(300):
            client.get("http://reviews/42")
        return (time.process_time() - begun) / 300 * 1e6


def run(rounds: int) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "roots.pem")
        authority.issue_cert(NAME, "localhost").private_key_and_cert_chain_pem.write_to_path(folder / "pair.pem")
        context = ssl.create_default_context(cafile=folder / "roots.pem")
        context.load_cert_chain(folder / "pair.pem")
        command = [sys.executable, UPSTREAM, str(listener.fileno()), str(folder / "pair.pem")]
        server = subprocess.Popen(command, pass_fds=[listener.fileno()])
        listener.close()
        try:
            view = secured_view(port, folder)
            results = interleave(
                rounds,
                {
                    "httpx async https, bare": lambda: asyncio.run(bare(port, context)),
                    "httpx async mTLS, meshed": lambda: asyncio.run(meshed(view)),
                    "httpx sync mTLS, meshed": lambda: synchronous(view),
                },
            )
        finally:
            server.terminate()
            server.wait(5)
    for name, values in results.items():
        print(f"  {name:28} {spread(values)} µs CPU a call")
    pairs = zip(results["httpx async mTLS, meshed"], results["httpx async https, bare"], strict=True)
    print(f"  httpx async: meshed / bare {statistics.median(one / other for one, other in pairs):.2f}")
