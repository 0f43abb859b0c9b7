"""The answers to questions that are asked beside each other, and what a refusal stands for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from meshlib.errors import RegistryError
from meshlib.registries.consul import parts
from meshlib.registries.consul.address import consul_settings
from meshlib.registries.consul.client import Answer, Refused
from meshlib.registries.consul.parts import Parts
from meshlib.registries.consul.questions import RIGHTS, Question
from meshlib.registries.consul.rights import Right, request
from tests.support import eventually_async

pytestmark = pytest.mark.anyio

ASKED = request([Right("node", "")])
DENIED = b'[{"Resource": "node", "Access": "read", "Allow": false}]'
ALLOWED = DENIED.replace(b"false", b"true")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def refused(status: int) -> Refused:
    error = Refused("consul", f"was answered {status}")
    error.status = status
    return error


class Scripted:
    """A client whose answers are given one after the other; the last one again and again."""

    settings = consul_settings("consul://", {})

    def __init__(self, *answers: bytes | RegistryError) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def get(self, path: str, params: Any, **_: Any) -> Answer:
        return self._answer()

    async def post(self, path: str, params: Any, data: bytes) -> Answer:
        return self._answer()

    def error(self, problem: str, way_out: str = "") -> RegistryError:
        return RegistryError("consul", problem, way_out)

    def _answer(self) -> Answer:
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, RegistryError):
            raise answer
        return Answer(answer, 1, {})


class Asking:
    """Parts that are asked one question, and what was known at each change."""

    def __init__(self, question: Question, revision: str, *answers: bytes | RegistryError) -> None:
        self.client = Scripted(*answers)
        self.history: list[Any] = []
        self._question = question
        self.parts = Parts(self.client, self._changed)  # type: ignore[arg-type]
        self.parts.demand({question: revision})

    def _changed(self) -> None:
        self.history.append(self.parts.known.get(self._question))

    async def until(self, asked: int) -> None:
        await eventually_async(lambda: self.client.asked >= asked)


async def test_rights_are_looked_at_again_so_that_a_rule_that_came_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "RIGHTS_EVERY", 0.0)
    asking = Asking(RIGHTS, ASKED, DENIED, DENIED, ALLOWED)
    await asking.until(5)
    assert asking.history == [(Right("node", ""),), ()]  # what is the same again is no news
    await asking.parts.aclose()


async def test_where_there_are_no_acls_rights_are_asked_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "RIGHTS_EVERY", 0.0)
    asking = Asking(RIGHTS, ASKED, refused(401))
    await asking.until(1)
    for _ in range(100):
        await asyncio.sleep(0)
    assert asking.client.asked == 1
    assert asking.parts.known[RIGHTS] is None
    assert asking.parts.error is None
    assert not asking.parts.pending
    await asking.parts.aclose()


async def test_rights_that_cannot_be_had_are_nobodys_error() -> None:
    for answer in (b"rubbish", RegistryError("consul", "can't be reached")):
        asking = Asking(RIGHTS, ASKED, answer)
        await asking.until(1)
        assert asking.parts.error is None
        assert asking.parts.known[RIGHTS] == ()
        await asking.parts.aclose()


@pytest.mark.parametrize(("kind", "nobody"), [("match", ()), ("authorize", False)])
async def test_intentions_that_may_not_be_read_let_nobody_in(kind: Any, nobody: object) -> None:
    question = Question(kind, "web")
    asking = Asking(question, "", refused(403))
    await asking.until(1)
    assert asking.parts.known[question] == nobody
    assert asking.parts.error is not None
    await asking.parts.aclose()


@pytest.mark.parametrize("error", [refused(500), RegistryError("consul", "can't be reached")])
async def test_of_intentions_that_are_just_not_to_be_had_nothing_is_known(error: RegistryError) -> None:
    question = Question("match", "web")
    asking = Asking(question, "", error)
    await asking.until(1)
    assert question not in asking.parts.known
    assert asking.parts.error is error
    await asking.parts.aclose()


async def test_a_right_that_is_taken_away_leaves_the_intentions_that_were_known() -> None:
    question = Question("match", "web")
    rules = b'{"web": [{"SourceName": "rogue", "DestinationName": "web", "Action": "deny", "Precedence": 9}]}'
    asking = Asking(question, "one", rules, refused(403))
    await asking.until(1)
    (known,) = asking.parts.known[question]
    asking.parts.demand({question: "another"})
    await asking.until(2)
    assert asking.parts.known[question] == (known,)
    assert asking.parts.error is not None
    await asking.parts.aclose()
