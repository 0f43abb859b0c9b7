"""A steady load by sync and async clients together, on kept connections and on new ones."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

import httpx

import meshlib
from tests.support import eventually_async

__all__ = ["Load", "Record"]


class Record(NamedTuple):
    """One call; times are monotonic seconds."""

    began: float
    ended: float
    connection: str
    peer: str | None
    attempts: int
    error: str


class Load:
    """Calls by lanes of async and sync code; every fourth lane opens a connection for each call.

    Attributes:
        records: of the calls that have ended.
    """

    def __init__(self, mesh: meshlib.Mesh, rate: float = 160.0, url: str = "http://reviews/") -> None:
        self.records: list[Record] = []
        self._mesh = mesh
        self._url = url
        self._pause = 12 / rate
        self._ended = threading.Event()

    @contextlib.asynccontextmanager
    async def on(self) -> AsyncIterator[None]:
        """Go on inside the block; at its end every call has ended."""
        closing = {"connection": "close"}
        async with contextlib.AsyncExitStack() as stack:
            # Lanes that close their connections have pools of their own, or they would close everybody's.
            kept, fresh = (
                stack.enter_context(meshlib.Client(mesh=self._mesh, headers=headers)) for headers in ({}, closing)
            )
            akept, afresh = [
                await stack.enter_async_context(meshlib.AsyncClient(mesh=self._mesh, headers=headers))
                for headers in ({}, closing)
            ]
            # Not of the loop's own threads: those are as few as the machine is small.
            threads = [threading.Thread(target=self._sync_lane, args=[client]) for client in (fresh, kept, kept, kept)]
            for thread in threads:
                thread.start()
            try:
                async with asyncio.TaskGroup() as group:
                    for client in (afresh, akept, akept, akept) * 2:
                        group.create_task(self._lane(client))
                    try:
                        yield
                    finally:
                        self._ended.set()
            finally:
                for thread in threads:
                    thread.join()

    async def _lane(self, client: meshlib.AsyncClient) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                self._note(began, await client.get(self._url))
            except httpx.HTTPError as error:
                self._failed(began, error)
            due = max(due + self._pause, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    def _sync_lane(self, client: meshlib.Client) -> None:
        due = time.monotonic()
        while not self._ended.wait(due - time.monotonic()):
            began = time.monotonic()
            try:
                self._note(began, client.get(self._url))
            except httpx.HTTPError as error:
                self._failed(began, error)
            due = max(due + self._pause, time.monotonic())

    def _note(self, began: float, response: httpx.Response) -> None:
        ended = time.monotonic()
        attempts = len(response.extensions["meshlib"].evidence(ended).attempts)
        if response.status_code != 200:
            self.records.append(Record(began, ended, "", None, attempts, f"{response.status_code} {response.text}"))
            return
        told = response.json()
        self.records.append(Record(began, ended, told["connection"], told["peer"], attempts, ""))

    def _failed(self, began: float, error: httpx.HTTPError) -> None:
        self.records.append(Record(began, time.monotonic(), "", None, 0, repr(error)))

    @property
    def errors(self) -> list[str]:
        return [record.error for record in self.records if record.error]

    async def further(self, calls: int) -> None:
        """Go on until that many calls from now on have ended."""
        target = len(self.records) + calls
        await eventually_async(lambda: len(self.records) >= target, 60.0)
