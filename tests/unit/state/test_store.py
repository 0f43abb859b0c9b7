from __future__ import annotations

from meshlib.state.store import LINGER, StateStore

KEY = ("reviews", "10.0.0.1", 80)


def test_a_state_is_kept_by_cluster_and_address() -> None:
    store = StateStore()
    first = store.endpoint(*KEY, now=0.0)
    assert store.endpoint(*KEY, now=1.0) is first
    assert store.endpoint("ratings", "10.0.0.1", 80, 1.0) is not first
    assert store.cluster("reviews") is store.cluster("reviews")


def test_a_removed_endpoint_is_remembered_for_a_minute() -> None:
    store = StateStore()
    state = store.endpoint(*KEY, now=0.0)
    store.retain([], ["reviews"], 10.0)
    store.retain([], ["reviews"], 10.0 + LINGER - 0.1)
    assert store.endpoint(*KEY, now=69.0) is state


def test_after_that_it_is_forgotten() -> None:
    store = StateStore()
    state = store.endpoint(*KEY, now=0.0)
    store.retain([], ["reviews"], 10.0)
    store.retain([], ["reviews"], 10.0 + LINGER)
    assert len(store) == 0
    assert store.endpoint(*KEY, now=70.0) is not state


def test_what_still_has_calls_in_flight_is_not_forgotten() -> None:
    store = StateStore()
    ticket = store.endpoint(*KEY, now=0.0).begin(0.0)
    store.retain([], [], 0.0)
    store.retain([], [], LINGER)
    assert len(store) == 1
    ticket.release()
    store.retain([], [], LINGER + 1.0)
    assert len(store) == 0


def test_the_minute_begins_anew_when_it_comes_back_and_goes_again() -> None:
    store = StateStore()
    store.endpoint(*KEY, now=0.0)
    store.retain([], [], 0.0)
    store.retain([KEY], ["reviews"], 30.0)
    store.retain([], [], 50.0)
    store.retain([], [], 0.0 + LINGER)
    assert len(store) == 1


def test_a_cluster_is_kept_as_long_as_one_of_its_endpoints() -> None:
    store = StateStore()
    cluster = store.cluster("reviews")
    store.endpoint(*KEY, now=0.0)
    store.retain([], [], 0.0)
    assert store.cluster("reviews") is cluster
    store.retain([], [], LINGER)
    assert store.cluster("reviews") is not cluster
