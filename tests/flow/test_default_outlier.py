"""Whom a cluster leaves alone when nobody has configured outlier detection."""

from __future__ import annotations

import pytest

from meshlib.call.effects import Failure, Outcome
from meshlib.plan.clusters import Clusters
from meshlib.plan.hosts import hosts_of
from meshlib.registries.base import Instance
from meshlib.resources import Source, load
from meshlib.state.outlier import DEFAULT_OUTLIER
from meshlib.state.store import StateStore
from meshlib.testing.clock import ManualClock
from tests.flow.hands import Hand, cluster, failed, release, route, status

TRIES = DEFAULT_OUTLIER.gateway_errors


def out_after(outcomes: list[Outcome]) -> int:
    """How many endpoints are out when the only one has given these outcomes."""
    clock = ManualClock(100.0)
    only = cluster(1, outlier=DEFAULT_OUTLIER)
    for outcome in outcomes:
        hand = Hand(route(only, retry=None), clock).answer(outcome)
        if outcome.failure is None:
            release(hand.outcome)
    return sum(state.ejected_until > clock() for state in only.endpoints)


@pytest.mark.parametrize("failure", [Failure.CONNECT, Failure.CONNECT_TIMEOUT, Failure.RESET, Failure.PROTOCOL])
def test_who_refuses_or_breaks_off_is_left_alone(failure: Failure) -> None:
    assert out_after([failed(failure) for _ in range(TRIES - 1)]) == 0
    assert out_after([failed(failure) for _ in range(TRIES)]) == 1


@pytest.mark.parametrize("code", [502, 503, 504])
def test_who_answers_that_it_cannot_serve_is_left_alone(code: int) -> None:
    assert out_after([status(code) for _ in range(TRIES)]) == 1


def test_a_timeout_may_be_the_load_and_counts_for_nothing() -> None:
    assert out_after([failed(Failure.TIMEOUT) for _ in range(10 * TRIES)]) == 0


def test_a_500_is_the_word_of_the_application_and_counts_for_nothing() -> None:
    assert out_after([status(500) for _ in range(10 * TRIES)]) == 0


def compiled(detection: str) -> object:
    text = f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: reviews}}
spec: {{host: reviews{detection}}}
"""
    loaded = load([Source("rule.yaml", text.encode())])
    assert not loaded.problems
    host = "reviews.default.svc.cluster.local"
    hosts = hosts_of([Instance("reviews", "10.0.0.1", 80)], loaded.resources)
    clusters = Clusters(hosts, loaded.resources, "default", StateStore(), 100.0, lambda: 0.5)
    return clusters.get(host, None, None, 0).outlier


def test_it_holds_where_no_destination_rule_speaks_of_outliers() -> None:
    assert compiled("") == DEFAULT_OUTLIER


def test_a_destination_rule_that_does_replaces_it_whole() -> None:
    said = compiled(", trafficPolicy: {outlierDetection: {consecutive5xxErrors: 0}}")
    assert said == DEFAULT_OUTLIER._replace(gateway_errors=0, base=30.0, timeouts=True)
