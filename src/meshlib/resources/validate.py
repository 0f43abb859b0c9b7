"""What types can't say: the rules within one document.

Every check yields findings, a path and a message each, and goes on. Where Istio's own validation has a rule, it is the
same rule (`pkg/config/validation`), except that what could only be a slip is refused too, and said so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from meshlib.resources import networking as istio
from meshlib.resources.documents import Path, Spec, show
from meshlib.resources.fields import nearest
from meshlib.resources.names import host_fault
from meshlib.resources.outbound import OutboundPolicySpec
from meshlib.resources.regex import regex_fault

__all__ = ["Finding", "check", "inert", "name_fault"]

Finding = tuple[Path, str]

RETRY_WORDS = (
    "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx", "refused-stream",
    "retriable-status-codes", "retriable-headers", "envoy-ratelimited", "http3-post-connect-failure",
    "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
)  # fmt: skip

_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_LABEL_KEY = re.compile(r"([a-zA-Z0-9][a-zA-Z0-9.-]{0,252}/)?[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?")
_LABEL_VALUE = re.compile(r"([a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?)?")
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_BODY_AT_MOST = 1024 * 1024


def check(spec: Spec, raw: Mapping[str, Any]) -> Iterator[Finding]:
    """The findings in a document's spec; `raw` is the spec as written, for what defaults would hide."""
    root: Path = ("spec",)
    match spec:
        case istio.VirtualServiceSpec():
            return _virtual_service(spec, raw, root)
        case istio.DestinationRuleSpec():
            return _destination_rule(spec, root)
        case istio.ServiceEntrySpec():
            return _service_entry(spec, root)
        case OutboundPolicySpec():
            return _outbound_policy(spec, root)


def name_fault(name: str) -> str | None:
    """What is wrong with a document's name or namespace, None when nothing is."""
    if _DNS_NAME.fullmatch(name):
        return None
    return f"{show(name)} is not a name: lower case letters, digits, '-' and '.' expected, at most 253"


def _virtual_service(spec: istio.VirtualServiceSpec, raw: Mapping[str, Any], at: Path) -> Iterator[Finding]:
    yield from _hosts(spec.hosts, at)
    if not spec.http and not (raw.get("tcp") or raw.get("tls")):
        yield (*at, "http"), "has no route; write at least one"
    for index, route in enumerate(spec.http):
        here = (*at, "http", index)
        yield from _action(route, raw["http"][index], here)
        for number, match in enumerate(route.match):
            yield from _match(match, (*here, "match", number))
        yield from _weights(route.route, raw["http"][index].get("route"), (*here, "route"))
        for number, share in enumerate(route.route):
            yield from _destination(share.destination, (*here, "route", number, "destination"))
            yield from _headers(share.headers, (*here, "route", number, "headers"))
        yield from _headers(route.headers, (*here, "headers"))
        yield from _retries(route.retries, (*here, "retries"))
        yield from _fault(route.fault, (*here, "fault"))


def _action(route: istio.HTTPRoute, raw: Mapping[str, Any], at: Path) -> Iterator[Finding]:
    actions = {"route": route.route, "redirect": route.redirect, "directResponse": route.direct_response}
    chosen = [name for name, value in actions.items() if value]
    if not chosen:
        delegated = "; delegate is not supported yet" if raw.get("delegate") else ""
        yield at, f"has none of route, redirect and directResponse; write one of them{delegated}"
    if len(chosen) > 1:
        yield at, f"has both {' and '.join(chosen)}; a request can only go one way, keep one of them"
    if route.redirect is not None:
        for name, value in (("fault", route.fault), ("rewrite", route.rewrite)):
            if value is not None:
                yield (*at, name), f"can't stand beside redirect: nothing is forwarded; remove {name}"
        yield from _redirect(route.redirect, raw["redirect"], (*at, "redirect"))
    if route.direct_response is not None:
        yield from _body(route.direct_response.body, (*at, "directResponse", "body"))
    if route.rewrite is not None:
        yield from _rewrite(route.rewrite, raw["rewrite"], (*at, "rewrite"))


