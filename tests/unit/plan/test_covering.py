"""What check says of rules is so: who covers holds whenever the covered does, and "never" is never."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.plan.authorization import authorization_of
from meshlib.policy.arriving import Arriving
from meshlib.resources import AuthorizationPolicySpec, Resource, Source, load
from meshlib.resources.covering import contradiction, covers, shape_of

PATHS = ["/a", "/a/b", "/a/b/c", "/b", "/ab"]
SPELLED = [*PATHS, "/a*", "/a/*", "*/b", "*", "/{*}", "/a/{*}", "/a/{**}", "/{**}"]
METHODS = ["GET", "PUT"]
HOSTS = ["a.com", "b.a.com", "c"]
BLOCKS = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "192.168.0.0/16"]
ADDRESSES = ["10.1.2.3", "10.1.9.9", "10.9.9.9", "192.168.0.1", "172.16.0.1"]
PRINCIPALS = ["td/ns/a/sa/x", "td/ns/a/sa/y", "td/ns/b/sa/x", ""]
TEAMS = ["red", "reddish", "blue", ""]


def values(name: str, of: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    some = st.lists(st.sampled_from(of), min_size=1, max_size=3, unique=True)
    written = name[0].upper() + name[1:]
    return st.fixed_dictionaries({}, optional={name: some, f"not{written}": some})


def joined(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts).map(lambda found: {key: value for part in found for key, value in part.items()})


OPERATIONS = joined(
    values("paths", SPELLED), values("methods", [*METHODS, "*", "P*"]), values("hosts", [*HOSTS, "*.a.com", "A.com"])
).filter(bool)
SOURCES = joined(
    values("ipBlocks", BLOCKS),
    values("principals", [*PRINCIPALS[:3], "*", "td/ns/a/*", "*/x"]),
    values("namespaces", ["a", "b", "*"]),
).filter(bool)
CONDITIONS = values("values", [*TEAMS[:3], "red*", "*"]).filter(bool).map(
    lambda said: {"key": "request.headers[x-team]", **said}
)  # fmt: skip
RULES = st.fixed_dictionaries(
    {},
    optional={
        "from": st.lists(st.builds(lambda source: {"source": source}, SOURCES), min_size=1, max_size=2),
        "to": st.lists(st.builds(lambda operation: {"operation": operation}, OPERATIONS), min_size=1, max_size=2),
        "when": st.lists(CONDITIONS, min_size=1, max_size=2),
    },
)
FAMILIES = [
    ("to", "operation", values("paths", ["/a", "/a*", "/a/*", "*/b", "*", "/a/{*}"])),
    ("to", "operation", values("methods", [*METHODS, "*", "P*"])),
    ("to", "operation", values("hosts", [*HOSTS, "*.a.com", "A.com"])),
    ("from", "source", values("ipBlocks", BLOCKS)),
    ("from", "source", values("principals", [*PRINCIPALS[:3], "*", "td/ns/a/*"])),
]
"""Rules that say something of one attribute only: of two of these one often covers the other."""


def alike(family: tuple[str, str, st.SearchStrategy[dict[str, Any]]]) -> st.SearchStrategy[tuple[Any, Any]]:
    field, message, said = family
    rule = said.filter(bool).map(lambda values: {field: [{message: values}]})
    return st.tuples(rule, rule)


PAIRS = st.one_of(st.tuples(RULES, RULES), *(alike(family) for family in FAMILIES))


def requests() -> Iterator[Arriving]:
    """Every path with every method, host and team, and addresses and principals in turn."""
    callers = itertools.cycle(itertools.product(ADDRESSES, PRINCIPALS))
    for path, method, host, team in itertools.product(PATHS, METHODS, HOSTS, TEAMS):
        address, principal = next(callers)
        yield Arriving(
            method,
            path.encode(),
            [(b"host", host.encode()), *([(b"x-team", team.encode())] if team else [])],
            seen=path,
            source_ip=address,
            principal=principal,
            namespace=principal.split("/")[2] if principal else "",
        )


REQUESTS = list(requests())


def policy(rule: dict[str, Any], action: str) -> tuple[Resource, AuthorizationPolicySpec]:
    spec = {"action": action, "rules": [rule]}
    document = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "it"}}
    loaded = load([Source("it", json.dumps({**document, "spec": spec}).encode())])
    assert not loaded.problems, [str(problem) for problem in loaded.problems]
    [resource] = loaded.resources
    assert isinstance(resource.spec, AuthorizationPolicySpec)
    return resource, resource.spec


def held(resource: Resource) -> list[bool]:
    """Whether the rule holds for each of the requests."""
    compiled = authorization_of([resource], ())
    assert compiled is not None
    [rule] = compiled.policies[0].rules
    return [rule.holds(request) for request in REQUESTS]


@settings(max_examples=80)
@given(PAIRS, st.sampled_from(["ALLOW", "DENY"]))
def test_a_rule_that_covers_another_holds_whenever_that_does(pair: tuple[Any, Any], action: str) -> None:
    (one, mine), (other, theirs) = policy(pair[0], "DENY"), policy(pair[1], action)
    if covers(shape_of(mine.rules[0]), shape_of(theirs.rules[0])):
        assert [pair for pair in zip(held(one), held(other), strict=True) if pair == (False, True)] == []


@settings(max_examples=40)
@given(PAIRS)
def test_a_rule_that_is_called_contradictory_holds_for_no_request(pair: tuple[Any, Any]) -> None:
    for written in pair:
        resource, spec = policy(written, "ALLOW")
        if contradiction(spec.rules[0]):
            assert not any(held(resource))
