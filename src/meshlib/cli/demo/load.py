"""The users of the demo: a steady load on the product page, and what they saw."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import meshlib

__all__ = ["JASON", "Load", "Page", "percentile", "sigma3"]

RATE = 100.0
"""Pages per second: about four times as many requests, which leaves two cores of a small machine some air."""

JASON = "jason"
JASON_EVERY = 10
REMEMBERED = 20_000
MOST_AT_ONCE = 500
PATIENCE = 5.0
"""Seconds after which a user calls a page a failure."""


class Page(NamedTuple):
    """One page as a user saw it.

    Attributes:
        began: monotonic seconds.
        seconds: until it was there.
        user: who asked, "" for anybody.
        failure: "" when it came with status 200.
        version: of the reviews on it, "" when there are none.
        stars: whether it has ratings.
        missing: why it has no reviews: the mesh's reason, or a status.
        waited: seconds the page waited for reviews.
        retries: spent anywhere on the way.
        configuration: version by which reviews were asked.
        callers: whom the product page and the reviews took their callers for, by certificate.
    """

    began: float
    seconds: float
    user: str
    failure: str = ""
    version: str = ""
    stars: bool = False
    missing: str = ""
    waited: float = 0.0
    retries: int = 0
    configuration: str = ""
    callers: tuple[str | None, ...] = ()


class Load:
    """Asks for the product page at a steady rate, however slowly it comes."""

    def __init__(self, mesh: meshlib.Mesh) -> None:
        self._mesh = mesh
        self._pages: deque[Page] = deque(maxlen=REMEMBERED)
        self._asking: dict[asyncio.Task[Page], Page] = {}

    async def run(self) -> None:
        """Go on until cancelled."""
        async with meshlib.AsyncClient(mesh=self._mesh) as client:
            try:
                number, due = 0, time.monotonic()
                while True:
                    number += 1
                    self._ask(client, JASON if number % JASON_EVERY == 0 else "")
                    due = max(due + 1 / RATE, time.monotonic() - 1.0)  # after a stall of the machine: no avalanche
                    await asyncio.sleep(due - time.monotonic())
            finally:
                for task in self._asking:
                    task.cancel()
                await asyncio.gather(*self._asking, return_exceptions=True)

    def _ask(self, client: meshlib.AsyncClient, user: str) -> None:
        if len(self._asking) >= MOST_AT_ONCE:
            self._pages.append(Page(time.monotonic(), 0.0, user, f"{MOST_AT_ONCE} pages are being waited for"))
            return
        asked = Page(time.monotonic(), PATIENCE, user, f"hasn't come for {PATIENCE:.0f} s")
        task = asyncio.create_task(_get(client, asked.began, user))
        self._asking[task] = asked
        task.add_done_callback(self._take)

    def _take(self, task: asyncio.Task[Page]) -> None:
        asked = self._asking.pop(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._pages.append(task.result())
        else:
            text = str(error) or type(error).__name__
            self._pages.append(asked._replace(seconds=time.monotonic() - asked.began, failure=text))

    def since(self, began: float) -> list[Page]:
        """The pages asked for since `began` (monotonic seconds): those that have come, or failed, or should have."""
        overdue = time.monotonic() - PATIENCE
        missed = [page for page in self._asking.values() if page.began < overdue]
        return [page for page in (*self._pages, *missed) if page.began >= began]


async def _get(client: meshlib.AsyncClient, began: float, user: str) -> Page:
    reply = await client.get("http://productpage/", headers={"end-user": user} if user else None)
    seconds = time.monotonic() - began
    retries = len(reply.extensions["meshlib"].attempts) - 1
    if reply.status_code != 200:
        return Page(began, seconds, user, f"status {reply.status_code}", retries=retries)
    return _page(began, seconds, user, retries, reply.json())


def _page(began: float, seconds: float, user: str, retries: int, body: dict[str, Any]) -> Page:
    details, reviews = body["details"], body["reviews"]
    return Page(
        began,
        seconds,
        user,
        version=reviews.get("version", ""),
        stars=bool(reviews.get("stars")),
        missing=reviews.get("error", ""),
        waited=reviews["seconds"],
        retries=retries + details["retries"] + reviews["retries"],
        configuration=reviews["configuration"],
        callers=(body["caller"], reviews.get("caller")),
    )


def percentile(values: Iterable[float], percent: float) -> float:
    """The nearest-rank percentile; 0 of nothing."""
    ordered: Sequence[float] = sorted(values)
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)] if ordered else 0.0


def sigma3(share: float, count: int) -> float:
    """Three standard deviations of the share measured in `count` independent trials of probability `share`."""
    return float(3 * (share * (1 - share) / count) ** 0.5) if count else 1.0