def _redirect(redirect: istio.HTTPRedirect, raw: Mapping[str, Any], at: Path) -> Iterator[Finding]:
    if not (redirect.uri or redirect.authority or raw.get("scheme") or raw.get("port") or raw.get("derivePort")):
        yield at, "redirects nowhere; write uri or authority"
    if not 300 <= redirect.redirect_code <= 399:
        yield (*at, "redirectCode"), f"expected a status from 300 to 399, found {redirect.redirect_code}"
    yield from _header_value(redirect.uri or "", (*at, "uri"))
    yield from _authority(redirect.authority, (*at, "authority"))


def _rewrite(rewrite: istio.HTTPRewrite, raw: Mapping[str, Any], at: Path) -> Iterator[Finding]:
    if not (rewrite.uri or rewrite.authority or raw.get("uriRegexRewrite")):
        yield at, "rewrites nothing; write uri or authority"
    if rewrite.uri and raw.get("uriRegexRewrite"):
        yield at, "has both uri and uriRegexRewrite; keep one of them"
    if rewrite.uri and re.search(r"[\x00-\x20\x7f]", rewrite.uri):
        yield (*at, "uri"), f"{show(rewrite.uri)} has a space or a control character; write it percent-encoded"
    yield from _authority(rewrite.authority, (*at, "authority"))


def _authority(authority: str | None, at: Path) -> Iterator[Finding]:
    if authority and re.search(r"[\x00-\x20\x7f/@\\]", authority):
        yield at, f"{show(authority)} is not a host or host:port"


def _body(body: istio.HTTPBody | None, at: Path) -> Iterator[Finding]:
    if body is None:
        return
    if (body.string is None) == (body.bytes is None):
        yield at, "expected one of string and bytes"
    if len(body.string or "") + len(body.bytes or b"") > _BODY_AT_MOST:
        yield at, f"is longer than {_BODY_AT_MOST} bytes; let an endpoint serve it"


def _match(match: istio.HTTPMatchRequest, at: Path) -> Iterator[Finding]:
    plain = {"uri": match.uri, "method": match.method, "authority": match.authority}
    if not (any(plain.values()) or match.headers or match.query_params):
        yield (
            at,
            (
                "is a match with no condition that is supported (uri, method, authority, headers, queryParams);"
                " leave `match` out to match every request"
            ),
        )
    for name, text in plain.items():
        if text is not None:
            yield from _string_match(text, (*at, name), empty_allowed=False)
    for name, text in match.headers.items():
        yield from _header_name(name, (*at, "headers", name))
        yield from _string_match(text, (*at, "headers", name), empty_allowed=True)
    for name, text in match.query_params.items():
        yield from _string_match(text, (*at, "queryParams", name), empty_allowed=False)


def _string_match(match: istio.StringMatch, at: Path, *, empty_allowed: bool) -> Iterator[Finding]:
    given = [name for name in ("exact", "prefix", "regex") if getattr(match, name) is not None]
    if len(given) > 1 or not (given or empty_allowed):
        yield at, f"expected one of exact, prefix and regex, found {' and '.join(given) or 'none'}"
    if match.prefix == "":
        yield (*at, "prefix"), "is empty and would match everything; leave the condition out, or write a prefix"
    if match.regex is not None:
        fault = regex_fault(match.regex) if match.regex else "is empty; write an expression"
        if fault is not None:
            yield (*at, "regex"), f"{show(match.regex)} {fault}"


def _weights(shares: tuple[istio.HTTPRouteDestination, ...], raw: Any, at: Path) -> Iterator[Finding]:
    for index, share in enumerate(shares):
        if not 0 <= share.weight < 2**31:
            yield (*at, index, "weight"), f"expected a weight from 0 to {2**31 - 1}, found {share.weight}"
    if len(shares) < 2:
        return
    unset = [index for index, entry in enumerate(raw) if entry.get("weight") is None]
    if 0 < len(unset) < len(shares):
        yield (
            (*at, unset[0], "weight"),
            (
                "is missing while other destinations have one, so that it would get no request;"
                " write a weight for each destination (0 for none)"
            ),
        )
    elif sum(share.weight for share in shares) == 0:
        yield (
            at,
            (
                f"the weights of its {len(shares)} destinations add up to 0, so that no request could be sent;"
                " write a weight for each, as in 90 and 10"
            ),
        )


