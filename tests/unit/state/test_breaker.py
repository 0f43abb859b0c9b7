from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.state.breaker import BreakerPolicy, BreakerState, CircuitBreaker
from meshlib.state.endpoint import Verdict

SHARE = BreakerPolicy(minimum_calls=4)
STREAK = BreakerPolicy(error_percent=None, consecutive_failures=3)


def run(breaker: CircuitBreaker, policy: BreakerPolicy, verdicts: str, now: float = 0.0) -> None:
    """Settle one call after another: `+` succeeds, `-` fails, `?` is abandoned, `r` is rejected."""
    meaning = {"+": Verdict.SUCCESS, "-": Verdict.FAILURE, "?": Verdict.ABANDONED, "r": Verdict.REJECTED}
    for sign in verdicts:
        permit = breaker.admit(policy, now)
        assert permit is not None
        breaker.settle(policy, permit, meaning[sign], now)


def opened(policy: BreakerPolicy = STREAK, now: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker("reviews")
    run(breaker, policy, "---", now)
    assert breaker.state is BreakerState.OPEN
    return breaker


@pytest.mark.parametrize(
    ("verdicts", "state"),
    [
        ("---", BreakerState.CLOSED),  # too few calls say nothing
        ("++--", BreakerState.OPEN),
        ("+++-", BreakerState.CLOSED),
        ("+++---", BreakerState.OPEN),
        ("--++", BreakerState.CLOSED),  # a success never opens it
        ("--??", BreakerState.CLOSED),  # what was abandoned isn't counted
        ("++rr", BreakerState.OPEN),
    ],
)
def test_by_share_it_opens_at_half_of_enough_calls(verdicts: str, state: BreakerState) -> None:
    breaker = CircuitBreaker("reviews")
    run(breaker, SHARE, verdicts)
    assert breaker.state is state


@pytest.mark.parametrize(
    ("verdicts", "state"),
    [("--", BreakerState.CLOSED), ("--+--", BreakerState.CLOSED), ("--?-", BreakerState.OPEN)],
)
def test_by_streak_it_opens_at_so_many_failures_in_a_row(verdicts: str, state: BreakerState) -> None:
    breaker = CircuitBreaker("reviews")
    run(breaker, STREAK, verdicts)
    assert breaker.state is state


def test_failures_that_have_left_the_window_count_no_more() -> None:
    breaker = CircuitBreaker("reviews")
    run(breaker, SHARE, "---", now=0.0)
    run(breaker, SHARE, "-", now=10.5)
    assert breaker.state is BreakerState.CLOSED


def test_the_number_of_failures_in_the_window_can_be_read() -> None:
    breaker = CircuitBreaker("reviews")
    run(breaker, SHARE, "+-")
    assert breaker.failures == 1


def test_open_it_refuses_until_its_time_has_passed() -> None:
    breaker = opened()
    assert breaker.retry_at() == 5.0
    assert breaker.admit(STREAK, 4.99) is None
    assert breaker.refused == 1
    assert breaker.admit(STREAK, 5.0) is not None
    assert breaker.state is BreakerState.HALF_OPEN


def test_half_open_it_lets_only_so_many_probes_out() -> None:
    policy = STREAK._replace(half_open_calls=2)
    breaker = opened(policy)
    permits = [breaker.admit(policy, 6.0) for _ in range(3)]
    assert [permit is not None for permit in permits] == [True, True, False]


def test_it_closes_when_all_probes_have_succeeded() -> None:
    policy = STREAK._replace(half_open_calls=2)
    breaker = opened(policy)
    run(breaker, policy, "+", now=6.0)
    assert breaker.state is BreakerState.HALF_OPEN
    run(breaker, policy, "+", now=6.0)
    assert breaker.state is BreakerState.CLOSED


def test_it_starts_counting_afresh_when_it_has_closed() -> None:
    breaker = opened()
    run(breaker, STREAK, "+", now=6.0)
    run(breaker, STREAK, "--", now=6.0)
    assert breaker.state is BreakerState.CLOSED
    run(breaker, STREAK, "-", now=6.0)
    assert breaker.state is BreakerState.OPEN


def test_a_cancelled_probe_gives_its_place_back() -> None:
    breaker = opened()
    permit = breaker.admit(STREAK, 6.0)
    assert permit is not None
    assert breaker.admit(STREAK, 6.0) is None
    breaker.settle(STREAK, permit, Verdict.ABANDONED, 6.0)
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.admit(STREAK, 6.0) is not None


def test_a_forgotten_probe_collected_while_the_breaker_counts_doesnt_wait_for_itself() -> None:
    breaker = opened()
    probe = breaker.admit(STREAK, 5.0)
    assert probe is not None
    with breaker._lock:
        assert breaker._lock.acquire(timeout=1), "the same thread can't have it twice"
        breaker._lock.release()
        breaker.settle(STREAK, probe, Verdict.ABANDONED, 5.0)
    assert breaker.admit(STREAK, 5.0) is not None


def test_each_failed_probe_doubles_the_time_up_to_the_longest() -> None:
    breaker = opened()
    now = 0.0
    waits = []
    for _ in range(4):
        now = breaker.retry_at()
        run(breaker, STREAK, "-", now)
        waits.append(breaker.retry_at() - now)
    assert waits == [10.0, 20.0, 30.0, 30.0]


def test_once_closed_the_time_starts_small_again() -> None:
    breaker = opened()
    run(breaker, STREAK, "-", now=5.0)
    run(breaker, STREAK, "+", now=15.0)
    run(breaker, STREAK, "---", now=20.0)
    assert breaker.retry_at() == 25.0


def test_a_permit_from_before_the_last_change_counts_for_nothing() -> None:
    breaker = CircuitBreaker("reviews")
    old = breaker.admit(STREAK, 0.0)
    assert old is not None
    run(breaker, STREAK, "---")
    probe = breaker.admit(STREAK, 5.0)
    assert probe is not None
    breaker.settle(STREAK, old, Verdict.FAILURE, 5.0)
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.settle(STREAK, probe, Verdict.SUCCESS, 5.0)
    assert breaker.state is BreakerState.CLOSED


def test_every_change_is_told_once_with_the_old_and_the_new_state() -> None:
    told = []
    breaker = CircuitBreaker("reviews")
    breaker.on_change = lambda source, old, new: told.append((source.name, old.value, new.value))
    run(breaker, STREAK, "---")
    run(breaker, STREAK, "+", now=6.0)
    assert told == [
        ("reviews", "closed", "open"),
        ("reviews", "open", "half-open"),
        ("reviews", "half-open", "closed"),
    ]


def test_a_state_decided_elsewhere_can_be_forced() -> None:
    breaker = CircuitBreaker("reviews")
    breaker.force(BreakerState.OPEN, 0.0, open_for=60.0)
    assert breaker.admit(SHARE, 59.0) is None
    breaker.force(BreakerState.CLOSED, 59.0, open_for=0.0)
    assert breaker.admit(SHARE, 59.0) is not None


@given(
    st.lists(
        st.tuples(st.sampled_from(["admit", "settle"]), st.sampled_from(list(Verdict)), st.floats(0, 10)),
        max_size=80,
    )
)
def test_it_never_stays_dark_when_nothing_is_out(steps: list[tuple[str, Verdict, float]]) -> None:
    policy = BreakerPolicy(minimum_calls=2, half_open_calls=2, consecutive_failures=3)
    breaker = CircuitBreaker("reviews")
    out: list[int] = []
    now = 0.0
    for step, verdict, wait in steps:
        now += wait
        if step == "admit":
            permit = breaker.admit(policy, now)
            if permit is not None:
                out.append(permit)
        elif out:
            breaker.settle(policy, out.pop(0), verdict, now)
    for permit in out:
        breaker.settle(policy, permit, Verdict.ABANDONED, now)
    assert breaker.admit(policy, now + policy.max_open_for) is not None
