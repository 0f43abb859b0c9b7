"""Compiling AuthorizationPolicies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from meshlib.policy.arriving import Arriving
from meshlib.policy.attributes import Holds, attribute_test
from meshlib.policy.authorize import Authorization, Condition, Policy, Rule, holds_all
from meshlib.resources import (
    DRY_RUN,
    AuthorizationAction,
    AuthorizationPolicySpec,
    AuthorizationRule,
    AuthorizationSource,
    ExtensionProvider,
    Operation,
    Resource,
)

__all__ = ["authorization_of"]

_SHOWN = 5
"""Values of a condition that are shown."""

_FIELDS = {
    "principals": "source.principal",
    "requestPrincipals": "request.auth.principal",
    "namespaces": "source.namespace",
    "serviceAccounts": "source.serviceAccount",
    "ipBlocks": "source.ip",
    "remoteIpBlocks": "remote.ip",
    "hosts": "hosts",
    "ports": "destination.port",
    "methods": "methods",
    "paths": "paths",
}
"""The attribute that a field of a source or an operation is about."""

_OF_IDENTITY = frozenset(("source.principal", "source.namespace", "source.serviceAccount"))


class _Written(NamedTuple):
    """A condition as it stands in a document."""

    field: str
    name: str
    values: Sequence[str]
    negative: bool


class _Home(NamedTuple):
    """What a condition is compiled for."""

    action: AuthorizationAction
    namespace: str
    aliases: Sequence[str]


def authorization_of(
    policies: Sequence[Resource], aliases: Sequence[str], providers: Sequence[ExtensionProvider] = ()
) -> Authorization | None:
    """What the AuthorizationPolicies that select one process say together; None: there are none.

    Args:
        policies: those that select it.
        aliases: trust domains that count as ours.
        providers: whom CUSTOM policies may name.
    """
    compiled = [_policy(one, one.spec, aliases) for one in policies if isinstance(one.spec, AuthorizationPolicySpec)]
    return Authorization(compiled, providers) if compiled else None


def _policy(resource: Resource, spec: AuthorizationPolicySpec, aliases: Sequence[str]) -> Policy:
    metadata = resource.metadata
    home = _Home(spec.action, metadata.namespace, aliases)
    rules = tuple(_rule(number, rule, home) for number, rule in enumerate(spec.rules, 1))
    names = [one.name for rule in spec.rules for one in _every(rule)]
    return Policy(
        f"{metadata.namespace}/{metadata.name}",
        spec.action,
        rules,
        metadata.annotations.get(DRY_RUN) == "true",
        spec.provider.name if spec.provider is not None else "",
        frozenset(names) & {"paths", "hosts", "methods"},
        str(resource.origin),
    )


def _rule(number: int, rule: AuthorizationRule, home: _Home) -> Rule:
    sources = tuple(tuple(_conditions(_fields(one.source), home)) for one in rule.from_)
    operations = tuple(tuple(_conditions(_fields(one.operation), home)) for one in rule.to)
    when = tuple(_conditions(_when(rule), home))
    tests: list[Holds] = []
    for alternatives in (operations, sources):
        each = [_tests(alternative) for alternative in alternatives]
        tests += each[0] if len(each) == 1 else [_any([holds_all(one) for one in each])] if each else []
    return Rule(number, sources, operations, when, (*tests, *(one.holds for one in when)))


def _tests(conditions: Sequence[Condition]) -> list[Holds]:
    """The tests of conditions; that of the path first, which most often tells one rule from the next."""
    return [one.holds for one in sorted(conditions, key=lambda one: not one.says.startswith("paths "))]


def _every(rule: AuthorizationRule) -> Iterator[_Written]:
    for source in rule.from_:
        yield from _fields(source.source)
    for to in rule.to:
        yield from _fields(to.operation)


def _fields(message: AuthorizationSource | Operation) -> Iterator[_Written]:
    for field in msgspec.structs.fields(message):
        written = field.encode_name
        negative = written.startswith("not")
        positive = written[3].lower() + written[4:] if negative else written
        if values := getattr(message, field.name):
            yield _Written(written, _FIELDS[positive], values, negative)


def _when(rule: AuthorizationRule) -> Iterator[_Written]:
    for one in rule.when:
        if one.values or not one.not_values:
            yield _Written(one.key, one.key, one.values, False)
        if one.not_values:
            yield _Written(f"{one.key} not", one.key, one.not_values, True)


def _conditions(written: Iterator[_Written], home: _Home) -> Iterator[Condition]:
    for one in written:
        yield Condition(f"{one.field} {_shown(one.values)}", _holds(one, home), one.name in _OF_IDENTITY)


def _holds(written: _Written, home: _Home) -> Holds:
    """The test of a condition. What can't be judged never allows, and never keeps another action from being taken."""
    allows = home.action == "ALLOW"
    test = attribute_test(
        written.name,
        written.values,
        forbidding=allows == written.negative,
        namespace=home.namespace,
        aliases=home.aliases,
    )
    if test is None:
        return _never if allows else _always
    if not written.negative:
        return test
    return lambda arriving: not test(arriving)


def _any(tests: Sequence[Holds]) -> Holds:
    every = tuple(tests)

    def holds(arriving: Arriving) -> bool:
        for test in every:  # noqa: SIM110 - a generator would cost as much as the tests
            if test(arriving):
                return True
        return False

    return holds


def _never(_: Arriving) -> bool:
    return False


def _always(_: Arriving) -> bool:
    return True


def _shown(values: Sequence[str]) -> str:
    shown = ", ".join(value[:100] for value in values[:_SHOWN])
    return f"[{shown}{', …' if len(values) > _SHOWN else ''}]"
