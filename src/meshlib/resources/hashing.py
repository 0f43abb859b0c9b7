"""What types can't say of consistent hashing, by the rules Istio has for it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from meshlib.resources import destinations
from meshlib.resources.documents import Path, show
from meshlib.resources.shapes import Finding, check_header_name, check_header_value

__all__ = ["check_balancer", "is_prime"]

_COOKIE_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")
_MAX_NAME = 1024


def check_balancer(balancer: destinations.LoadBalancerSettings, at: Path) -> Iterator[Finding]:
    """Either `simple` or `consistentHash`, and of the latter one key and one algorithm."""
    hashed = balancer.consistent_hash
    if hashed is None:
        return
    if balancer.simple is not None:
        yield at, "has simple and consistentHash; remove one of them"
    here = (*at, "consistentHash")
    yield from _keys(hashed, here)
    if hashed.ring_hash is not None and hashed.maglev is not None:
        yield here, "has ringHash and maglev; remove one of them"
    if hashed.maglev is not None and not is_prime(hashed.maglev.table_size):
        yield (*here, "maglev", "tableSize"), f"{hashed.maglev.table_size} is not a prime number; 65537 is the default"


def is_prime(number: int) -> bool:
    """Whether it has no divisor; bounded by the square root, so for numbers as small as a table's size."""
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


def _keys(hashed: destinations.ConsistentHashLB, at: Path) -> Iterator[Finding]:
    keys = {
        "httpHeaderName": hashed.http_header_name,
        "httpCookie": hashed.http_cookie,
        "useSourceIp": hashed.use_source_ip,
        "httpQueryParameterName": hashed.http_query_parameter_name,
    }
    written = [name for name, value in keys.items() if value is not None]
    if len(written) != 1:
        found = f"has {' and '.join(written)}" if written else "says nothing to hash"
        yield at, f"{found}; write exactly one of {', '.join(keys)}"
    if hashed.http_header_name is not None:
        yield from check_header_name(hashed.http_header_name, (*at, "httpHeaderName"))
    if hashed.use_source_ip is False:
        yield (*at, "useSourceIp"), "is false, which names no key; write true, or another key"
    parameter = hashed.http_query_parameter_name
    if parameter is not None and not 0 < len(parameter) <= _MAX_NAME:
        yield (*at, "httpQueryParameterName"), f"{show(parameter)} is not a name of 1 to {_MAX_NAME} characters"
    if hashed.http_cookie is not None:
        yield from _cookie(hashed.http_cookie, (*at, "httpCookie"))


def _cookie(cookie: destinations.HTTPCookie, at: Path) -> Iterator[Finding]:
    if not _COOKIE_NAME.fullmatch(cookie.name):
        yield (*at, "name"), f"{show(cookie.name)} is not a cookie's name: a token of at most 256 characters expected"
    yield from check_header_value(cookie.path, (*at, "path"))
    if ";" in cookie.path or not cookie.path.isascii():
        yield (*at, "path"), f"{show(cookie.path)} is not a path: no semicolon and only ASCII expected"
