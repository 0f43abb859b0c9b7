"""Compiling concurrency, priority and overload of InboundPolicies."""

from __future__ import annotations

from meshlib.context import PRIORITIES
from meshlib.plan.matches import compile_match
from meshlib.policy.overload import Load
from meshlib.resources import InboundPolicySpec
from meshlib.resources.inbound import Concurrency, Overload, Priority
from meshlib.state.adaptive import AdaptiveBounds
from meshlib.state.inbound import InboundState
from meshlib.state.load import UNBOUNDED, PlaceBounds

__all__ = ["load_of"]

NO_PRIORITY = Priority()
NO_SIGNALS = Overload()


def load_of(policy: InboundPolicySpec, state: InboundState) -> Load | None:
    """None when the policy says nothing of it."""
    if policy.concurrency is None and policy.priority is None and policy.overload is None:
        return None
    priority = policy.priority or NO_PRIORITY
    signals = policy.overload or NO_SIGNALS
    return Load(
        [([compile_match(match) for match in rule.match], PRIORITIES.index(rule.priority)) for rule in priority.rules],
        identified=priority.trust == "IDENTIFIED",
        places=state.load.places if policy.concurrency is not None else None,
        bounds=_bounds(policy.concurrency) if policy.concurrency is not None else None,
        lag=signals.event_loop_lag,
        queue_time=signals.queue_time,
    )


def _bounds(concurrency: Concurrency) -> PlaceBounds:
    adaptive = concurrency.adaptive
    return PlaceBounds(
        concurrency.max_requests or UNBOUNDED,
        None
        if adaptive is None
        else AdaptiveBounds(adaptive.min_limit, max(adaptive.min_limit, adaptive.max_limit), adaptive.initial_limit),
        concurrency.max_pending,
        concurrency.max_wait,
    )
