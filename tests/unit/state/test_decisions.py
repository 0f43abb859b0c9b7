"""What became of requests is counted, apart by what it comes of, in bounded space."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from meshlib.state.decisions import MOST_NAMES, DecisionCount, Decisions


def test_nothing_is_shown_while_nothing_happened() -> None:
    assert Decisions().counts() == ()


def test_each_thing_is_counted_apart() -> None:
    decisions = Decisions()
    decisions.allow()
    decisions.allow()
    decisions.count("denied", "RBAC", "default/web")
    decisions.count("denied", "RBAC", "default/web")
    decisions.count("denied", "RL", "reads")
    decisions.count("dry-run", by="default/web")
    assert decisions.counts() == (
        DecisionCount("allowed", "", "", 2),
        DecisionCount("denied", "RBAC", "default/web", 2),
        DecisionCount("denied", "RL", "reads", 1),
        DecisionCount("dry-run", "", "default/web", 1),
    )


def test_names_beyond_the_bound_are_counted_as_one() -> None:
    decisions = Decisions()
    for number in range(MOST_NAMES + 50):
        decisions.count("denied", "RBAC", f"default/{number}")
    counts = decisions.counts()
    assert len(counts) == MOST_NAMES + 1
    assert DecisionCount("denied", "RBAC", "others", 50) in counts
    decisions.count("denied", "RBAC", "default/7")
    assert DecisionCount("denied", "RBAC", "default/7", 2) in decisions.counts()


def test_threads_lose_no_count() -> None:
    decisions = Decisions()

    def work() -> None:
        for _ in range(2000):
            decisions.allow()
            decisions.count("audit", by="a")

    with ThreadPoolExecutor(4) as threads:
        for _ in range(4):
            threads.submit(work)
    assert [one.times for one in decisions.counts()] == [8000, 8000]
