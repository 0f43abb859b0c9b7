"""What the plan says of requests coming in, and how it comes of PeerAuthentication documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from meshlib.plan.authentication import tokens_fault, tokens_of
from meshlib.plan.authorization import authorization_of
from meshlib.plan.cors import Cors, cors_of
from meshlib.plan.inboundfaults import InboundFaults, faults_of
from meshlib.plan.loads import load_of
from meshlib.plan.ratelimits import limits_of
from meshlib.plan.snapshot import Snapshot
from meshlib.policy.authorize import Authorization
from meshlib.policy.overload import Load
from meshlib.policy.ratelimit import RateLimits
from meshlib.policy.tokens import TokenRules
from meshlib.resources import (
    AuthorizationPolicySpec,
    InboundPolicySpec,
    Intentions,
    PeerAuthenticationSpec,
    RequestAuthenticationSpec,
    RequestBounds,
    Resource,
)
from meshlib.resources.scopes import Workload, scope_of
from meshlib.state.inbound import InboundState

__all__ = ["Inbound", "Mode", "inbound_of"]

Mode = Literal["DISABLE", "PERMISSIVE", "STRICT"]


NO_POLICY = InboundPolicySpec()


class Inbound(NamedTuple):
    """Immutable.

    Attributes:
        mode: PeerAuthentication's for this workload. Istio's default is PERMISSIVE.
        ports: the modes of single ports.
        intentions: who may call; None: no such system has a say.
        tokens, authorization, limits, load, bounds, cors, faults: the steps of admission; None: nothing to do.
        policy: the InboundPolicies that select the process, as one.
        closed: why nobody may come in, "" when requests are judged: a policy that might forbid one can't be read.
    """

    mode: Mode = "PERMISSIVE"
    ports: Mapping[int, Mode] = {}
    intentions: Intentions | None = None
    tokens: TokenRules | None = None
    authorization: Authorization | None = None
    limits: RateLimits | None = None
    load: Load | None = None
    bounds: RequestBounds | None = None
    cors: Cors | None = None
    faults: InboundFaults | None = None
    policy: InboundPolicySpec = NO_POLICY
    closed: str = ""

    def mode_of(self, port: int | None) -> Mode:
        """The mode of a port this process listens on; None: unknown."""
        return self.mode if port is None else self.ports.get(port, self.mode)


def inbound_of(
    snapshot: Snapshot, namespace: str, service: str | None, labels: Mapping[str, str], state: InboundState
) -> Inbound:
    """What holds for one process: a document that selects it goes before its namespace's, that before the mesh's.

    That is so of PeerAuthentication (UNSET inherits from the next wider) and, field by field, of InboundPolicy. Of two
    that are equally narrow the first by name counts. RequestAuthentications and AuthorizationPolicies that select the
    process hold all together, as in Istio.

    Args:
        snapshot: the configuration.
        namespace: of the process.
        service: its name; stands in for the label `app` where the process has none.
        labels: it wears.
        state: what was observed, for the steps that need it.
    """
    resources = sorted(snapshot.resources, key=lambda one: one.key)
    wears = {"app": service, **labels} if service is not None else dict(labels)
    narrowest, by_namespace, by_mesh = _by_scope(resources, namespace, wears)
    mode: Mode = "PERMISSIVE"
    for spec in (by_mesh, by_namespace, narrowest):
        mode = _mode(spec.mtls.mode if spec is not None and spec.mtls is not None else "UNSET", mode)
    ports = narrowest.port_level_mtls if narrowest is not None else {}
    selecting = [one for one in resources if _scope(one, namespace, wears) is not None]
    policy = _joined([one for one in selecting if isinstance(one.spec, InboundPolicySpec)], namespace, wears)
    rules = [one for one in selecting if isinstance(one.spec, AuthorizationPolicySpec)]
    tokens = [one.spec for one in selecting if isinstance(one.spec, RequestAuthenticationSpec)]
    return Inbound(
        mode,
        {int(port): _mode(mtls.mode, mode) for port, mtls in ports.items()},
        snapshot.intentions,
        tokens=tokens_of(tokens, state),
        authorization=authorization_of(rules, policy.trust_domain_aliases, policy.extension_providers),
        limits=limits_of(policy.rate_limits, state),
        load=load_of(policy, state),
        bounds=policy.request_bounds,
        cors=cors_of(snapshot.resources, namespace, service),
        faults=faults_of(policy.faults),
        policy=policy,
        closed=snapshot.closed or tokens_fault(tokens),
    )


def _joined(policies: Sequence[Resource], namespace: str, wears: Mapping[str, str]) -> InboundPolicySpec:
    """Field by field what the narrowest policy says that says anything."""
    said: dict[str, object] = {}
    for one in sorted(policies, key=lambda one: _scope(one, namespace, wears) or 0):
        for field in one.spec.__struct_fields__:
            value = getattr(one.spec, field)
            if value not in (None, ()):
                said.setdefault(field, value)
    return InboundPolicySpec(**said)  # type: ignore[arg-type]  # its own fields


def _scope(resource: Resource, namespace: str, wears: Mapping[str, str]) -> int | None:
    """0: a document selects the process, 1: it is its namespace's, 2: it is the mesh's; None: it is for others."""
    scope = scope_of(resource)
    return scope.level if scope is not None and scope.holds_for(Workload(namespace, wears)) else None


def _by_scope(
    resources: Iterable[Resource], namespace: str, wears: Mapping[str, str]
) -> Sequence[PeerAuthenticationSpec | None]:
    """The document that selects the process, its namespace's and the mesh's; of several the first."""
    found: list[PeerAuthenticationSpec | None] = [None, None, None]
    for resource in resources:
        spec, scope = resource.spec, _scope(resource, namespace, wears)
        if isinstance(spec, PeerAuthenticationSpec) and scope is not None:
            found[scope] = found[scope] or spec
    return found


def _mode(written: Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"], otherwise: Mode) -> Mode:
    return otherwise if written == "UNSET" else written
