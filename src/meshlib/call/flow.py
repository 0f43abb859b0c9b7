"""One outbound call, from the route to the outcome. Start reading here.

The flow is a generator. It decides; the driver acts: it performs each effect and sends back what came of it. The same
flow runs under the sync driver, the async driver and in virtual time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from meshlib.call.call import Call
from meshlib.call.effects import Backoff, Effect, Failure, Flow, Outcome, Race, Send
from meshlib.plan.cluster import Cluster, HedgePolicy
from meshlib.plan.route import Fault, RoutePlan
from meshlib.policy.classify import classify
from meshlib.policy.outcome import LocalReply
from meshlib.policy.retry import RetryPolicy
from meshlib.state.breaker import BreakerPolicy
from meshlib.state.endpoint import ABANDONED, SUCCESS, EndpointState, Ticket

__all__ = ["call_flow"]

_TIMEOUT = Failure.TIMEOUT
_TIMEOUTS = (Failure.TIMEOUT, Failure.CONNECT_TIMEOUT)

Clock = Callable[[], float]
Random = Callable[[], float]


def call_flow(route: RoutePlan, call: Call, clock: Clock, random: Random) -> Flow:  # noqa: C901 - one line of thought, read in one go
    """One call as a generator of effects.

    Args:
        route: what the plan says of the request; it has a split (redirects and direct replies need no flow).
        call: the request, as far as deciding needs it. Its record is filled in.
        clock: monotonic seconds.
        random: uniform in [0, 1).

    Returns:
        (by StopIteration) the outcome to hand to the user.
    """
    call.route = route

    # The deadline is above everything: injected delays, backoff, queueing, retries and hedges spend one purse.
    # The default deadline, which nobody asked for, must not cut off a long upload.
    if route.timeout is not None and (route.explicit or call.body.small()):
        _tighten(call, call.started + route.timeout, route.explicit)

    # A fault stands where the real failure would: the rest of the call can't tell the difference.
    if route.fault is not None:
        aborted = yield from _inject(route.fault, call, clock, random)
        if aborted is not None:
            return aborted

    # The split is above retry: a retry stays in its cluster, so that this cluster's budget holds.
    index = route.split.choose(random)
    cluster = call.cluster = route.split.clusters[index]
    call.cluster_headers = route.split.headers[index]

    # What the key is stands above retry too: a retry of a keyed call goes on from where its key led.
    if cluster.hash_key is not None and call.head is not None:
        call.key, call.set_cookie = cluster.hash_key.affinity(call.head, random)

    # The budget is credited once per call and never per attempt, or retries would pay for retries.
    retry = route.retry
    if retry is not None or cluster.hedge is not None:
        cluster.state.budget.credit(cluster.budget, call.started)

    attempt = _attempt(route, cluster, call, 1, "first", clock)
    if cluster.hedge is None or not call.idempotent:
        outcome = yield from attempt
    else:
        outcome = yield from _hedged(attempt, cluster.hedge, route, cluster, call, clock)

    number = 1
    while not outcome.good and retry is not None:
        try:
            wait = _next_try(retry, cluster, call, number, outcome, clock(), random)
        except BaseException:
            # A strategy of the user's own failed, and nobody gets this outcome's response.
            if outcome.ticket is not None:
                outcome.ticket.release()
            raise
        if wait is None:
            break
        number += 1
        again = _attempt(route, cluster, call, number, "retry", clock)
        outcome = yield from _retried(again, wait, outcome, cluster)
    return outcome


def _attempt(route: RoutePlan, cluster: Cluster, call: Call, number: int, kind: str, clock: Clock) -> Flow:
    """One try, guarded by the cluster's breaker where it has one."""
    if cluster.breaker is None:
        return _try(route, cluster, call, number, kind, clock)
    return _guarded(cluster.breaker, route, cluster, call, number, kind, clock)


def _guarded(
    policy: BreakerPolicy, route: RoutePlan, cluster: Cluster, call: Call, number: int, kind: str, clock: Clock
) -> Flow:
    """One try, if the breaker lets it through: it is asked first, for what it refuses must not move the balance."""
    breaker = cluster.state.breaker
    now = clock()
    permit = breaker.admit(policy, now)
    if permit is None:
        return Outcome(failure=Failure.CIRCUIT_OPEN, sent=False)
    verdict = ABANDONED
    try:
        outcome = yield from _try(route, cluster, call, number, kind, clock, now)
        if outcome.ticket is not None:
            verdict = outcome.ticket.verdict
        return outcome
    finally:
        # A cancelled attempt is still ABANDONED here, and a half-open breaker gets its probe back.
        breaker.settle(policy, permit, verdict, clock())


def _try(
    route: RoutePlan, cluster: Cluster, call: Call, number: int, kind: str, clock: Clock, began: float | None = None
) -> Flow:
    """One try on one endpoint, accounted for exactly once whatever happens."""
    now = clock() if began is None else began
    expires = call.deadline
    if expires is not None and now >= expires:
        return Outcome(failure=Failure.DEADLINE, sent=False)
    retry = route.retry
    tried = call.tried if retry is None or retry.avoid_tried else ()
    key = call.key
    endpoint = cluster.picker.pick(now, tried) if key is None else cluster.picker.pick(now, tried, key)
    if endpoint is None:
        return Outcome(failure=Failure.NO_ENDPOINTS, sent=False)
    ticket = _begin(cluster, endpoint, now)
    if ticket is None:
        return Outcome(failure=Failure.OVERFLOW, sent=False)
    call.tried.append(endpoint)

    if retry is not None and retry.per_try_timeout is not None:
        try_ends = now + retry.per_try_timeout
        expires = try_ends if expires is None or try_ends < expires else expires

    status: int | Failure | None = None
    ended: float | None = None
    try:
        outcome: Outcome = yield Send(endpoint, number, expires, cluster.limits.connect_timeout)
        ended = clock()
        status = outcome.failure or outcome.status
        _account(cluster, ticket, outcome, ended)
        if outcome.failure is not None and outcome.failure in _TIMEOUTS and _expired(call, ended):
            status = outcome.failure = Failure.DEADLINE
        return outcome
    finally:
        # What has no response to read ends here; a response's ticket is released when its body ends.
        if type(status) is not int:
            ticket.release()
        call.attempts.append((endpoint, status, now, clock() if ended is None else ended, kind))


