"""Outlier detection: judging an endpoint by its own streak of failures, and taking it out for a while.

Envoy's rules (`outlier_detection.proto`), with lazy time: an ejection ends when its time has passed, and nobody has to
sweep. An ejection lasts min(base · n, max(base, max)); n falls by one for each interval without an ejection (gRPC A50).
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple

from meshlib.state.endpoint import EndpointState

__all__ = ["DEFAULT_OUTLIER", "OutlierPolicy", "Outliers"]

GATEWAY_ERRORS = frozenset((502, 503, 504))


class OutlierPolicy(NamedTuple):
    """The parameters, as a DestinationRule's `outlierDetection` names them; 0 turns a streak off.

    Attributes:
        server_errors: `consecutive5xxErrors`; responses of 5xx, and local failures unless `split`.
        gateway_errors: `consecutiveGatewayErrors`; 502, 503, 504, and local failures unless `split`.
        local_failures: `consecutiveLocalOriginFailures`; refused, reset, timed out; only with `split`.
        split: `splitExternalLocalOriginErrors`.
        interval, base, longest: seconds.
        max_percent: `maxEjectionPercent` of the cluster's endpoints may be out at once.
        always_one: one endpoint may always be out, however few there are.
        timeouts: whether an attempt that timed out counts; the caller of `observe` looks at it.
    """

    server_errors: int = 5
    gateway_errors: int = 0
    local_failures: int = 5
    split: bool = False
    interval: float = 10.0
    base: float = 30.0
    longest: float = 300.0
    max_percent: float = 10.0
    always_one: bool = True
    timeouts: bool = True


DEFAULT_OUTLIER = OutlierPolicy(server_errors=0, gateway_errors=5, base=5.0, timeouts=False)
"""When a DestinationRule has no `outlierDetection`: who refuses, resets or answers 502 to 504 is left alone a while.

Istio judges nobody then. But one instance of three that is dead fails a third of the attempts until its lease expires,
and the retry budget pays for a fifth: without this the callers would notice. What nobody asked for is gentle: a plain
500 is the application's word and a timeout may be the load, which an ejection would make worse; neither counts.
`outlierDetection: {consecutive5xxErrors: 0}` turns it off.
"""


class Outliers:
    """The judge of one cluster. Who is out is computed from the endpoints, never counted beside them."""

    __slots__ = ("_lock", "spared")

    def __init__(self) -> None:
        self._lock = Lock()
        self.spared = 0
        """How many ejections the share limit has prevented."""

    def observe(
        self,
        policy: OutlierPolicy,
        endpoint: EndpointState,
        peers: Sequence[EndpointState],
        status: int,
        now: float,
    ) -> bool:
        """Count one attempt's result and eject the endpoint if a streak is long enough.

        Args:
            policy: the thresholds.
            endpoint: whom it concerns.
            peers: all endpoints of the cluster.
            status: the HTTP status, 0 when there was no response (a failure of local origin).
            now: monotonic seconds.

        Returns:
            Whether the endpoint was ejected by this.
        """
        if 0 < status < 500:
            if endpoint.server_errors or endpoint.gateway_errors or endpoint.local_failures:
                self._forgive(endpoint)
            return False
        if endpoint.ejected_until > now:
            # What was in flight when it was ejected has been paid for: it comes back with a clean slate.
            return False
        with endpoint.lock:
            if status == 0 and policy.split:
                endpoint.local_failures += 1
            else:
                endpoint.server_errors += 1
                endpoint.gateway_errors = endpoint.gateway_errors + 1 if status == 0 or status in GATEWAY_ERRORS else 0
                if status:
                    endpoint.local_failures = 0
            guilty = (
                0 < policy.server_errors <= endpoint.server_errors
                or 0 < policy.gateway_errors <= endpoint.gateway_errors
                or (policy.split and 0 < policy.local_failures <= endpoint.local_failures)
            )
        return guilty and self._eject(policy, endpoint, peers, now)

    @staticmethod
    def _forgive(endpoint: EndpointState) -> None:
        with endpoint.lock:
            endpoint.server_errors = endpoint.gateway_errors = endpoint.local_failures = 0

    def _eject(
        self, policy: OutlierPolicy, endpoint: EndpointState, peers: Sequence[EndpointState], now: float
    ) -> bool:
        with self._lock:
            if endpoint.ejected_until > now:
                return False
            out = sum(peer.ejected_until > now for peer in peers)
            within = (out + 1) * 100.0 <= policy.max_percent * len(peers)
            if not within and not (policy.always_one and out == 0):
                self.spared += 1
                return False
            times = ejections_remembered(endpoint, policy, now) + 1
            length = min(policy.base * times, max(policy.base, policy.longest))
            endpoint.ejections = times
            endpoint.ejected_until = endpoint.returned_at = now + length
        self._forgive(endpoint)
        return True


def ejections_remembered(endpoint: EndpointState, policy: OutlierPolicy, now: float) -> int:
    """How many earlier ejections still count: one is forgotten for each interval the endpoint was in."""
    if endpoint.ejections == 0:
        return 0
    clean = max(0.0, now - endpoint.returned_at)
    return max(0, endpoint.ejections - int(clean / policy.interval))
