from __future__ import annotations

import pytest

from meshlib.plan.matches import compile_match
from meshlib.policy.arriving import Arriving
from meshlib.policy.overload import DEFAULT_LEVEL, MOST_QUEUE_TIME, Load, shed_share, time_in_queue
from meshlib.resources import HTTPMatchRequest, StringMatch
from meshlib.state.load import Places

WALL = 1_700_000_000.0
BATCH = compile_match(HTTPMatchRequest(uri=StringMatch(prefix="/batch")))
PAY = compile_match(HTTPMatchRequest(uri=StringMatch(prefix="/pay")))
RULES = [([PAY], 0), ([BATCH], 2)]


def arriving(path: str = "/", *headers: tuple[bytes, bytes], principal: str = "") -> Arriving:
    return Arriving("GET", path.encode(), list(headers), seen=path, principal=principal)


@pytest.mark.parametrize(
    ("said", "level"),
    [
        (b"critical", 0),
        (b"default", 1),
        (b"best-effort", 2),
        (b"Critical", 1),
        (b"urgent", 1),
        (b"", 1),
        (b"critical, best-effort", 1),
    ],
)
def test_a_request_has_the_priority_it_brings(said: bytes, level: int) -> None:
    assert Load().level(arriving("/", (b"x-meshlib-priority", said))) == level


@pytest.mark.parametrize(("path", "level"), [("/pay/1", 0), ("/batch", 2), ("/other", DEFAULT_LEVEL)])
def test_the_rules_are_for_requests_without_one(path: str, level: int) -> None:
    load = Load(RULES)
    assert load.level(arriving(path)) == level
    assert load.level(arriving(path, (b"x-meshlib-priority", b"critical"))) == 0


def test_the_first_rule_that_matches_counts() -> None:
    assert Load([([BATCH], 2), ([BATCH], 0)]).level(arriving("/batch")) == 2


def test_under_identified_nobody_else_is_believed() -> None:
    load, header = Load(RULES, identified=True), (b"x-meshlib-priority", b"critical")
    assert load.level(arriving("/batch", header)) == 2
    assert load.level(arriving("/batch", header, principal="mesh.test/ns/default/sa/web")) == 0


def test_of_several_headers_the_first_counts_or_none() -> None:
    headers = (b"x-meshlib-priority", b"nonsense"), (b"x-meshlib-priority", b"critical")
    assert Load().level(arriving("/", *headers)) == DEFAULT_LEVEL


@pytest.mark.parametrize(
    ("pressure", "shares"),
    [
        (0.0, [0, 0, 0]),
        (1.0, [0, 0, 0]),
        (1.25, [0, 0, 0.5]),
        (1.5, [0, 0, 1]),
        (2.25, [0, 0.5, 1]),
        (3.0, [0, 1, 1]),
        (4.5, [0.5, 1, 1]),
        (6.0, [1, 1, 1]),
        (100.0, [1, 1, 1]),
    ],
)
def test_ever_more_is_turned_away_and_the_least_important_first(pressure: float, shares: list[float]) -> None:
    assert [shed_share(level, pressure) for level in range(3)] == shares


@pytest.mark.parametrize(
    ("start", "waited"),
    [
        ("t=1699999999.5", 0.5),
        ("1699999999.5", 0.5),
        ("1699999999750", 0.25),
        ("t=1699999999750", 0.25),
        ("t=1699999999900000", 0.1),
        ("t=1700000000.0", 0.0),
        ("t=1700000001", 0.0),  # of the future
        ("t=1699999000", 0.0),  # of a clock that is off
        ("", 0.0),
        ("t=", 0.0),
        ("t=-5", 0.0),
        ("t=1e9", 0.0),
        ("t=nan", 0.0),
        ("t=inf", 0.0),
        ("t=1_699_999_999", 0.0),
        ("t=١٦٩٩٩٩٩٩٩٩", 0.0),
        ("t=1699999999.", 1.0),
        ("t=1699999999.5.5", 0.0),
        ("t=0x5", 0.0),
        ("1" * 32, 0.0),
        ("t=" + "1" * 5000, 0.0),
        (None, 0.0),
    ],
)
def test_a_proxy_says_when_it_got_the_request(start: str | None, waited: float) -> None:
    assert time_in_queue(start, WALL) == pytest.approx(waited)


def test_a_wait_beyond_the_sane_is_not_believed() -> None:
    assert time_in_queue(f"t={WALL - MOST_QUEUE_TIME + 1}", WALL) == pytest.approx(MOST_QUEUE_TIME - 1)
    assert time_in_queue(f"t={WALL - MOST_QUEUE_TIME - 1}", WALL) == 0.0


def pressed(load: Load, *, lag: float = 0.0, start: bytes = b"", level: int = 1) -> tuple[float, str]:
    headers = [(b"x-request-start", start)] if start else []
    return load.pressure(level, lag, arriving("/", *headers), 5.0, WALL)


def test_pressure_is_the_signal_furthest_beyond_its_threshold() -> None:
    load = Load(lag=0.1, queue_time=0.5)
    assert pressed(load, lag=0.25) == (2.5, "the event loop is late")
    assert pressed(load, lag=0.05, start=b"t=1699999999") == (2.0, "it has waited before it came here")
    assert pressed(load)[0] == 0.0


def test_a_signal_that_no_policy_asks_for_presses_nobody() -> None:
    assert pressed(Load(), lag=9.0, start=b"t=1699999999")[0] == 0.0


def test_our_own_queue_presses_those_who_would_stand_in_it() -> None:
    places = Places()
    waiter = places.enter(1, 0.0, Load().bounds, 1.0, hold=True)
    assert not isinstance(waiter, int)
    places.settle(waiter, 5.0)
    load = Load(places=places, queue_time=0.5)
    assert pressed(load, level=0)[0] == 0.0
    assert pressed(load, level=2) == (2.0, "requests wait for a place")  # a fifth of 5 s
