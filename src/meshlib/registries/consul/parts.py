"""The answers to many questions, kept up to date side by side, each by a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

from meshlib.errors import RegistryError
from meshlib.registries.consul.client import CONNECT_DISABLED, Answer, ConsulClient
from meshlib.registries.consul.query import Pace, follow
from meshlib.registries.consul.questions import CONNECT_OFF, Question

__all__ = ["Parts"]


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
            try:
                answer = await self._asked(question)
                value = question.read(answer.data)
            except RegistryError as error:
                self._take(question, part, revision, error)
                await asyncio.sleep(pace.failed())
            except (ValueError, RecursionError) as error:
                unreadable = self._client.error(f"the answer to GET {question.path} can't be read: {error}")
                self._take(question, part, revision, unreadable)
                await asyncio.sleep(pace.failed())
            else:
                self._take(question, part, revision, value)
                await part.asked.wait()

    async def _asked(self, question: Question) -> Answer:
        settings = self._client.settings
        params = question.params(settings.datacenter, stale=settings.stale)
        if body := question.body(self.known):
            return await self._client.post(question.path, params, body)
        if not question.path.startswith("/v1/agent/") and not settings.stale:
            params.append(("consistent", ""))
        return await self._client.get(question.path, params, missing_ok=question.kind == "documents")

    def _take(self, question: Question, part: _Part, revision: str, item: Any) -> None:
        if isinstance(item, RegistryError) and question.needs_connect and CONNECT_DISABLED in str(item).lower():
            item = CONNECT_OFF
            if part.error is None and self.known.get(question) == CONNECT_OFF:
                return
        if isinstance(item, RegistryError):
            part.error = item
        else:
            part.answered, part.error = revision, None
            self.known[question] = item
        self._changed()
