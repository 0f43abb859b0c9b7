"""What policies on requests coming in do to each other: those that never hold, shadow others, or lock everybody out.

Every finding is a warning: the documents are sound, and may do what they say, but hardly what was meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from meshlib.resources.authentication import RequestAuthenticationSpec
from meshlib.resources.authorization import DRY_RUN, AuthorizationPolicySpec, AuthorizationRule
from meshlib.resources.covering import Shape, contradiction, covers, shape_of
from meshlib.resources.documents import Path, Problem, Resource, show_path
from meshlib.resources.inbound import InboundPolicySpec
from meshlib.resources.scopes import Scope, Workload, scope_of
from meshlib.resources.security import PeerAuthenticationSpec
from meshlib.resources.seldom import hints, identity_places, token_places

__all__ = ["judge_inbound"]

COMPARED_AT_MOST = 500
"""Rules that are compared, each with each."""

_SELECTING = (AuthorizationPolicySpec, InboundPolicySpec, PeerAuthenticationSpec, RequestAuthenticationSpec)

_Found = tuple[Resource, Path, str]


class _Policy(NamedTuple):
    """An AuthorizationPolicy for processes.

    Attributes:
        enforced: whether it decides: not AUDIT, and no dry run.
    """

    resource: Resource
    spec: AuthorizationPolicySpec
    scope: Scope
    enforced: bool

    @property
    def name(self) -> str:
        return _name(self.resource)


class _Rule(NamedTuple):
    policy: _Policy
    number: int
    rule: AuthorizationRule
    shape: Shape

    @property
    def at(self) -> Path:
        return ("spec", "rules", self.number)

    def __str__(self) -> str:
        return f"rules[{self.number}] of {self.policy.name}"

    @property
    def order(self) -> tuple[tuple[str, str, str], int]:
        return self.policy.resource.key, self.number


def judge_inbound(resources: Iterable[Resource], workloads: Iterable[Workload] = ()) -> list[Problem]:
    """Warnings about the policies on requests coming in, each with the documents, the rule and the way out.

    Args:
        resources: every sound document that is to be in force.
        workloads: the processes that are registered; empty: nobody knows.
    """
    every = sorted((one for one in resources if isinstance(one.spec, _SELECTING)), key=lambda one: one.key)
    known = tuple(workloads)
    policies = list(_policies(every))
    rules = [
        _Rule(policy, index, rule, shape_of(rule))
        for policy in policies
        for index, rule in enumerate(policy.spec.rules)
    ]
    found = [
        *_unworn(every, known),
        *_without_meaning(rules),
        *_without_identity(rules, every),
        *_without_tokens(rules, every),
        *_covered(rules),
        *_locked_out(policies),
        *_without_provider(policies, every),
        *_same_field(every, known),
        *(finding for one in every for finding in hints(one)),
    ]
    return [_problem(*one) for one in found]


def _policies(every: Iterable[Resource]) -> Iterator[_Policy]:
    for one in every:
        scope = scope_of(one)
        if isinstance(one.spec, AuthorizationPolicySpec) and scope is not None:
            dry = one.metadata.annotations.get(DRY_RUN) == "true"
            yield _Policy(one, one.spec, scope, not dry and one.spec.action != "AUDIT")


def _unworn(every: Iterable[Resource], workloads: Sequence[Workload]) -> Iterator[_Found]:
    for one in every:
        scope, selector = scope_of(one), getattr(one.spec, "selector", None)
        if scope is None or selector is None:
            continue
        if not scope.labels:
            yield one, ("spec", "selector"), f"names no label, and so holds for all {scope}; write matchLabels, or none"
        elif workloads and not any(scope.holds_for(workload) for workload in workloads):
            message = f"no registered instance is one of the {scope}: the document holds for nobody; mend the labels"
            yield one, ("spec", "selector", "matchLabels"), message


def _without_meaning(rules: Iterable[_Rule]) -> Iterator[_Found]:
    for one in rules:
        if why := contradiction(one.rule):
            yield one.policy.resource, one.at, f"can never hold, {why}; mend or remove it"


def _without_identity(rules: Iterable[_Rule], every: Sequence[Resource]) -> Iterator[_Found]:
    """Where PeerAuthentication says DISABLE nobody shows a certificate, so that callers have no identity."""
    for one in rules:
        disabling = _disabling(one.policy.scope, every)
        if disabling is None:
            continue
        for path in identity_places(one.rule):
            message = (
                f"can never hold: the PeerAuthentication {_name(disabling)} says DISABLE, so that callers have no"
                " identity; write PERMISSIVE or STRICT there, or go by something else here"
            )
            yield one.policy.resource, (*one.at, *path), message


def _disabling(scope: Scope, every: Iterable[Resource]) -> Resource | None:
    """The PeerAuthentication by which no process of `scope` takes TLS, if there is one."""
    narrowest: tuple[int, Resource] | None = None
    for one in every:
        spec, theirs = one.spec, scope_of(one)
        if not isinstance(spec, PeerAuthenticationSpec) or theirs is None:
            continue
        mode = spec.mtls.mode if spec.mtls is not None else "UNSET"
        other_ports = any(port.mode not in ("UNSET", "DISABLE") for port in spec.port_level_mtls.values())
        if theirs.may_meet(scope) and (other_ports or (mode not in ("UNSET", "DISABLE") and not theirs.covers(scope))):
            return None
        if mode != "UNSET" and theirs.covers(scope) and (narrowest is None or theirs.level < narrowest[0]):
            narrowest = theirs.level, one
    if narrowest is None or not isinstance(found := narrowest[1].spec, PeerAuthenticationSpec):
        return None
    return narrowest[1] if found.mtls is not None and found.mtls.mode == "DISABLE" else None


def _without_tokens(rules: Iterable[_Rule], every: Sequence[Resource]) -> Iterator[_Found]:
    accepting = [
        scope
        for one in every
        if isinstance(one.spec, RequestAuthenticationSpec) and one.spec.jwt_rules and (scope := scope_of(one))
    ]
    for one in rules:
        if any(scope.may_meet(one.policy.scope) for scope in accepting):
            continue
        for path, negative in token_places(one.rule):
            outcome = "holds for everybody" if negative else "can never hold"
            message = (
                f"{outcome}: no RequestAuthentication accepts tokens for {one.policy.scope};"
                " write one with the issuer's keys"
            )
            yield one.policy.resource, (*one.at, *path), message


def _covered(rules: Sequence[_Rule]) -> Iterator[_Found]:
    """Rules that decide nothing, because another has decided before."""
    decisive = [one for one in rules if one.policy.enforced and not contradiction(one.rule)]
    if len(decisive) > COMPARED_AT_MOST:
        message = f"there are {len(decisive)} rules, of which {COMPARED_AT_MOST} are compared; the others may shadow"
        yield decisive[COMPARED_AT_MOST].policy.resource, (), message
    decisive = decisive[:COMPARED_AT_MOST]
    for one in decisive:
        shadows = (message for other in decisive if other is not one and (message := _shadow(one, other)))
        message = next(shadows, "")
        if message:
            yield one.policy.resource, one.at, message


def _shadow(one: _Rule, other: _Rule) -> str:
    """Why `one` decides nothing beside `other`, "" when it may."""
    mine, theirs = one.policy, other.policy
    if not theirs.scope.covers(mine.scope) or not covers(other.shape, one.shape):
        return ""
    if theirs.spec.action == "DENY" and mine.spec.action == "ALLOW":
        return f"never lets anything in: {other} (DENY) holds for all of it, and DENY goes first; narrow one of them"
    if theirs.spec.action != mine.spec.action or theirs.spec.provider != mine.spec.provider:
        return ""
    alike = covers(one.shape, other.shape) and mine.scope.covers(theirs.scope)
    if alike and one.order < other.order:
        return ""
    if alike:
        return f"says what {other} says; remove one of them"
    if other.rule == AuthorizationRule():
        return f"changes nothing: {other} holds for every request already; remove one of them"
    return f"changes nothing: {other} holds for all that this one holds for; remove or narrow one of them"


def _locked_out(policies: Sequence[_Policy]) -> Iterator[_Found]:
    enforced = [one for one in policies if one.enforced]
    for one in enforced:
        for index, rule in enumerate(one.spec.rules if one.spec.action == "DENY" else ()):
            if rule == AuthorizationRule():
                message = f"turns away every request to {one.scope}; write who or what is meant, if not all are"
                yield one.resource, ("spec", "rules", index), message
    letting = [one for one in enforced if one.spec.action == "ALLOW"]
    for one in letting:
        others = (other for other in letting if other is not one and other.scope.may_meet(one.scope))
        if not _lets_in(one) and not any(_lets_in(other) for other in others):
            message = (
                f"lets nobody in: it has no rule that can hold, and no other ALLOW is for {one.scope};"
                ' write rules, "- {}" to let everybody in'
            )
            yield one.resource, ("spec", "rules") if one.spec.rules else ("spec",), message


def _lets_in(policy: _Policy) -> bool:
    return any(not contradiction(rule) for rule in policy.spec.rules)


def _without_provider(policies: Iterable[_Policy], every: Sequence[Resource]) -> Iterator[_Found]:
    defined = [
        (scope, {provider.name for provider in one.spec.extension_providers})
        for one in every
        if isinstance(one.spec, InboundPolicySpec) and (scope := scope_of(one)) is not None
    ]
    for one in policies:
        provider = one.spec.provider
        if provider is None or any(scope.may_meet(one.scope) and provider.name in names for scope, names in defined):
            continue
        message = (
            f'no InboundPolicy for {one.scope} defines "{provider.name}" in extensionProviders: every request the'
            " rules hold for is denied; define it, or name one that is"
        )
        yield one.resource, ("spec", "provider", "name"), message


def _same_field(every: Iterable[Resource], workloads: Sequence[Workload]) -> Iterator[_Found]:
    """InboundPolicies that are equally narrow and say the same: the first by name counts."""
    before: list[tuple[Resource, Scope]] = []
    for one in every:
        scope = scope_of(one)
        if not isinstance(one.spec, InboundPolicySpec) or scope is None:
            continue
        for other, theirs in before:
            if theirs.level != scope.level or not scope.meets(theirs, workloads):
                continue
            for written in sorted(_said(one) & _said(other)):
                message = (
                    f"{_name(other)} says it, too, and is as narrow: where both hold its word counts, as the first by"
                    " name; say it in one of them"
                )
                yield one, ("spec", written), message
        before.append((one, scope))


def _said(resource: Resource) -> set[str]:
    spec = resource.spec
    fields = zip(spec.__struct_fields__, spec.__struct_encode_fields__, strict=True)
    return {written for field, written in fields if field != "selector" and getattr(spec, field) not in (None, ())}


def _name(resource: Resource) -> str:
    return f"{resource.metadata.namespace}/{resource.metadata.name}"


def _problem(resource: Resource, path: Path, message: str) -> Problem:
    return Problem(resource.origin, resource.kind, _name(resource), show_path(path), message)
