"""What types can't say of a VirtualService."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from meshlib.resources import networking as istio
from meshlib.resources.documents import Path, show
from meshlib.resources.fields import nearest
from meshlib.resources.regex import regex_fault
from meshlib.resources.shapes import (
    TOKEN,
    Finding,
    check_header_name,
    check_header_value,
    check_host,
    check_hosts,
    check_subset_name,
)

__all__ = ["RETRY_WORDS", "check_fault", "check_match", "check_routes", "inert"]

RETRY_WORDS = (
    "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx", "refused-stream",
    "retriable-status-codes", "retriable-headers", "envoy-ratelimited", "http3-post-connect-failure",
    "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
)  # fmt: skip  # fmt: skip
_BODY_AT_MOST = 1024 * 1024


def check_routes(spec: istio.VirtualServiceSpec, raw: Mapping[str, Any], at: Path) -> Iterator[Finding]:
    """The findings in a VirtualService; `raw` is its spec as written, for what defaults would hide."""
    yield from check_hosts(spec.hosts, at)
    if not spec.http and not (raw.get("tcp") or raw.get("tls")):
        yield (*at, "http"), "has no route; write at least one"
    for index, route in enumerate(spec.http):
        here = (*at, "http", index)
        yield from _action(route, raw["http"][index], here)
        for number, match in enumerate(route.match):
            yield from check_match(match, (*here, "match", number))
        yield from _weights(route.route, raw["http"][index].get("route"), (*here, "route"))
        for number, share in enumerate(route.route):
            yield from _destination(share.destination, (*here, "route", number, "destination"))
            yield from _headers(share.headers, (*here, "route", number, "headers"))
        yield from _headers(route.headers, (*here, "headers"))
        yield from _retries(route.retries, (*here, "retries"))
        yield from check_fault(route.fault, (*here, "fault"))
        yield from _cors(route.cors_policy, (*here, "corsPolicy"))


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
    if redirect.uri:
        yield from _uri(redirect.uri, (*at, "uri"))
    yield from _authority(redirect.authority, (*at, "authority"))


def _rewrite(rewrite: istio.HTTPRewrite, raw: Mapping[str, Any], at: Path) -> Iterator[Finding]:
    if not (rewrite.uri or rewrite.authority or raw.get("uriRegexRewrite")):
        yield at, "rewrites nothing; write uri or authority"
    if rewrite.uri and raw.get("uriRegexRewrite"):
        yield at, "has both uri and uriRegexRewrite; keep one of them"
    if rewrite.uri:
        yield from _uri(rewrite.uri, (*at, "uri"))
    yield from _authority(rewrite.authority, (*at, "authority"))


def _uri(uri: str, at: Path) -> Iterator[Finding]:
    if re.search(r"[^\x21-\x7e]", uri):
        yield at, f"{show(uri)} has a space, a control character or one beyond ASCII; write it percent-encoded"


def _authority(authority: str | None, at: Path) -> Iterator[Finding]:
    if authority and re.search(r"[^\x21-\x7e]|[/@\\]", authority):
        yield at, f"{show(authority)} is not a host or host:port"


def _body(body: istio.HTTPBody | None, at: Path) -> Iterator[Finding]:
    if body is None:
        return
    if (body.string is None) == (body.bytes is None):
        yield at, "expected one of string and bytes"
    if len(body.string or "") + len(body.bytes or b"") > _BODY_AT_MOST:
        yield at, f"is longer than {_BODY_AT_MOST} bytes; let an endpoint serve it"


def check_match(match: istio.HTTPMatchRequest, at: Path) -> Iterator[Finding]:
    """One way to say which requests are meant."""
    plain = {"uri": match.uri, "method": match.method, "authority": match.authority}
    if not (any(plain.values()) or match.headers or match.query_params or match.without_headers):
        yield (
            at,
            (
                "is a match with no condition that is supported (uri, method, authority, headers, queryParams,"
                " withoutHeaders); leave `match` out to match every request"
            ),
        )
    for name, text in plain.items():
        if text is not None:
            yield from _string_match(text, (*at, name), empty_allowed=False)
    for field, conditions in (("headers", match.headers), ("withoutHeaders", match.without_headers)):
        for name, text in conditions.items():
            yield from check_header_name(name, (*at, field, name))
            yield from _string_match(text, (*at, field, name), empty_allowed=True)
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
    yield from check_host(destination.host, (*at, "host"), wildcard=False)
    if destination.subset is not None:
        yield from check_subset_name(destination.subset, (*at, "subset"))


def _headers(headers: istio.Headers | None, at: Path) -> Iterator[Finding]:
    if headers is None:
        return
    for side, operations in (("request", headers.request), ("response", headers.response)):
        if operations is None:
            continue
        for verb, values in (("set", operations.set), ("add", operations.add)):
            for name, value in values.items():
                host = side == "request" and verb == "set" and name.lower() in ("host", ":authority")
                yield from () if host else check_header_name(name, (*at, side, verb, name))
                yield from check_header_value(value, (*at, side, verb, name))
        for index, name in enumerate(operations.remove):
            yield from check_header_name(name, (*at, side, "remove", index))


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


def check_fault(fault: istio.HTTPFaultInjection | None, at: Path) -> Iterator[Finding]:
    """A fault that is injected."""
    if fault is None:
        return
    if fault.delay is None and fault.abort is None:
        yield at, "injects nothing; write delay or abort"


def _cors(policy: istio.CorsPolicy | None, at: Path) -> Iterator[Finding]:
    if policy is None:
        return
    if not policy.allow_origins:
        yield (*at, "allowOrigins"), 'is empty, so that no origin is allowed; write one, or exact: "*" for any'
    for index, origin in enumerate(policy.allow_origins):
        yield from _string_match(origin, (*at, "allowOrigins", index), empty_allowed=False)
    lists = {
        "allowMethods": policy.allow_methods,
        "allowHeaders": policy.allow_headers,
        "exposeHeaders": policy.expose_headers,
    }
    for field, names in lists.items():
        for index, name in enumerate(names):
            what = "the name of a method" if field == "allowMethods" else "the name of a header"
            if not TOKEN.fullmatch(name):
                yield (*at, field, index), f'{show(name)} is not {what}, nor "*"'


def inert(spec: istio.VirtualServiceSpec) -> Iterator[Finding]:
    """What is sound but does nothing, in Istio as here: for the capability report."""
    for index, route in enumerate(spec.http):
        at: Path = ("spec", "http", index, "fault")
        delay = route.fault and route.fault.delay
        abort = route.fault and route.fault.abort
        if delay and delay.percentage is None and delay.percent is None:
            yield (*at, "delay"), "without a percentage no request is delayed; write percentage: {value: 100} for all"
        if abort and abort.http_status is None:
            yield (*at, "abort"), "without an httpStatus no request is aborted"
        elif abort and abort.percentage is None:
            yield (*at, "abort"), "without a percentage no request is aborted; write percentage: {value: 100} for all"
