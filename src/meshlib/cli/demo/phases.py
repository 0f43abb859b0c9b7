"""The phases of the demo, in order."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence

from meshlib.cli.demo import documents
from meshlib.cli.demo.load import JASON, RATE, percentile
from meshlib.cli.demo.places import ConsulPlace, Place
from meshlib.cli.demo.processes import MEMBERS, Member
from meshlib.cli.demo.stage import EFFECT_WITHIN, REFRESH, Stage

__all__ = ["phases"]

GONE_WITHIN = 20.0
"""Seconds within which a killed process is to leave the registry: its lease lasts 10 s, and is measured by the
renewals of the others, which come every 3.3 s."""

LEADER_WITHIN = 15.0
PLAIN_WITHIN = 10.0

VICTIM = Member("reviews", "v3", 1)


async def canary(stage: Stage) -> None:
    """A steady state of 90 to 10, and one user with a route of his own."""
    stage.heading(
        "A canary",
        f"{RATE:.0f} pages a second, each made of four calls. One in ten reviews comes from v3; the user jason alone"
        " sees v2.",
    )
    began = time.monotonic()
    await stage.claim_split(10, began, 8.0)
    pages = stage.load.since(began)
    wrong = sum((page.version == "v2") != (page.user == JASON) for page in pages)
    his = sum(page.user == JASON for page in pages)
    stage.claim("jason gets v2, nobody else does", "always", f"{his} of {his}, {wrong} wrong", not wrong and his > 0)


async def know(stage: Stage) -> None:
    """Callers are known by their certificates, and who has none stays out."""
    stage.heading(
        "Who is calling",
        "Every call is mTLS, with a certificate of Consul's CA on both sides. In mode STRICT nobody comes in without.",
    )
    applied = await stage.apply("PeerAuthentication default: STRICT", documents.strict())
    began = await stage.settled(applied)
    await stage.watch(3.0, began)
    pages = [page for page in stage.load.since(began) if not page.missing]
    known = sum(all(map(_ends_with, page.callers, ("/svc/users", "/svc/productpage"))) for page in pages)
    stage.claim("pages by callers known", "all", f"{known} of {len(pages)}", 0 < known == len(pages))
    port = next(one.port for one in await stage.instances() if one.service == "productpage")
    said = await _in_the_clear(port)
    stage.claim("a request in the clear", "no answer", f"{len(said)} bytes", not said)
    stage.claim_no_failure("pages that failed meanwhile", applied)


def _ends_with(caller: str | None, end: str) -> bool:
    return caller is not None and caller.endswith(end)


async def _in_the_clear(port: int) -> bytes:
    """What a server answers to plain HTTP."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nhost: productpage\r\nconnection: close\r\n\r\n")
        async with asyncio.timeout(PLAIN_WITHIN):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def shift(stage: Stage) -> None:
    """Over to v3 while everything runs."""
    stage.heading("A shift, live", "Half of the reviews to v3, then all. Nothing is restarted.")
    for share in (50, 100):
        applied = await stage.apply(
            f"VirtualService reviews: v1 {100 - share}, v3 {share}", documents.split(100 - share, share)
        )
        await stage.claim_split(share, applied, 6.0)
        old = stage.configurations_before(applied)
        late = [page.began for page in stage.load.since(applied) if page.configuration in old]
        took = max(late, default=applied) - applied
        stage.claim(
            f"{share} % is in force", f"within {EFFECT_WITHIN:.0f} s", f"{took * 1000:.0f} ms", took <= EFFECT_WITHIN
        )


async def kill(stage: Stage) -> None:
    """One of two instances is killed, and nobody notices."""
    stage.heading(
        "kill -9",
        f"{VICTIM} is killed without a word: one of the two that serve all reviews. The registry goes on naming it"
        " until its lease runs out.",
    )
    killed = time.monotonic()
    stage.screen.say(f"   kill -9 {stage.fleet.kill(VICTIM)}")
    stage.leaving = asyncio.create_task(_forgotten(stage, killed))
    await stage.watch(8.0, killed)
    pages = stage.load.since(killed)
    failed = sum(bool(page.failure or page.missing) for page in pages)
    retries = sum(page.retries for page in pages)
    stage.claim("pages that failed, or lack reviews", "0", f"{failed} of {len(pages)}", not failed and bool(pages))
    stage.claim("retries spent on that", "≤ 20 %", f"{retries} for {len(pages)} pages", retries <= len(pages) / 5)