def _account(cluster: Cluster, ticket: Ticket, outcome: Outcome, now: float) -> None:
    """Judge what came back and record it with everyone it concerns."""
    # Classification comes before the latency sample: a fast 503 must not look like the best endpoint.
    verdict = classify(outcome)
    outcome.good = verdict is SUCCESS
    outcome.ticket = ticket
    ticket.settle(verdict, now, outcome.retry_after or 0.0)
    outlier = cluster.outlier
    if outlier is not None and (outlier.timeouts or outcome.failure is not _TIMEOUT):
        cluster.state.outliers.observe(outlier, ticket.endpoint, cluster.picker.states, outcome.status, now)
    if cluster.hedge is not None and outcome.good:
        cluster.state.latencies.add(now - ticket.began)


def _retried(attempt: Flow, wait: float, last: Outcome, cluster: Cluster) -> Flow:
    """The wait and the further attempt. The place that `_next_try` took for it is given back at its end."""
    try:
        yield Backoff(wait, last)
        return (yield from attempt)
    finally:
        if cluster.limits.retries is not None:
            cluster.state.retries.leave()


def _begin(cluster: Cluster, endpoint: EndpointState, now: float) -> Ticket | None:
    """The attempt's ticket, or None when the cluster has as much in flight as connectionPool allows."""
    most = cluster.limits.requests
    if most is None:
        return endpoint.begin(now)
    if not cluster.state.requests.enter(most):
        return None
    ticket = endpoint.begin(now)
    ticket.count(cluster.state.requests)
    return ticket


def _next_try(
    retry: RetryPolicy, cluster: Cluster, call: Call, number: int, outcome: Outcome, now: float, random: Random
) -> float | None:
    """Seconds to wait before a further attempt, or None when this outcome is final.

    Worth it and safe, allowed by the endpoint, in time, within the limit, paid for: in that order, so that a refusal
    costs nothing. The place in the limit is taken here, or all that wait at one time would find it free.
    """
    if not retry.allows(number) or not retry.wants(outcome, call):
        return None
    wait = retry.backoff(number, outcome, random, call.started, now)
    if wait is None or (call.deadline is not None and now + wait >= call.deadline):
        return None
    most = cluster.limits.retries
    if most is not None and not cluster.state.retries.enter(most):
        return None
    if cluster.state.budget.withdraw(cluster.budget, now):
        return wait
    if most is not None:
        cluster.state.retries.leave()
    return None


def _hedged(
    first: Flow,
    policy: HedgePolicy,
    route: RoutePlan,
    cluster: Cluster,
    call: Call,
    clock: Clock,
) -> Flow:
    """Run the first attempt; when it is slower than most have been, another beside it."""
    now = clock()
    state = cluster.state
    state.hedges.credit(policy.budget, now)
    delay = policy.delay
    if delay is None:
        measured = state.latencies.percentile(policy.percentile, now)
        delay = None if measured is None else max(measured, policy.min_delay)
    # Two attempts at one time can't share one stream, begun or not.
    sendable_twice = call.body.buffered is not None and call.replayable()
    if delay is None or not sendable_twice or len(cluster.picker.states) < 2:
        return (yield from first)

    def second() -> Flow | None:
        at = clock()
        if not state.hedges.withdraw(policy.budget, at):
            return None
        if not state.budget.withdraw(cluster.budget, at):
            return None
        return _attempt(route, cluster, call, 2, "hedge", clock)

    # A race is of whole attempts, so that the loser's own `finally` does its accounting.
    outcome: Outcome = yield Race(first, delay, second)
    return outcome


def _inject(fault: Fault, call: Call, clock: Clock, random: Random) -> Generator[Effect, Any, Outcome | None]:
    """The route's fault: a delay, then an abort, each for its share of calls; None lets the call go on."""
    if fault.delay and random() < fault.delay_share:
        left = fault.delay if call.deadline is None else min(fault.delay, call.deadline - clock())
        yield Backoff(max(left, 0.0))
        if left < fault.delay:
            return Outcome(failure=Failure.DEADLINE, sent=False)
    if fault.abort_status and random() < fault.abort_share:
        reply = LocalReply(fault.abort_status, FAULT_HEADERS, FAULT_BODY)
        return Outcome(fault.abort_status, sent=False, response=reply)
    return None


def _expired(call: Call, now: float) -> bool:
    return call.deadline is not None and now >= call.deadline


def _tighten(call: Call, deadline: float, explicit: bool) -> None:
    if call.deadline is None or deadline < call.deadline:
        call.deadline = deadline
        call.bounds_body = explicit


FAULT_BODY = b"fault filter abort"
FAULT_HEADERS = ((b"content-type", b"text/plain"), (b"content-length", str(len(FAULT_BODY)).encode()))
"""What Envoy's fault filter answers."""
