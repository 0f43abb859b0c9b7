"""Five times what a real worker can do. What is measured exactly is in tests/sim; here the order has to be right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.callers import Reply, Stream
from benchmarks.overload import measured

RATES = [Stream("critical", 25.0), Stream("default", 125.0), Stream("best-effort", 350.0)]
"""A worker with ten connections that each request holds for 0.1 s serves 100 a second."""

SECONDS, SETTLE = 4.0, 2.0


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    queue = {"maxRequests": 10, "maxPending": 50, "maxWait": "100ms"}
    policy = {"concurrency": queue, "overload": {"eventLoopLag": "200ms", "queueTime": "100ms"}}
    whole = {"apiVersion": "meshlib/v1", "kind": "InboundPolicy", "metadata": {"name": "overload"}, "spec": policy}
    (tmp_path / "policy.json").write_text(json.dumps(whole))
    return tmp_path


def served(replies: Sequence[Reply], priority: str) -> float:
    its = [reply.status == 200 for reply in replies if reply.priority == priority]
    return sum(its) / len(its)


def test_what_collapses_without_the_middleware_serves_the_important_with_it(documents: Path) -> None:
    bare = measured("waiting", None, RATES, SECONDS, SETTLE)
    meshed = measured("waiting", documents, RATES, SECONDS, SETTLE)
    assert meshed.goodput > 40
    assert bare.goodput < meshed.goodput / 4
    critical, default, best_effort = (served(meshed.replies, stream.priority) for stream in RATES)
    assert critical > default > best_effort
    assert critical > 0.5
    assert best_effort < 0.2
    assert {reply.status for reply in meshed.replies} <= {0, 200, 503}
