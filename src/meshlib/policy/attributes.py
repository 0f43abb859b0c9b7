"""What a rule of an AuthorizationPolicy looks at, by the names of Istio's conditions.

Each attribute is read in one of two ways. *Forbidding* is done by what a DENY policy says must be, and an ALLOW policy
mustn't: any reading of the request is enough, and what isn't known counts as being so. *Permitting* is the reverse:
every reading must fit. So doubt never lets a request in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter

from meshlib.policy.addresses import any_block
from meshlib.policy.arriving import Arriving
from meshlib.policy.claims import any_claim, any_request_principal
from meshlib.policy.headers import any_header
from meshlib.policy.hosts import forbidding_hosts, host_of
from meshlib.policy.patterns import Patterns, any_glob, any_path, any_text, patterns_of, text_test

__all__ = ["LOCAL", "Holds", "attribute_test"]

Holds = Callable[[Arriving], bool]

LOCAL = "cluster.local"
"""The trust domain that means our own in every policy; Istio's."""

_BRACKETED = re.compile(r"([a-z.]+)((?:\[[^\[\]]+\])+)")


def attribute_test(
    name: str, values: Sequence[str], *, forbidding: bool, namespace: str, aliases: Sequence[str]
) -> Holds | None:
    """Whether an attribute is one of `values`.

    Args:
        name: as in a condition's `key`; the fields of an operation are `hosts`, `methods` and `paths`.
        values: as written; not empty.
        forbidding: how the request is read; see the module.
        namespace: of the policy, that of service accounts without one.
        aliases: trust domains that mean ours, besides `LOCAL`.

    Returns:
        None when it can't be judged: an attribute that isn't known, or a value that makes no sense.
    """
    if not values:
        return None
    if name in _OF_THE_REQUEST:
        return _OF_THE_REQUEST[name](values, forbidding)
    if name == "source.principal":
        return _principal(values, (LOCAL, *aliases))
    if name == "source.serviceAccount":
        return _account(values, namespace)
    return _bracketed(name, values, forbidding)


def _bracketed(name: str, values: Sequence[str], forbidding: bool) -> Holds | None:
    found = _BRACKETED.fullmatch(name)
    if found is None:
        return None
    inside = found[2][1:-1].split("][")
    if found[1] == "request.auth.claims":
        return any_claim(inside, values, forbidding)
    if found[1] == "request.headers" and len(inside) == 1:
        return any_header(inside[0], values, forbidding)
    return None


def _method(values: Sequence[str], _: bool) -> Holds:
    test = any_text(values)
    return lambda arriving: test(arriving.method)


def _namespace(values: Sequence[str], _: bool) -> Holds:
    test = any_glob(values)
    return lambda arriving: test(arriving.namespace)


def _server_name(values: Sequence[str], forbidding: bool) -> Holds:
    test = any_text([value.lower() for value in values])
    return lambda arriving: test(arriving.sni.lower()) if arriving.sni else forbidding


def _paths(values: Sequence[str], forbidding: bool) -> Holds | None:
    test = any_path(values)
    if test is None:
        return None

    def forbids(arriving: Arriving) -> bool:
        readings = arriving.reading.forbidding
        for reading in readings:
            if test(reading):
                return True
        return not readings

    def permits(arriving: Arriving) -> bool:
        readings = arriving.reading.permitting
        for reading in readings:
            if not test(reading):
                return False
        return bool(readings)

    return forbids if forbidding else permits


def _hosts(values: Sequence[str], forbidding: bool) -> Holds:
    test = any_text([value.lower() for value in values])
    if not forbidding:
        return lambda arriving: test(host_of(arriving))
    return lambda arriving: any(map(test, forbidding_hosts(host_of(arriving))))


def _address(address_of: Callable[[Arriving], str], values: Sequence[str], forbidding: bool) -> Holds | None:
    test = any_block(values)
    if test is None:
        return None

    def holds(arriving: Arriving) -> bool:
        found = test(address_of(arriving))
        return forbidding if found is None else found

    return holds


def _port(values: Sequence[str], forbidding: bool) -> Holds | None:
    try:
        ports = {int(value) for value in values}
    except ValueError:
        return None
    return lambda arriving: forbidding if arriving.port is None else arriving.port in ports


_OF_THE_REQUEST: dict[str, Callable[[Sequence[str], bool], Holds | None]] = {
    "paths": _paths,
    "hosts": _hosts,
    "methods": _method,
    "destination.port": _port,
    "destination.ip": partial(_address, attrgetter("destination_ip")),
    "source.ip": partial(_address, attrgetter("source_ip")),
    "remote.ip": partial(_address, attrgetter("remote_ip")),
    "source.namespace": _namespace,
    "connection.sni": _server_name,
    "request.auth.principal": any_request_principal,
    "request.auth.audiences": partial(any_claim, ("aud",)),
    "request.auth.presenter": partial(any_claim, ("azp",)),
}


def _principal(values: Sequence[str], ours: Sequence[str]) -> Holds:
    """An identity as written, or its path where the trust domain is one that means ours.

    The caller's own trust domain is always ours: the handshake lets no other in.
    """
    whole = any_text(values)
    exact, prefixes, suffixes, _ = patterns_of(values)
    paths = [path for domain, _, path in (value.partition("/") for value in exact) if domain in ours]
    beginnings = [path for domain, slash, path in (one.partition("/") for one in prefixes) if slash and domain in ours]
    for domain, slash, path in (value.partition("/") for value in suffixes):
        if slash and any(one.endswith(domain) for one in ours):
            paths.append(path)
    if not paths and not beginnings:
        return lambda arriving: whole(arriving.principal)
    within = text_test(Patterns(frozenset(paths), tuple(beginnings), (), False))

    def holds(arriving: Arriving) -> bool:
        principal = arriving.principal
        return principal != "" and (whole(principal) or within(principal.partition("/")[2]))

    return holds


def _account(values: Sequence[str], namespace: str) -> Holds:
    accounts = set()
    for value in values:
        home, slash, name = value.rpartition("/")
        if name:
            accounts.add((home if slash else namespace, name))
    return lambda arriving: (arriving.namespace, arriving.service_account) in accounts
