"""Rate limits before an application: what the caller hears, and what becomes of requests that can't be counted."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from meshlib.inbound.effects import Count
from meshlib.policy.ratelimit import Level, Spending
from meshlib.testing.clock import ManualClock
from tests.support.inbound import Kind, Reply, Side, get

LIMITED = """
apiVersion: meshlib/v1
kind: InboundPolicy
metadata: {name: limits}
spec: {rateLimits: [%s]}
"""

STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict}
spec: {mtls: {mode: STRICT}}
"""

ONE = "{name: one, requests: 6, per: 60s, burst: 2}"
GLOBAL = "{name: shared, requests: 5, per: 1s, scope: GLOBAL%s}"
WEB = "spiffe://mesh.test/ns/default/sa/web"


def side(kind: Kind, limits: str, answers: Sequence[Level | None] | None = None) -> tuple[Side, ManualClock]:
    """A side whose shared limits answer as told."""
    made, clock = Side(kind, LIMITED % limits), ManualClock(1000.0)
    gate = made.gate
    gate.clocks = gate._last_clocks = gate.clocks._replace(now=clock)

    async def counted(effect: Count) -> Sequence[Level | None]:
        assert answers is not None
        return answers[: len(effect.spendings)]

    gate.async_performers[Count] = counted
    gate.performers[Count] = lambda effect: (answers or ())[: len(effect.spendings)]
    return made, clock


def fields(reply: Reply) -> list[str | None]:
    names = ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "retry-after")
    return [reply.headers.get(name) for name in names]


def test_a_caller_hears_how_the_limit_stands_and_when_to_come_again(kind: Kind) -> None:
    made, clock = side(kind, ONE)
    assert [fields(made.ask(get())) for _ in range(2)] == [["2", "1", "10", None], ["2", "0", "20", None]]
    refused = made.ask(get())
    assert (refused.status, refused.code, refused.seen) == (429, "RL", None)
    assert fields(refused) == ["2", "0", "10", "10"]
    clock.advance(int(refused.headers["retry-after"]))
    assert made.ask(get()).status == 200, "whoever waits as long as it was told comes in"


def test_a_refusal_says_nothing_of_the_rules_but_the_log_does(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    made, _ = side(kind, "{name: per-tenant, requests: 1, per: 1h, by: [{header: x-tenant}]}")
    with caplog.at_level(logging.WARNING, "meshlib.inbound"):
        replies = [made.ask(get("/", ("x-tenant", "acme"))) for _ in range(2)]
    assert b"tenant" not in replies[1].body
    assert replies[1].headers["content-type"] == "application/problem+json"
    assert "rate limit 'per-tenant': 1 in 3600 s, 1 at once, by header x-tenant" in caplog.text
    assert "acme" not in caplog.text


def test_the_limit_of_which_least_is_left_is_told(kind: Kind) -> None:
    made, _ = side(
        kind, "{name: wide, requests: 100}, {name: narrow, requests: 3}, {name: dry, requests: 1, dryRun: true}"
    )
    assert fields(made.ask(get()))[:2] == ["3", "2"]


def test_the_limit_that_lasts_longest_says_when_to_come_again(kind: Kind) -> None:
    made, _ = side(kind, "{name: a, requests: 1, per: 5s}, {name: b, requests: 1, per: 60s}")
    made.ask(get())
    assert fields(made.ask(get())) == ["1", "0", "60", "60"]


def test_callers_with_a_verified_identity_have_buckets_of_their_own(kind: Kind) -> None:
    made, _ = side(kind, "{name: each, requests: 1, per: 1h, by: [{principal: true}]}")
    asked = [made.ask(get(peer=peer)).status for peer in (WEB, WEB, WEB + "2", "", "")]
    assert asked == [200, 429, 200, 200, 429]


def test_a_dry_run_lets_in_and_is_logged(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    made, _ = side(kind, "{name: try, requests: 1, per: 1h, dryRun: true}")
    with caplog.at_level(logging.WARNING, "meshlib.inbound"):
        replies = [made.ask(get()) for _ in range(2)]
    assert [reply.status for reply in replies] == [200, 200]
    assert [fields(reply) for reply in replies] == [[None] * 4] * 2
    assert caplog.text.count("dry run: rate limit 'try'") == 1


def test_who_may_not_come_in_uses_up_nobodys_limit(kind: Kind) -> None:
    made, _ = side(kind, "{name: a, requests: 1, per: 1h}")
    made.obey(f"{LIMITED % '{name: a, requests: 1, per: 1h}'}---{STRICT}")
    assert [made.ask(get(peer=peer)).status for peer in ("", "", WEB)] == [403, 403, 200]


def test_a_shared_limit_decides_by_what_was_counted(kind: Kind) -> None:
    made, _ = side(kind, GLOBAL % "", [(True, 3.0)])
    assert fields(made.ask(get())) == ["5", "3", "1", None]
    made, _ = side(kind, GLOBAL % "", [(False, 0.5)])
    refused = made.ask(get())
    assert (refused.status, refused.code, fields(refused)) == (429, "RL", ["5", "0", "1", "1"])


def test_what_a_shared_limit_refuses_costs_nothing_of_the_processs_own(kind: Kind) -> None:
    answers: list[Level | None] = [(False, 0.0)]
    made, _ = side(kind, f"{{name: own, requests: 1, per: 1h}}, {GLOBAL % ''}", answers)
    assert [made.ask(get()).status for _ in range(3)] == [429] * 3
    answers[0] = (True, 1.0)
    assert made.ask(get()).status == 200


def test_what_the_own_limit_refuses_is_not_counted_elsewhere(kind: Kind) -> None:
    made, _ = side(kind, f"{{name: own, requests: 1, per: 1h}}, {GLOBAL % ''}", [(True, 1.0)])
    asked: list[Spending] = []

    def counted(effect: Count) -> Sequence[Level | None]:
        asked.extend(effect.spendings)
        return [(True, 1.0)]

    async def acounted(effect: Count) -> Sequence[Level | None]:
        return counted(effect)

    made.gate.performers[Count] = counted
    made.gate.async_performers[Count] = acounted
    assert [made.ask(get()).status for _ in range(3)] == [200, 429, 429]
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [("", 200, ""), (", onError: DENY", 503, "RLSE"), (", onError: DENY, dryRun: true", 200, "")],
)
def test_what_cannot_be_counted_goes_by_on_error(kind: Kind, more: str, status: int, code: str) -> None:
    made, _ = side(kind, GLOBAL % more, [None])
    reply = made.ask(get())
    assert (reply.status, reply.code) == (status, code)
    assert ("retry-after" in reply.headers) == (status == 503)


def test_without_a_redis_a_shared_limit_goes_by_on_error_and_says_so(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    made = Side(kind, LIMITED % (GLOBAL % ""), identity=False)
    assert made.mesh.status().limits_error == ""
    with caplog.at_level(logging.WARNING, "meshlib.inbound"):
        assert [made.ask(get()).status for _ in range(3)] == [200] * 3
    assert caplog.text.count("MESHLIB_LIMITS names no Redis") == 1
    assert "MESHLIB_LIMITS names no Redis" in made.mesh.status().limits_error
    assert not made.mesh.status().ok
