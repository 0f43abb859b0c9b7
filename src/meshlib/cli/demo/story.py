"""The demo from the first process to the last: what is started, shown, and ended whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable
from pathlib import Path
from typing import Any

import meshlib
from meshlib.cli.demo import documents
from meshlib.cli.demo.claims import crowded, lines
from meshlib.cli.demo.load import Load
from meshlib.cli.demo.phases import phases
from meshlib.cli.demo.places import PLACES, Place
from meshlib.cli.demo.processes import MEMBERS, Fleet
from meshlib.cli.demo.screen import Screen
from meshlib.cli.demo.stage import EFFECT_WITHIN, REFRESH, Stage
from meshlib.cli.output import CommandError
from meshlib.registries import Instance, open_registry

__all__ = ["tell"]

START_WITHIN = 60.0
FAST = 0.5
SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def tell(place: str, *, fast: bool, keep: bool) -> int:
    """Show the demo; answer the exit status.

    Args:
        place: of PLACES.
        fast: measure for a shorter time.
        keep: leave it running until it is interrupted.

    Raises:
        CommandError: a process doesn't start, or ends by itself.
    """
    # What goes wrong is told by the claims; a line from elsewhere would tear the picture.
    logging.getLogger("meshlib").addHandler(logging.NullHandler())
    screen = Screen()
    ended_by: list[int] = []
    screen.cursor(shown=False)
    try:
        with tempfile.TemporaryDirectory(prefix="meshlib-demo-") as directory:
            return asyncio.run(_tell(screen, Path(directory), place, FAST if fast else 1.0, ended_by, keep=keep))
    except asyncio.CancelledError:
        return 128 + ended_by[0]
    finally:
        screen.cursor(shown=True)


async def _tell(screen: Screen, directory: Path, where: str, pace: float, ended_by: list[int], *, keep: bool) -> int:
    _cancel_when_told(ended_by)
    place = await asyncio.to_thread(PLACES[where], directory, lambda what: screen.draw([f"   {what}"]))
    try:
        return await _tell_at(place, screen, directory, pace, ended_by, keep=keep)
    finally:
        place.close()


async def _tell_at(
    place: Place, screen: Screen, directory: Path, pace: float, ended_by: list[int], *, keep: bool
) -> int:
    url = place.url
    registry = open_registry(url)
    fleet = Fleet(directory, url, place.identity)
    mesh = meshlib.Mesh(
        url,
        service="users",
        namespace="default",
        state_dir=directory / "users",
        outbound="registry-only",
        identity=place.identity,
    )
    stage = Stage(screen, fleet, registry, Load(mesh), pace, place)
    try:
        await _begin(stage)
        async with mesh, _users(stage):
            for phase in phases(place):
                await phase(stage)
            true = _end(stage)
            if keep:
                await _until_interrupted(_play(stage, url), ended_by)
        return 0 if true else 1
    finally:
        fleet.stop()
        await registry.aclose()


async def _until_interrupted(play: Coroutine[Any, Any, None], ended_by: list[int]) -> None:
    """Run `play` until Ctrl-C, which is how it is meant to end; a signal of another kind ends the demo as ever."""
    task = asyncio.current_task()
    try:
        await play
    except asyncio.CancelledError:
        if ended_by or task is None:
            raise
        task.uncancel()


def _cancel_when_told(ended_by: list[int]) -> None:
    """Have this task end in good order at a signal, and note which it was."""
    told = asyncio.current_task()

    def end(number: int) -> None:
        ended_by.append(number)
        if told is not None:
            told.cancel()

    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, end, number)


async def _begin(stage: Stage) -> None:
    """Start the processes, and wait until all are in the registry."""
    stage.heading(
        "Nine processes, and nobody is told an address",
        f"Each registers where its server listens, {stage.place.says}; calls go to http://reviews/ and the like.",
    )
    await stage.apply(
        "DestinationRule reviews: subsets v1, v2, v3; VirtualService reviews: v1 90, v3 10",
        documents.rules(),
        documents.split(90, 10),
        documents.whole(),
    )
    began = time.monotonic()
    for member in MEMBERS:
        stage.fleet.start(member)
    there: tuple[Instance, ...] = ()
    while len(there) < len(MEMBERS):
        stage.fleet.check()
        there = await stage.instances()
        stage.screen.draw([f"   {len(there)} of {len(MEMBERS)} are registered …"])
        if time.monotonic() - began > START_WITHIN:
            raise _missing(stage, there)
        await asyncio.sleep(REFRESH)
    took = time.monotonic() - began
    for service in dict.fromkeys(member.service for member in MEMBERS):
        ports = (str(one.port) for one in there if one.service == service)
        stage.screen.say(f"   {service:14}127.0.0.1, port {', '.join(ports)}")
    stage.claim("processes that have registered", str(len(MEMBERS)), f"{len(there)} in {took:.1f} s", True)
    await asyncio.sleep(EFFECT_WITHIN)  # the first to register has yet to hear of the last


def _missing(stage: Stage, there: Iterable[Instance]) -> CommandError:
    here = Counter((one.service, one.labels.get("version", "")) for one in there)
    wanted = Counter(member[:2] for member in MEMBERS)
    missing = next(member for member in MEMBERS if (wanted - here)[member[:2]])
    log = stage.fleet.tail(missing)
    return CommandError(f"{missing} has not registered within {START_WITHIN:.0f} s; its log:\n{log}")


@contextlib.asynccontextmanager
async def _users(stage: Stage) -> AsyncIterator[None]:
    """The load, as long as the block lasts."""
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(stage.load.run())]
    try:
        yield
    finally:
        tasks += [stage.leaving] if stage.leaving is not None else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _end(stage: Stage) -> bool:
    """Set what was claimed against what was measured; whether all of it came true."""
    stage.claim_no_failure("pages that failed in the whole demo", stage.began)
    stage.screen.say()
    for line in lines(stage.claims):
        stage.screen.say(line)
    wrong = sum(not claim.true for claim in stage.claims)
    says = f"{wrong} of {len(stage.claims)} claims did not come true" if wrong else "Every claim came true"
    stage.screen.say()
    stage.screen.say(f"{says}, in {time.monotonic() - stage.began:.0f} s.")
    if wrong and (excuse := crowded(os.getloadavg()[0], os.cpu_count() or 1)):
        stage.screen.say(excuse)
    return not wrong


async def _play(stage: Stage, url: str) -> None:
    """Leave it running until it is interrupted."""
    ports = [one.port for one in await stage.instances() if one.service == "productpage"]
    for line in (
        "",
        "It goes on, load and all, until Ctrl-C. To try in another terminal:",
        "",
        f"   export MESHLIB_REGISTRY={url}",
        "   meshlib get",
        "   meshlib get vs reviews -o yaml > reviews.yaml   # change the weights, then:",
        "   meshlib apply -f reviews.yaml",
        "   meshlib explain http://reviews/ -H 'end-user: jason'",
        *(f"   curl http://127.0.0.1:{port}/" for port in ports if stage.place.identity == "none"),
        "",
    ):
        stage.screen.say(line)
    while True:
        await stage.watch(REFRESH, time.monotonic() - 60.0, paced=False)
