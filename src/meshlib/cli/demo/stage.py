"""What every phase of the demo works with: documents put in force, time that passes, claims that are measured."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from meshlib.cli.demo.claims import Claim
from meshlib.cli.demo.load import JASON, Load, Page, percentile, sigma3
from meshlib.cli.demo.places import Place
from meshlib.cli.demo.processes import Fleet
from meshlib.cli.demo.screen import Screen, bar, spark
from meshlib.cli.output import paint
from meshlib.registries import Instance, Registry, open_registry
from meshlib.resources import Resource

__all__ = ["EFFECT_WITHIN", "REFRESH", "Stage"]

EFFECT_WITHIN = 1.0
"""Seconds within which a document is to be in force everywhere: each process looks at the registry every 0.2 s."""

REFRESH = 0.2
GRAPH = 16
"""Half seconds of latency that are drawn."""


class Stage:
    """Where the demo happens.

    Args:
        screen: to tell it on.
        fleet: the processes.
        registry: theirs.
        load: the users.
        pace: 1 measures as long as is good for the numbers.
        place: where the registry is.
    """

    def __init__(self, screen: Screen, fleet: Fleet, registry: Registry, load: Load, pace: float, place: Place) -> None:
        self.began = time.monotonic()
        self.claims: list[Claim] = []
        self.screen = screen
        self.fleet = fleet
        self.registry = registry
        self.load = load
        self.place = place
        self.leaving: asyncio.Task[float | None] | None = None
        self._pace = pace
        self._phase = 0

    def heading(self, title: str, text: str) -> None:
        """Begin a phase."""
        self._phase += 1
        self.screen.heading(self._phase, title, text)

    def claim(self, says: str, asked: str, measured: str, true: bool) -> None:
        """Note what was claimed and what came of it."""
        claim = Claim(self._phase, says, asked, measured, true)
        self.claims.append(claim)
        self.screen.say(f"   {claim}")

    def claim_no_failure(self, says: str, began: float) -> None:
        """Claim that every page asked for since `began` came."""
        pages = self.load.since(began)
        failed = [page for page in pages if page.failure]
        self.claim(says, "0", f"{len(failed)} of {len(pages)}", not failed and bool(pages))
        for text, count in Counter(page.failure for page in failed).most_common(3):
            self.screen.say(f"     {count} × {text}")

    async def claim_split(self, percent: int, began: float, seconds: float) -> None:
        """Claim that v3 has its share of what everybody but jason sees, by the configuration new since `began`."""
        old = self.configurations_before(began)
        await self.claim_share(
            "share of reviews v3",
            percent,
            lambda page: page.version == "v3",
            began,
            seconds,
            lambda page: page.user != JASON and page.configuration not in old,
        )

    async def claim_share(
        self,
        says: str,
        percent: int,
        counts: Callable[[Page], bool],
        began: float,
        seconds: float,
        among: Callable[[Page], bool] = lambda page: True,
    ) -> None:
        """Claim a share of the pages that come in the next `seconds`, within three standard deviations.

        Chance alone exceeds them once in 370 times: then a fresh measurement, as long, decides.
        """
        await self.watch(seconds, began)
        found = self._share(says, percent, counts, [page for page in self.load.since(began) if among(page)])
        if not found.true:
            again = time.monotonic()
            await self.watch(seconds, again)
            found = self._share(says, percent, counts, [page for page in self.load.since(again) if among(page)])
        self.claim(*found[1:])

    def _share(self, says: str, percent: int, counts: Callable[[Page], bool], pages: Sequence[Page]) -> Claim:
        share = sum(counts(page) for page in pages) / max(len(pages), 1)
        within = sigma3(percent / 100, len(pages))
        asked = f"{percent} %" + (f" ± {within * 100:.1f}" if within else "")
        true = bool(pages) and abs(share - percent / 100) <= within + 1e-9
        return Claim(self._phase, says, asked, f"{share * 100:.1f} % of {len(pages)}", true)

    def configurations_before(self, began: float) -> set[str]:
        """The versions by which pages were made that were asked for before `began`."""
        return {page.configuration for page in self.load.since(self.began) if page.began < began}

    async def apply(self, says: str, *resources: Resource) -> float:
        """Apply documents, as `meshlib apply` does, and say which; answer when that was begun."""
        self.screen.say(f"   {paint('apply', 'cyan')} {says}")
        began = time.monotonic()
        # Writing waits for the disk, and the users in this process are not to wait with it.
        await asyncio.to_thread(_apply, self.registry.url, resources)
        return began

    async def settled(self, applied: float) -> float:
        """Wait until what was applied is in force everywhere; answer when that is."""
        await self.watch(EFFECT_WITHIN, applied, paced=False)
        return time.monotonic()

    async def watch(self, seconds: float, began: float, *, paced: bool = True) -> None:
        """Let time pass, and show what the users have seen since `began`."""
        ends = time.monotonic() + seconds * (self._pace if paced else 1.0)
        while (left := ends - time.monotonic()) > 0:
            self.fleet.check()
            self.screen.draw(self._picture(began, time.monotonic()))
            await asyncio.sleep(min(REFRESH, left))

    async def instances(self) -> tuple[Instance, ...]:
        """Who is registered now."""
        return (await self.registry.snapshot()).instances

    def _picture(self, began: float, now: float) -> list[str]:
        pages = self.load.since(began)
        last = self.load.since(now - GRAPH / 2)
        slots: list[list[float]] = [[] for _ in range(GRAPH)]
        for page in last:
            slots[min(int((page.began - now) * 2) - 1, -1)].append(page.seconds)
        times = [page.seconds * 1000 for page in last]
        versions = Counter(page.version or "none" for page in last if now - page.began < 2)
        names = ["v1", "v2", "v3", *(["none"] if versions["none"] else [])]
        shares = [(name, versions[name] / max(versions.total(), 1)) for name in names]
        graph = spark(percentile(slot, 50) for slot in slots)
        speed = f"p50 {percentile(times, 50):3.0f} ms  p99 {percentile(times, 99):3.0f} ms"
        failed, retries = sum(bool(page.failure) for page in pages), sum(page.retries for page in pages)
        return [
            f"   {graph}  {speed}  {len(pages)} pages  {failed} failed  {retries} retries",
            f"   {bar(shares, self.screen.width - 54)}",
        ]


def _apply(url: str, resources: Iterable[Resource]) -> None:
    async def apply() -> None:
        registry = open_registry(url)
        await registry.apply(resources)
        await registry.aclose()

    asyncio.run(apply())