def _destination(destination: istio.Destination, at: Path) -> Iterator[Finding]:
    yield from _host(destination.host, (*at, "host"), wildcard=False)
    if destination.subset is not None:
        yield from _subset_name(destination.subset, (*at, "subset"))


def _headers(headers: istio.Headers | None, at: Path) -> Iterator[Finding]:
    if headers is None:
        return
    for side, operations in (("request", headers.request), ("response", headers.response)):
        if operations is None:
            continue
        for verb, values in (("set", operations.set), ("add", operations.add)):
            for name, value in values.items():
                host = side == "request" and verb == "set" and name.lower() in ("host", ":authority")
                yield from () if host else _header_name(name, (*at, side, verb, name))
                yield from _header_value(value, (*at, side, verb, name))
        for index, name in enumerate(operations.remove):
            yield from _header_name(name, (*at, side, "remove", index))


def _header_name(name: str, at: Path) -> Iterator[Finding]:
    if not _TOKEN.fullmatch(name):
        yield at, f"{show(name)} is not a header name: letters, digits and !#$%&'*+-.^_`|~ expected"


def _header_value(value: str, at: Path) -> Iterator[Finding]:
    if _CONTROLS.search(value):
        yield at, f"{show(value)} has a line break or another control character, which no header may hold"


def _retries(retries: istio.HTTPRetry | None, at: Path) -> Iterator[Finding]:
    if retries is None:
        return
    if retries.attempts == 0 and (retries.per_try_timeout or retries.retry_on):
        yield (
            (*at, "attempts"),
            "is 0, which turns retries off, but perTryTimeout or retryOn is set; remove one of them",
        )
    for word in [part.strip() for part in retries.retry_on.split(",")] if retries.retry_on else ():
        if word not in RETRY_WORDS and not (re.fullmatch("[1-5][0-9]{2}", word)):
            yield (
                (*at, "retryOn"),
                (
                    f"{show(word)} is not a condition{nearest(word, RETRY_WORDS)};"
                    f" allowed are statuses as in 503, and {', '.join(RETRY_WORDS)}"
                ),
            )


def _fault(fault: istio.HTTPFaultInjection | None, at: Path) -> Iterator[Finding]:
    if fault is None:
        return
    if fault.delay is None and fault.abort is None:
        yield at, "injects nothing; write delay or abort"


def inert(spec: Spec) -> Iterator[Finding]:
    """What is sound but does nothing, in Istio as here: for the capability report."""
    for index, route in enumerate(spec.http if isinstance(spec, istio.VirtualServiceSpec) else ()):
        at: Path = ("spec", "http", index, "fault")
        delay = route.fault and route.fault.delay
        abort = route.fault and route.fault.abort
        if delay and delay.percentage is None and delay.percent is None:
            yield (*at, "delay"), "without a percentage no request is delayed; write percentage: {value: 100} for all"
        if abort and abort.http_status is None:
            yield (*at, "abort"), "without an httpStatus no request is aborted"
        elif abort and abort.percentage is None:
            yield (*at, "abort"), "without a percentage no request is aborted; write percentage: {value: 100} for all"


def _destination_rule(spec: istio.DestinationRuleSpec, at: Path) -> Iterator[Finding]:
    yield from _host(spec.host, (*at, "host"), wildcard=True)
    seen: set[str] = set()
    for index, subset in enumerate(spec.subsets):
        here = (*at, "subsets", index)
        yield from _subset_name(subset.name, (*here, "name"))
        if subset.name in seen:
            yield (*here, "name"), f'the subset "{subset.name}" is defined twice; rename or remove one'
        seen.add(subset.name)
        yield from _labels(subset.labels, (*here, "labels"))


