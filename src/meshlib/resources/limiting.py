"""What types can't say of InboundPolicy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from meshlib.resources.documents import Path, show
from meshlib.resources.inbound import (
    Concurrency,
    ExtensionProvider,
    HTTPAuthorizer,
    InboundPolicySpec,
    Priority,
    RateLimit,
    RateLimitKey,
)
from meshlib.resources.networking import HTTPFaultInjection, HTTPMatchRequest
from meshlib.resources.routes import check_fault, check_match
from meshlib.resources.shapes import (
    Finding,
    check_count,
    check_header_name,
    check_header_value,
    check_host,
    check_labels,
)

__all__ = ["check_inbound_policy"]

_AT_MOST = 100
_PROVIDERS_AT_MOST = 20
_KEYS_AT_MOST = 8
_BODY_AT_MOST = 16 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_CLAIM = re.compile(r"[^.\x00-\x1f]{1,256}(\.[^.\x00-\x1f]{1,256}){0,15}")
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_PATH_PREFIX = re.compile(r"/[\x21-\x22\x24-\x3e\x40-\x7e]{0,2047}")
_HEADER_PATTERN = re.compile(r"\*?[!#$%&'+.^_`|~0-9A-Za-z-]{1,256}\*?")


def check_inbound_policy(spec: InboundPolicySpec, at: Path) -> Iterator[Finding]:
    """The findings in an InboundPolicy."""
    chosen = spec.selector.match_labels if spec.selector is not None else {}
    yield from check_labels(chosen, (*at, "selector", "matchLabels"))
    yield from _named(spec.rate_limits, (*at, "rateLimits"), _AT_MOST)
    for index, limit in enumerate(spec.rate_limits):
        yield from _rate_limit(limit, (*at, "rateLimits", index))
    if spec.concurrency is not None:
        yield from _concurrency(spec.concurrency, (*at, "concurrency"))
    if spec.priority is not None:
        yield from _priority(spec.priority, (*at, "priority"))
    for name, bounds in (("overload", spec.overload), ("requestBounds", spec.request_bounds)):
        if bounds is not None and not any(getattr(bounds, field) for field in bounds.__struct_fields__):
            yield (*at, name), f"bounds nothing; write {' or '.join(bounds.__struct_encode_fields__)}"
    yield from check_count(spec.faults, _AT_MOST, (*at, "faults"))
    for index, one in enumerate(spec.faults):
        yield from _fault(one.fault, (*at, "faults", index, "fault"))
        yield from _matches(one.match, (*at, "faults", index, "match"))
    yield from _named(spec.extension_providers, (*at, "extensionProviders"), _PROVIDERS_AT_MOST)
    for index, provider in enumerate(spec.extension_providers):
        yield from _authorizer(provider.envoy_ext_authz_http, (*at, "extensionProviders", index, "envoyExtAuthzHttp"))
    yield from _aliases(spec.trust_domain_aliases, (*at, "trustDomainAliases"))


def _rate_limit(limit: RateLimit, at: Path) -> Iterator[Finding]:
    yield from _matches(limit.match, (*at, "match"))
    yield from check_count(limit.by, _KEYS_AT_MOST, (*at, "by"))
    for index, key in enumerate(limit.by):
        yield from _key(key, (*at, "by", index))
        if key in limit.by[:index]:
            yield (*at, "by", index), "stands twice; remove one"
    if limit.scope == "LOCAL" and limit.on_error == "DENY":
        yield (*at, "onError"), "has no meaning with scope: LOCAL, which can always be counted; remove it"


def _key(key: RateLimitKey, at: Path) -> Iterator[Finding]:
    set_ = [name for name in key.__struct_fields__ if getattr(key, name) not in (None, False)]
    if len(set_) != 1:
        yield at, f"expected one of principal, claim, header and remoteAddress, found {len(set_) or 'none'}"
    if key.claim is not None and not _CLAIM.fullmatch(key.claim):
        yield (*at, "claim"), f"{show(key.claim)} is not the name of a claim, nor a path of names with dots"
    if key.header is not None:
        yield from check_header_name(key.header, (*at, "header"))


def _concurrency(concurrency: Concurrency, at: Path) -> Iterator[Finding]:
    most, adaptive = concurrency.max_requests, concurrency.adaptive
    if most is None and adaptive is None:
        yield at, "limits nothing; write maxRequests or adaptive"
    if adaptive is None:
        return
    low, first, high = adaptive.min_limit, adaptive.initial_limit, adaptive.max_limit
    if not low <= first <= high:
        here = (*at, "adaptive")
        yield here, f"expected minLimit ≤ initialLimit ≤ maxLimit, found {low}, {first} and {high}"
    if most is not None and most < low:
        yield (*at, "maxRequests"), f"is below adaptive.minLimit ({low}); write a larger one"


def _priority(priority: Priority, at: Path) -> Iterator[Finding]:
    yield from check_count(priority.rules, _AT_MOST, (*at, "rules"))
    for index, rule in enumerate(priority.rules):
        if not rule.match:
            yield (*at, "rules", index, "match"), "is empty; write which requests are meant"
        yield from _matches(rule.match, (*at, "rules", index, "match"))


def _fault(fault: HTTPFaultInjection, at: Path) -> Iterator[Finding]:
    yield from check_fault(fault, at)
    delay, abort = fault.delay, fault.abort
    if delay is not None and delay.percentage is None and delay.percent is None:
        yield (*at, "delay"), "delays no request without a percentage; write percentage: {value: 100} for all"
    if abort is not None and abort.http_status is None:
        yield (*at, "abort", "httpStatus"), "is required: without one nothing is aborted"
    if abort is not None and abort.percentage is None:
        yield (*at, "abort"), "aborts no request without a percentage; write percentage: {value: 100} for all"


def _authorizer(authorizer: HTTPAuthorizer, at: Path) -> Iterator[Finding]:
    home, slash, host = authorizer.service.rpartition("/")
    if slash:  # Istio's `namespace/host`
        yield from check_host(home, (*at, "service"), wildcard=False)
    yield from check_host(host, (*at, "service"), wildcard=False)
    prefix = authorizer.path_prefix
    if prefix and not _PATH_PREFIX.fullmatch(prefix):
        yield (*at, "pathPrefix"), f'{show(prefix)} is not a path: "/" and what may follow it expected, without a query'
    if authorizer.status_on_error < 400:
        yield (*at, "statusOnError"), f"expected a status from 400 to 599, found {authorizer.status_on_error}"
    for field, written in zip(authorizer.__struct_fields__, authorizer.__struct_encode_fields__, strict=True):
        names = getattr(authorizer, field)
        if isinstance(names, tuple):
            yield from _header_patterns(names, (*at, written))
    more = authorizer.include_additional_headers_in_check
    here = (*at, "includeAdditionalHeadersInCheck")
    yield from check_count(tuple(more), _AT_MOST, here)
    for name, value in more.items():
        yield from check_header_name(name, (*here, name))
        yield from check_header_value(value, (*here, name))
    body = authorizer.include_request_body_in_check
    if body is not None and body.max_request_bytes > _BODY_AT_MOST:
        where = (*at, "includeRequestBodyInCheck", "maxRequestBytes")
        yield where, f"expected at most {_BODY_AT_MOST}, which is held in memory; found {body.max_request_bytes}"


def _header_patterns(names: Sequence[str], at: Path) -> Iterator[Finding]:
    yield from check_count(names, _AT_MOST, at)
    for index, name in enumerate(names):
        if not _HEADER_PATTERN.fullmatch(name) or (name.startswith("*") and name.endswith("*")):
            yield (
                (*at, index),
                f"{show(name)} is not the name of a header, nor the beginning (x-*) or end (*-id) of one",
            )


def _aliases(domains: Sequence[str], at: Path) -> Iterator[Finding]:
    yield from check_count(domains, _AT_MOST, at)
    for index, domain in enumerate(domains):
        if not _TRUST_DOMAIN.fullmatch(domain):
            message = f"{show(domain)} is not a trust domain: lower case letters, digits, '-', '_' and '.' expected"
            yield (*at, index), message


def _matches(matches: Sequence[HTTPMatchRequest], at: Path) -> Iterator[Finding]:
    yield from check_count(matches, _AT_MOST, at)
    for index, match in enumerate(matches):
        yield from check_match(match, (*at, index))


def _named(entries: Sequence[RateLimit | ExtensionProvider], at: Path, most: int) -> Iterator[Finding]:
    yield from check_count(entries, most, at)
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        here = (*at, index, "name")
        if not _NAME.fullmatch(entry.name):
            yield here, f"{show(entry.name)} is not a name: letters, digits, '-', '_' and '.' expected, at most 63"
        if entry.name in seen:
            yield here, f"{show(entry.name)} stands twice; names must differ"
        seen.add(entry.name)
