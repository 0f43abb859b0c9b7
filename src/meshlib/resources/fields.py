"""The fields that are not applied, and why: the tables behind the capability report.

A field that stands in neither a type nor here is not Istio's; it is reported with the nearest name there is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from meshlib.resources import authentication as tokens
from meshlib.resources import authorization as access
from meshlib.resources import destinations, inbound
from meshlib.resources import networking as istio
from meshlib.resources.documents import Metadata
from meshlib.resources.security import PolicyTargetReference, WorkloadSelector

__all__ = ["APPROXIMATED", "EXACT", "TOLERANT", "Approximation", "ignored_because", "nearest"]

_LATER = "not supported yet"
_WIDER = "not supported yet: without this condition the rule matches more than it says"
_PROXY = "does not apply in a library: it configures a proxy"
_VISIBILITY = "does not apply in a library: every document of the registry is visible to every service"
_HTTP_ONLY = "does not apply in a library: only HTTP is routed"
_LONGEST_NAME = 64


class Approximation(NamedTuple):
    """A field that is applied nearly as written, for one value or for any (None)."""

    value: object
    reason: str


TOLERANT: frozenset[type] = frozenset({Metadata})
"""Types whose unknown fields belong to Kubernetes and say nothing about calls."""

EXACT: frozenset[type] = frozenset(
    {
        access.AuthorizationCondition,
        access.AuthorizationFrom,
        access.AuthorizationPolicySpec,
        access.AuthorizationRule,
        access.AuthorizationSource,
        access.AuthorizationTo,
        access.ExtensionProviderRef,
        access.Operation,
        tokens.ClaimToHeader,
        tokens.JWTHeader,
        tokens.JWTRule,
        tokens.RequestAuthenticationSpec,
        PolicyTargetReference,
        WorkloadSelector,
    }
)
"""Types of which no field is ever ignored: a rule that loses a condition lets in whom it should keep out."""

APPROXIMATED: Mapping[tuple[type, str], Approximation] = {
    (destinations.LoadBalancerSettings, "simple"): Approximation(
        "PASSTHROUGH", "a library has no original destination to pass through to; it balances by LEAST_REQUEST instead"
    ),
    (destinations.ConsistentHashLB, "useSourceIp"): Approximation(
        None, "the caller is the source: every call of this process has its machine's host name for a key"
    ),
    (destinations.TrafficPolicy, "retryBudget"): Approximation(
        None,
        "limits retries to percent of the calls of the last 10 s, and minRetryConcurrency a second besides; Istio"
        " counts what is under way",
    ),
    (destinations.TCPSettings, "maxConnections"): Approximation(
        None,
        "limits concurrent requests: at most maxConnections + http1MaxPendingRequests are under way, because a waiting"
        " request and one on a connection count alike here",
    ),
    (destinations.HTTPSettings, "http1MaxPendingRequests"): Approximation(
        None,
        "limits concurrent requests: at most maxConnections + http1MaxPendingRequests are under way, because a waiting"
        " request and one on a connection count alike here",
    ),
}


def _table(reason: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, reason)


_IGNORED: Mapping[type, Mapping[str, str]] = {
    istio.VirtualServiceSpec: _table(_HTTP_ONLY, "tls", "tcp") | _table(_VISIBILITY, "exportTo"),
    istio.HTTPRoute: _table(_LATER, "delegate", "mirror", "mirrors", "mirrorPercent", "mirrorPercentage"),
    istio.CorsPolicy: _table("replaced by allowOrigins in Istio", "allowOrigin"),
    istio.HTTPMatchRequest: _table(_WIDER, "scheme", "port", "sourceLabels", "gateways", "sourceNamespace")
    | _table("not supported yet: paths are compared with their case", "ignoreUriCase")
    | _table(_PROXY, "statPrefix"),
    istio.HTTPRedirect: _table(_LATER, "port", "derivePort", "scheme", "prefixRewrite"),
    istio.HTTPRewrite: _table(_LATER, "uriRegexRewrite"),
    istio.HTTPRetry: _table(_LATER, "retryRemoteLocalities"),
    istio.Delay: _table("not supported by Istio either", "exponentialDelay"),
    istio.Abort: _table(_HTTP_ONLY, "grpcStatus") | _table("not supported by Istio either", "http2Error"),
    destinations.DestinationRuleSpec: _table(_VISIBILITY, "exportTo") | _table(_LATER, "workloadSelector"),
    destinations.TrafficPolicy: _table(_LATER, "portLevelSettings") | _table(_PROXY, "tunnel", "proxyProtocol"),
    destinations.ClientTLSSettings: _table(_LATER, "credentialName", "caCrl"),
    destinations.LoadBalancerSettings: _table(
        _LATER, "localityLbSetting", "zoneAwareLbSetting", "warmup", "warmupDurationSecs"
    ),
    destinations.TCPSettings: _table(_LATER, "tcpKeepalive", "maxConnectionDuration"),
    destinations.HTTPSettings: _table(_LATER, "h2UpgradePolicy", "maxConcurrentStreams", "http2KeepAlive")
    | _table(_PROXY, "useClientProtocol"),
    destinations.OutlierDetection: _table(_LATER, "outlierDetectionHttpErrorCodes")
    | _table("replaced by consecutive5xxErrors in Istio", "consecutiveErrors"),
    destinations.RetryBudget: _table(_LATER, "budgetInterval"),
    istio.ServiceEntrySpec: _table("does not apply in a library: hosts are found by name", "addresses")
    | _table(_VISIBILITY, "exportTo")
    | _table(_LATER, "workloadSelector", "subjectAltNames"),
    istio.WorkloadEntry: _table(_LATER, "network", "serviceAccount"),
    inbound.ExtensionProvider: _table(
        "not supported yet: only envoyExtAuthzHttp decides for AuthorizationPolicies", "envoyExtAuthzGrpc"
    ),
    inbound.HTTPAuthorizer: _table(_PROXY, "clearRouteCache")
    | _table("replaced by includeRequestHeadersInCheck in Istio", "includeHeadersInCheck"),
    inbound.RequestBodyInCheck: _table("does not apply in a library: a body is sent as it is", "packAsBytes"),
}


def ignored_because(owner: type, name: str, known: Iterable[str]) -> str:
    """Why the field `name` of `owner` is not applied.

    Args:
        owner: the type of the mapping that holds the field.
        name: as the document writes it.
        known: the names that `owner` does apply.
    """
    table = _IGNORED.get(owner, {})
    if name in table:
        return table[name]
    return "unknown field" + nearest(name, [*known, *table])


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean "…"?` when something known is close to `name`, else nothing."""
    if len(name) > _LONGEST_NAME:
        return ""
    by_lower_case = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower().replace("_", ""), by_lower_case, n=1)
    return f'; did you mean "{by_lower_case[close[0]]}"?' if close else ""