def _service_entry(spec: istio.ServiceEntrySpec, at: Path) -> Iterator[Finding]:
    yield from _hosts(spec.hosts, at)
    if not spec.ports:
        yield (*at, "ports"), "is empty; write at least one port"
    yield from _ports(spec.ports, (*at, "ports"))
    wildcard = [host for host in spec.hosts if host.startswith("*")]
    if wildcard and spec.resolution != "NONE" and not spec.endpoints:
        yield (*at, "hosts"), f"{show(wildcard[0])} can't be looked up; write endpoints, or resolution: NONE"
    if spec.resolution == "NONE" and spec.endpoints:
        yield (*at, "endpoints"), "have no meaning with resolution: NONE; write resolution: STATIC or DNS"
    if spec.resolution == "STATIC" and not spec.endpoints:
        yield (*at, "endpoints"), "is empty, but resolution: STATIC needs at least one"
    names = {port.name for port in spec.ports}
    for index, endpoint in enumerate(spec.endpoints):
        yield from _endpoint(endpoint, names, (*at, "endpoints", index))


def _ports(ports: Iterable[istio.ServicePort], at: Path) -> Iterator[Finding]:
    names: set[str] = set()
    numbers: set[int] = set()
    for index, port in enumerate(ports):
        if port.name in names:
            yield (*at, index, "name"), f'the port name "{port.name}" stands twice; names must differ'
        if port.number in numbers:
            yield (*at, index, "number"), f"the port {port.number} stands twice; numbers must differ"
        names.add(port.name)
        numbers.add(port.number)


def _endpoint(endpoint: istio.WorkloadEntry, names: set[str], at: Path) -> Iterator[Finding]:
    if endpoint.address.startswith("unix://"):
        yield (*at, "address"), "unix domain sockets are not supported yet; write a host name or an IP address"
    else:
        yield from _host(endpoint.address, (*at, "address"), wildcard=False)
    for name in endpoint.ports:
        if name not in names:
            yield (*at, "ports", name), f"no port of this ServiceEntry is called that{nearest(name, names)}"
    yield from _labels(endpoint.labels, (*at, "labels"))


def _outbound_policy(spec: OutboundPolicySpec, at: Path) -> Iterator[Finding]:
    yield from _host(spec.host, (*at, "host"), wildcard=True)
    if spec.subset is not None:
        yield from _subset_name(spec.subset, (*at, "subset"))
    breaker = spec.circuit_breaker
    if breaker is not None:
        here = (*at, "circuitBreaker")
        if breaker.error_percent is None and breaker.consecutive_failures is None:
            yield here, "never opens; write errorPercent or consecutiveFailures"
        if breaker.max_open_for < breaker.open_for:
            yield (*here, "maxOpenFor"), f"is below openFor ({breaker.open_for:g}s); write a longer one"


def _hosts(hosts: tuple[str, ...], at: Path) -> Iterator[Finding]:
    if not hosts:
        yield (*at, "hosts"), "is empty; write at least one host"
    for index, host in enumerate(hosts):
        yield from _host(host, (*at, "hosts", index), wildcard=True)


def _host(host: str, at: Path, *, wildcard: bool) -> Iterator[Finding]:
    fault = host_fault(host, wildcard=wildcard)
    if fault is not None:
        yield at, f"{show(host)} {fault}"


def _subset_name(name: str, at: Path) -> Iterator[Finding]:
    if not _DNS_LABEL.fullmatch(name):
        yield at, f"{show(name)} is not a subset name: lower case letters, digits and '-' expected, at most 63"


def _labels(labels: Mapping[str, str], at: Path) -> Iterator[Finding]:
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            yield (*at, key), f"{show(key)} is not a label: letters, digits, '-', '_' and '.' expected, at most 63"
        if not _LABEL_VALUE.fullmatch(value):
            yield (*at, key), f"{show(value)} is not a label's value: letters, digits, '-', '_', '.', at most 63"
