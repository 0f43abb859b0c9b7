from __future__ import annotations

from meshlib.state.cluster import Latencies


def test_a_percentile_needs_a_hundred_samples() -> None:
    latencies = Latencies()
    for _ in range(99):
        latencies.add(0.1)
    assert latencies.percentile(99.0, 0.0) is None
    latencies.add(0.1)
    assert latencies.percentile(99.0, 3.0) == 0.1


def test_the_percentile_is_of_the_samples_in_order_of_size() -> None:
    latencies = Latencies()
    for index in reversed(range(100)):
        latencies.add(float(index))
    assert latencies.percentile(99.0, 0.0) == 99.0
    assert latencies.percentile(50.0, 0.0) == 50.0
    assert latencies.percentile(100.0, 0.0) == 99.0


def test_it_is_computed_anew_every_three_seconds() -> None:
    latencies = Latencies()
    for _ in range(100):
        latencies.add(1.0)
    assert latencies.percentile(50.0, 0.0) == 1.0
    for _ in range(512):
        latencies.add(2.0)
    assert latencies.percentile(50.0, 2.9) == 1.0
    assert latencies.percentile(50.0, 3.0) == 2.0
