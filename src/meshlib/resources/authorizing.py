"""What types can't say of AuthorizationPolicy, by the rules Istio has for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from meshlib.resources.authorization import (
    DRY_RUN,
    AuthorizationCondition,
    AuthorizationPolicySpec,
    AuthorizationRule,
    AuthorizationSource,
    Operation,
)
from meshlib.resources.conditions import ACCOUNTS_AT_MOST, key_fault, value_check
from meshlib.resources.documents import Metadata, Path, show
from meshlib.resources.security import PolicyTargetReference
from meshlib.resources.shapes import Finding, check_count, check_labels

__all__ = ["check_authorization", "check_dry_run", "check_target"]

_AT_MOST = 512
_VALUES_AT_MOST = 1000
_GATEWAYS = ("Gateway", "GatewayClass")


def check_authorization(spec: AuthorizationPolicySpec, raw: Mapping[str, Any], at: Path) -> Iterator[Finding]:
    """The findings in an AuthorizationPolicy; `raw` is the spec as written, for lists that are there but empty."""
    yield from check_target(spec, at)
    yield from _action(spec, at)
    yield from check_count(spec.rules, _AT_MOST, (*at, "rules"))
    for index, rule in enumerate(spec.rules):
        here = (*at, "rules", index)
        yield from _empty(raw["rules"][index], here)
        yield from _rule(rule, here)
        if spec.action == "CUSTOM":
            yield from _custom(rule, here)


def check_target(spec: Any, at: Path) -> Iterator[Finding]:
    """What AuthorizationPolicy and RequestAuthentication have alike: for whom the document is."""
    chosen = spec.selector.match_labels if spec.selector is not None else {}
    yield from check_labels(chosen, (*at, "selector", "matchLabels"))
    targets: list[tuple[Path, PolicyTargetReference]] = []
    if spec.target_ref is not None:
        targets.append(((*at, "targetRef"), spec.target_ref))
    targets += [((*at, "targetRefs", index), one) for index, one in enumerate(spec.target_refs)]
    kinds = [spec.selector is not None, spec.target_ref is not None, bool(spec.target_refs)]
    if sum(kinds) > 1:
        yield at, "has more than one of selector, targetRef and targetRefs; keep one of them"
    for where, target in targets:
        if target.kind not in _GATEWAYS:
            yield (*where, "kind"), f"{show(target.kind)} is not a gateway; write selector.matchLabels for processes"


def check_dry_run(spec: AuthorizationPolicySpec, metadata: Metadata) -> Iterator[Finding]:
    """Whether the annotation of a policy that isn't enforced says what it seems to."""
    written = metadata.annotations.get(DRY_RUN)
    if written is None:
        return
    at: Path = ("metadata", "annotations", DRY_RUN)
    if written not in ("true", "false"):
        yield at, f'expected "true" or "false", found {show(written)}'
    elif written == "true" and spec.action not in ("ALLOW", "DENY"):
        yield at, f"has no meaning with action: {spec.action}; remove it"


def _action(spec: AuthorizationPolicySpec, at: Path) -> Iterator[Finding]:
    if not spec.rules and spec.action != "ALLOW":
        yield (*at, "rules"), f"is empty, so that {spec.action} never holds; write a rule, {{}} for every request"
    if spec.action == "CUSTOM" and (spec.provider is None or not spec.provider.name):
        yield (*at, "provider"), "is required with action: CUSTOM; write the name of one of extensionProviders"
    if spec.action != "CUSTOM" and spec.provider is not None:
        yield (*at, "provider"), f"has no meaning with action: {spec.action}; remove it, or write action: CUSTOM"


def _rule(rule: AuthorizationRule, at: Path) -> Iterator[Finding]:
    for name, alternatives in (("from", rule.from_), ("to", rule.to), ("when", rule.when)):
        yield from check_count(alternatives, _AT_MOST, (*at, name))
    for index, one in enumerate(rule.from_):
        here = (*at, "from", index, "source")
        yield from _fields(one.source, here)
        yield from _accounts(one.source, here)
    for index, other in enumerate(rule.to):
        yield from _fields(other.operation, (*at, "to", index, "operation"))
    for index, condition in enumerate(rule.when):
        yield from _condition(condition, (*at, "when", index))


def _fields(message: AuthorizationSource | Operation, at: Path) -> Iterator[Finding]:
    said = False
    for field, written in zip(message.__struct_fields__, message.__struct_encode_fields__, strict=True):
        values: Sequence[str] = getattr(message, field)
        said = said or bool(values)
        yield from _values(values, written, (*at, written))
    if not said:
        yield at, "is empty and would hold for everything; write a field, or leave the whole entry out"


def _values(values: Sequence[str], name: str, at: Path) -> Iterator[Finding]:
    if len(values) > _VALUES_AT_MOST:
        yield at, f"has {len(values)} values; at most {_VALUES_AT_MOST} are allowed"
    fault_of = value_check(name)
    for index, value in enumerate(values):
        fault = fault_of(value)
        if fault is not None:
            yield (*at, index), fault


def _accounts(source: AuthorizationSource, at: Path) -> Iterator[Finding]:
    accounts = {"serviceAccounts": source.service_accounts, "notServiceAccounts": source.not_service_accounts}
    for name, values in accounts.items():
        if len(values) > ACCOUNTS_AT_MOST:
            yield (*at, name), f"has {len(values)} values; at most {ACCOUNTS_AT_MOST} are allowed"
    others = (source.principals, source.not_principals, source.namespaces, source.not_namespaces)
    if any(accounts.values()) and any(others):
        yield at, "has serviceAccounts beside namespaces or principals; write them in sources of their own"


def _condition(condition: AuthorizationCondition, at: Path) -> Iterator[Finding]:
    fault = key_fault(condition.key)
    if fault is not None:
        yield (*at, "key"), fault
        return
    if not (condition.values or condition.not_values):
        yield at, f"says nothing of {condition.key}; write values or notValues"
    for name, values in (("values", condition.values), ("notValues", condition.not_values)):
        yield from _values(values, condition.key, (*at, name))


def _custom(rule: AuthorizationRule, at: Path) -> Iterator[Finding]:
    """Istio asks before it knows who calls, and so refuses identities and tokens here."""
    way_out = "can't choose what a provider is asked about, in Istio neither; let the provider look, or write DENY"
    for index, one in enumerate(rule.from_):
        for name in _set(one.source):
            if not name.lower().endswith("ipblocks"):
                yield (*at, "from", index, "source", name), way_out
    for index, condition in enumerate(rule.when):
        key = condition.key
        if key.startswith("request.auth.") or (key.startswith("source.") and key != "source.ip"):
            yield (*at, "when", index, "key"), way_out


def _set(message: msgspec.Struct) -> Iterator[str]:
    for field, written in zip(message.__struct_fields__, message.__struct_encode_fields__, strict=True):
        if getattr(message, field):
            yield written


def _empty(raw: Mapping[str, Any], at: Path) -> Iterator[Finding]:
    """Lists that are there but empty, or nothing: taken for absent they would let the rule hold for everything."""
    for name, inner in (("from", "source"), ("to", "operation"), ("when", "")):
        value = raw.get(name, ...)
        if value is None or value == []:
            yield (*at, name), "is empty and would hold for everything; leave it out if that is meant"
        for index, entry in enumerate(value if isinstance(value, list) else ()):
            path: Path = (*at, name, index, inner) if inner else (*at, name, index)
            for field, values in (entry[inner] if inner else entry).items():
                if values is None or values == []:
                    yield (*path, field), "is empty; write values, or leave it out"