async def _forgotten(stage: Stage, killed: float) -> float | None:
    """Seconds until the registry has forgotten the victim; None when it goes on remembering."""
    alike = sum(member[:2] == VICTIM[:2] for member in MEMBERS)
    while (waited := time.monotonic() - killed) < GONE_WITHIN:
        there = await stage.instances()
        if sum((one.service, one.labels.get("version")) == VICTIM[:2] for one in there) < alike:
            return waited
        await asyncio.sleep(REFRESH)
    return None


async def degrade(stage: Stage) -> None:
    """A dependency of a dependency fails half of the time."""
    stage.heading(
        "A fault, injected",
        "Half of the calls to ratings are answered 503. The pages come all the same, without stars.",
    )
    applied = await stage.apply("VirtualService ratings: abort 50 % with 503", documents.broken(50))
    began = await stage.settled(applied)
    await stage.claim_share("pages without stars", 50, lambda page: not page.stars, began, 6.0)
    stage.claim_no_failure("pages that failed meanwhile", began)


async def run_out(stage: Stage) -> None:
    """A dependency is slow, and the deadline holds."""
    asked = documents.ROUTE_TIMEOUT
    stage.heading(
        "A deadline that runs out",
        f"Every call to reviews now takes 2 s, and the route's timeout is {asked * 1000:.0f} ms. The pages come without"
        " reviews.",
    )
    applied = await stage.apply(f"VirtualService reviews: delay 2 s, timeout {asked} s", documents.slow(2.0))
    began = await stage.settled(applied)
    await stage.watch(4.0, began)
    pages = [page for page in stage.load.since(began) if page.user != JASON]
    ended = [page.waited for page in pages if page.missing == "DT"]
    middle = statistics.median(ended) if ended else 0.0
    stage.claim("calls end by DeadlineExceeded", "all", f"{len(ended)} of {len(pages)}", 0 < len(ended) == len(pages))
    stage.claim(
        "the deadline ran out after",
        f"{asked * 1000:.0f} ms",
        f"{middle * 1000:.0f} ms, p99 {percentile(ended, 99) * 1000:.0f} ms",
        0.98 * asked <= middle <= 1.25 * asked,
    )
    stage.claim_no_failure("pages that failed meanwhile", began)


async def recover(stage: Stage) -> None:
    """Without the faults everything is as before."""
    stage.heading("All is well again", "The faults and the timeout are taken back.")
    applied = await stage.apply(
        "VirtualService ratings, reviews: as they were", documents.whole(), documents.split(0, 100)
    )
    began = await stage.settled(applied)
    await stage.watch(3.0, began)
    pages = stage.load.since(began)
    whole = sum(page.stars and not page.missing for page in pages)
    stage.claim("pages with reviews and stars", "all", f"{whole} of {len(pages)}", whole == len(pages) > 0)
    if stage.leaving is not None:
        while not stage.leaving.done():
            await stage.watch(REFRESH, began)
        gone = stage.leaving.result()
        says = "still there" if gone is None else f"{gone:.1f} s"
        stage.claim("the killed one left the registry", f"within {GONE_WITHIN:.0f} s", says, gone is not None)


async def lose_leader(stage: Stage) -> None:
    """The leader of the registry is killed, and nobody notices."""
    assert isinstance(stage.place, ConsulPlace)
    stage.heading(
        "The registry loses its leader",
        "kill -9 the Consul server that leads. Calls never wait for the registry; the two that are left choose anew.",
    )
    killed = time.monotonic()
    stage.screen.say(f"   kill -9 {await asyncio.to_thread(stage.place.kill_leader)}")
    await stage.watch(6.0, killed)
    while not (leader := await asyncio.to_thread(stage.place.leader)) and time.monotonic() - killed < LEADER_WITHIN:
        await stage.watch(REFRESH, killed)
    stage.claim_no_failure("pages that failed meanwhile", killed)
    stage.claim("another leads", f"within {LEADER_WITHIN:.0f} s", leader or "nobody", bool(leader))


def phases(place: Place) -> Sequence[Callable[[Stage], Awaitable[None]]]:
    """What is shown at a place, in order."""
    if isinstance(place, ConsulPlace):
        return (canary, know, shift, kill, degrade, run_out, recover, lose_leader)
    return (canary, shift, kill, degrade, run_out, recover)
