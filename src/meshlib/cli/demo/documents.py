"""What the demo asks of the mesh, in the words of Istio."""

from __future__ import annotations

from meshlib.resources import Resource, Source, load

__all__ = ["ROUTE_TIMEOUT", "broken", "rules", "slow", "split", "strict", "whole"]

ROUTE_TIMEOUT = 0.3
"""Seconds that a page waits for reviews in the phase of deadlines."""

_RULES = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 5s, maxEjectionPercent: 50}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
  - {name: v3, labels: {version: v3}}
"""

_REVIEWS = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - name: jason
    match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - name: everybody
    route:
    - {destination: {host: reviews, subset: v1}, weight: %d}
    - {destination: {host: reviews, subset: v3}, weight: %d}
"""

_RATINGS = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http:
  - route: [{destination: {host: ratings}}]
"""


_STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
"""


def rules() -> Resource:
    """The subsets of reviews by version, and when one of its instances is taken out."""
    return load([Source("demo", _RULES.encode())]).resources[0]


def split(v1: int, v3: int) -> Resource:
    """Reviews: jason gets v2, everybody else v1 and v3 in shares of 100."""
    return _resource(_REVIEWS % (v1, v3))


def slow(seconds: float) -> Resource:
    """Reviews: all v3, each call `seconds` late, and waited for no longer than ROUTE_TIMEOUT."""
    fault = f"{{delay: {{fixedDelay: {seconds}s, percentage: {{value: 100}}}}}}"
    return _resource(f"{_REVIEWS % (0, 100)}    timeout: {ROUTE_TIMEOUT}s\n    fault: {fault}\n")


def broken(percent: int) -> Resource:
    """Ratings: this share of the calls is answered 503."""
    return _resource(f"{_RATINGS}    fault: {{abort: {{httpStatus: 503, percentage: {{value: {percent}}}}}}}\n")


def whole() -> Resource:
    """Ratings: without a fault."""
    return _resource(_RATINGS)


def strict() -> Resource:
    """All services: nobody comes in without a certificate."""
    return load([Source("demo", _STRICT.encode())]).resources[0]


def _resource(text: str) -> Resource:
    # A VirtualService by itself would name subsets that nobody defines.
    return load([Source("demo", f"{_RULES}---{text}".encode())]).resources[-1]
