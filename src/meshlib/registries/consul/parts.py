"""The answers to many questions, kept up to date side by side, each by a task of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

from meshlib.errors import RegistryError
from meshlib.registries.consul.client import CONNECT_DISABLED, Answer, ConsulClient, Refused
from meshlib.registries.consul.query import Pace, follow
from meshlib.registries.consul.questions import CONNECT_OFF, RIGHTS, Question

__all__ = ["RIGHTS_EVERY", "Parts"]

RIGHTS_EVERY = 30.0
"""Seconds after which a token's rights are looked at again: nothing tells when somebody changes a policy."""

FORBIDDEN = 403

_CLOSED: dict[str, Any] = {"match": (), "authorize": False}
"""What holds of the intentions that a token may not read, if nothing better is known: nobody comes in."""


class _Part:
    """What is known of one question."""

    __slots__ = ("answered", "asked", "error", "revision", "task")

    def __init__(self) -> None:
        self.answered: str | None = None
        self.error: RegistryError | None = None
        self.revision = ""
        self.asked = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Parts:
    """Asks Consul what is demanded, and keeps the newest good answer to each question.

    Args:
        client: asks.
        changed: called when an answer or an error has changed.
        once: ask everything once, and hold nothing back.

    Attributes:
        known: the newest good answers.
    """

    def __init__(self, client: ConsulClient, changed: Callable[[], None], *, once: bool = False) -> None:
        self.known: dict[Question, Any] = {}
        self._client = client
        self._changed = changed
        self._once = once
        self._parts: dict[Question, _Part] = {}

    def demand(self, questions: Mapping[Question, str]) -> None:
        """From now on ask these, each anew when its revision changes, and no others."""
        for question in self._parts.keys() - questions.keys():
            part = self._parts.pop(question)
            self.known.pop(question, None)
            if part.task is not None:
                part.task.cancel()
        for question, revision in questions.items():
            part = self._parts.setdefault(question, _Part())
            if part.revision != revision:
                part.revision = revision
                part.asked.set()
            if part.task is None:
                keep = self._follow if question.followed and not self._once else self._read
                part.task = asyncio.get_running_loop().create_task(keep(question, part))
                part.task.add_done_callback(self._ended)

    @property
    def pending(self) -> bool:
        """Whether an answer is still to come that no error stands in the way of."""
        return any(part.answered != part.revision and part.error is None for part in self._parts.values())

    @property
    def error(self) -> RegistryError | None:
        """One of the errors there are, the same as long as they are the same."""
        errors = [part.error for part in self._parts.values() if part.error is not None]
        return min(errors, key=str) if errors else None

    def check(self) -> None:
        """Raise what ended a task that nobody ended."""
        for part in self._parts.values():
            if part.task is not None and part.task.done():
                part.task.result()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Have `check` called about a task that nobody ended; nobody waits for an answer of it any more."""
        if not task.cancelled():
            self._changed()

    async def aclose(self) -> None:
        """End every task."""
        tasks = [part.task for part in self._parts.values() if part.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, question: Question, part: _Part) -> None:
        params = question.params(self._client.settings.datacenter, stale=self._client.settings.stale)
        answers = follow(
            self._client,
            question.path,
            params,
            lambda answer: question.read(answer.data),
            missing_ok=question.kind == "documents",
        )
        async with aclosing(answers) as items:
            async for item in items:
                self._take(question, part, "", item)

    async def _read(self, question: Question, part: _Part) -> None:
        pace = Pace()
        while True:
            part.asked.clear()
            revision = part.revision
            item: Any
            try:
                item = question.read((await self._asked(question, revision)).data)
            except RegistryError as error:
                item = error
            except (ValueError, RecursionError) as error:
                item = self._client.error(f"the answer to GET {question.path} can't be read: {error}")
            item = self._take(question, part, revision, item)
            if isinstance(item, RegistryError):
                await asyncio.sleep(pace.failed())
            else:
                pace = Pace()
                await _set(part.asked, RIGHTS_EVERY if question == RIGHTS and item is not None else None)

    async def _asked(self, question: Question, revision: str) -> Answer:
        settings = self._client.settings
        params = question.params(settings.datacenter, stale=settings.stale)
        if body := question.body(self.known, revision):
            return await self._client.post(question.path, params, body)
        if not question.path.startswith("/v1/agent/") and not settings.stale:
            params.append(("consistent", ""))
        return await self._client.get(question.path, params, missing_ok=question.kind == "documents")

    def _take(self, question: Question, part: _Part, revision: str, item: Any) -> Any:
        """Take in an answer or an error, and return what it means."""
        if isinstance(item, RegistryError):
            item = _meaning(question, item)
        same = not isinstance(item, RegistryError) and question in self.known and self.known[question] == item
        if same and part.answered == revision and part.error is None:
            return item
        if isinstance(item, RegistryError):
            part.error = item
            if isinstance(item, Refused) and item.status == FORBIDDEN and question.kind in _CLOSED:
                self.known.setdefault(question, _CLOSED[question.kind])
        else:
            part.answered, part.error = revision, None
            self.known[question] = item
        self._changed()
        return item


def _meaning(question: Question, error: RegistryError) -> Any:
    """The answer that an error is, else the error."""
    if question.needs_connect and CONNECT_DISABLED in str(error).lower():
        return CONNECT_OFF
    if question == RIGHTS:
        # Refused: there are no ACLs, or nobody who would tell. Whatever else is wrong, other questions tell it, too.
        return None if isinstance(error, Refused) else ()
    return error


async def _set(event: asyncio.Event, seconds: float | None) -> None:
    """Wait until the event is set, for so long at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
