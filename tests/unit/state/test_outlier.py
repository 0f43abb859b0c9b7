from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.state.endpoint import EndpointState
from meshlib.state.outlier import OutlierPolicy, Outliers

ANY_SHARE = OutlierPolicy(max_percent=100.0)


def endpoints(count: int) -> list[EndpointState]:
    return [EndpointState("10.0.0.1", port, 0.0) for port in range(1, count + 1)]


def observe(policy: OutlierPolicy, statuses: list[int], now: float = 0.0) -> bool:
    """Whether the first of three endpoints is ejected by these results; 0 is a failure of local origin."""
    outliers, peers = Outliers(), endpoints(3)
    return True in [outliers.observe(policy, peers[0], peers, status, now) for status in statuses]


@pytest.mark.parametrize(
    ("policy", "statuses", "ejected"),
    [
        (ANY_SHARE, [500] * 4, False),
        (ANY_SHARE, [500] * 5, True),
        (ANY_SHARE, [500] * 4 + [200] + [500] * 4, False),
        (ANY_SHARE, [500] * 4 + [404] + [500] * 4, False),
        (ANY_SHARE, [0] * 5, True),
        (ANY_SHARE, [0, 500, 0, 500, 503], True),
        (ANY_SHARE._replace(server_errors=0), [500] * 50, False),
        (ANY_SHARE._replace(server_errors=0, gateway_errors=3), [502, 503, 504], True),
        (ANY_SHARE._replace(server_errors=0, gateway_errors=3), [502, 503, 500, 504], False),
        (ANY_SHARE._replace(server_errors=0, gateway_errors=3), [0, 0, 0], True),
        (ANY_SHARE, [503] * 4, False),
    ],
)
def test_a_long_enough_streak_ejects(policy: OutlierPolicy, statuses: list[int], ejected: bool) -> None:
    assert observe(policy, statuses) is ejected


@pytest.mark.parametrize(
    ("statuses", "ejected"),
    [
        ([0] * 2, False),
        ([0] * 3, True),
        ([500] * 4 + [0], False),  # they are counted apart
        ([0, 0, 500, 0], False),  # any response shows that it can be reached
        ([500] * 5, True),
    ],
)
def test_split_local_failures_have_a_streak_of_their_own(statuses: list[int], ejected: bool) -> None:
    assert observe(ANY_SHARE._replace(split=True, local_failures=3), statuses) is ejected


def test_local_failures_have_no_streak_of_their_own_unless_split() -> None:
    assert not observe(ANY_SHARE._replace(server_errors=0, local_failures=2), [0] * 20)


def eject(
    policy: OutlierPolicy, outliers: Outliers, who: EndpointState, peers: list[EndpointState], now: float
) -> bool:
    return True in [outliers.observe(policy, who, peers, 500, now) for _ in range(policy.server_errors)]


def test_no_more_than_the_share_is_ejected() -> None:
    policy, outliers, peers = OutlierPolicy(max_percent=30.0), Outliers(), endpoints(10)
    assert [eject(policy, outliers, peer, peers, 0.0) for peer in peers[:5]] == [True, True, True, False, False]
    assert outliers.spared > 0


def test_one_may_always_be_ejected_however_few_there_are() -> None:
    policy, outliers, peers = OutlierPolicy(max_percent=10.0), Outliers(), endpoints(3)
    assert [eject(policy, outliers, peer, peers, 0.0) for peer in peers] == [True, False, False]


def test_not_even_one_when_that_is_asked_for() -> None:
    policy, outliers, peers = OutlierPolicy(max_percent=10.0, always_one=False), Outliers(), endpoints(3)
    assert not eject(policy, outliers, peers[0], peers, 0.0)


def test_there_is_room_for_another_once_one_is_back() -> None:
    policy, outliers, peers = OutlierPolicy(max_percent=10.0), Outliers(), endpoints(3)
    assert eject(policy, outliers, peers[0], peers, 0.0)
    assert not eject(policy, outliers, peers[1], peers, 29.9)
    assert eject(policy, outliers, peers[1], peers, 30.0)


def test_a_spared_endpoint_is_ejected_at_its_next_failure_once_there_is_room() -> None:
    policy, outliers, peers = OutlierPolicy(max_percent=10.0), Outliers(), endpoints(3)
    eject(policy, outliers, peers[0], peers, 0.0)
    eject(policy, outliers, peers[1], peers, 1.0)
    assert outliers.observe(policy, peers[1], peers, 500, 31.0)


def test_each_ejection_lasts_longer_up_to_the_longest() -> None:
    policy, outliers, peers = ANY_SHARE._replace(longest=100.0), Outliers(), endpoints(3)
    lengths, now = [], 0.0
    for _ in range(5):
        assert eject(policy, outliers, peers[0], peers, now)
        lengths.append(peers[0].ejected_until - now)
        now = peers[0].ejected_until
    assert lengths == [30.0, 60.0, 90.0, 100.0, 100.0]


def test_a_base_above_the_longest_is_kept() -> None:
    policy, outliers, peers = ANY_SHARE._replace(base=400.0), Outliers(), endpoints(3)
    eject(policy, outliers, peers[0], peers, 0.0)
    assert peers[0].ejected_until == 400.0


def test_one_ejection_is_forgotten_for_each_interval_it_was_in() -> None:
    policy, outliers, peers = ANY_SHARE, Outliers(), endpoints(3)
    eject(policy, outliers, peers[0], peers, 0.0)  # until 30
    eject(policy, outliers, peers[0], peers, 30.0)  # until 90
    eject(policy, outliers, peers[0], peers, 105.0)  # one of the two forgotten
    assert peers[0].ejected_until == 105.0 + 60.0
    eject(policy, outliers, peers[0], peers, 1000.0)  # all forgotten
    assert peers[0].ejected_until == 1030.0


def test_failures_that_were_in_flight_when_it_was_ejected_do_not_wait_for_its_return() -> None:
    policy, outliers, peers = ANY_SHARE, Outliers(), endpoints(3)
    eject(policy, outliers, peers[0], peers, 0.0)
    assert not eject(policy, outliers, peers[0], peers, 1.0)
    assert not outliers.observe(policy, peers[0], peers, 500, 31.0)
    assert peers[0].ejected_until == 30.0


@given(
    st.integers(1, 12),
    st.integers(0, 100),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 11), st.sampled_from([0, 200, 500, 503]), st.floats(0, 20)), max_size=150),
)
def test_the_ejected_share_is_never_above_its_limit(
    count: int, percent: int, always_one: bool, steps: list[tuple[int, int, float]]
) -> None:
    policy = OutlierPolicy(server_errors=2, max_percent=percent, always_one=always_one)
    outliers, peers, now = Outliers(), endpoints(count), 0.0
    for who, status, wait in steps:
        now += wait
        outliers.observe(policy, peers[who % count], peers, status, now)
        out = sum(peer.ejected_until > now for peer in peers)
        assert out * 100.0 <= percent * count or (always_one and out == 1)
