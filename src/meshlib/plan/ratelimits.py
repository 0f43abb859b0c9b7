"""Compiling the rate limits of InboundPolicies."""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.plan.matches import compile_match
from meshlib.policy.ratelimit import Limit, RateLimits, Read, claim, header, principal, remote_address
from meshlib.resources import RateLimit, RateLimitKey
from meshlib.state.buckets import Buckets
from meshlib.state.inbound import InboundState

__all__ = ["limits_of"]


def limits_of(limits: Sequence[RateLimit], state: InboundState) -> RateLimits | None:
    """The limits of one process. None without any.

    A limit is the same as an older plan's by its name, which no two have, and by what it tells callers apart by.

    Args:
        limits: of the InboundPolicy in force.
        state: keeps the buckets.
    """
    if not limits:
        return None
    buckets = state.buckets.adopt([(one.name, one.by) for one in limits if one.scope == "LOCAL"])
    return RateLimits(
        tuple(_limit(one, buckets[one.name, one.by]) for one in limits if one.scope == "LOCAL"),
        tuple(_limit(one, None) for one in limits if one.scope == "GLOBAL"),
        state.buckets,
    )


def _limit(written: RateLimit, buckets: Buckets | None) -> Limit:
    size = written.burst if written.burst is not None else written.requests
    whose = ", ".join(_says(key) for key in written.by)
    says = f"{written.requests} in {written.per:g} s, {size} at once" + (f", by {whose}" if whose else "")
    return Limit(
        name=written.name,
        size=size,
        rate=written.requests / written.per,
        matches=tuple(compile_match(match) for match in written.match),
        by=tuple(_read(key) for key in written.by),
        says=says,
        enforced=not written.dry_run,
        refuses_uncounted=written.on_error == "DENY",
        buckets=buckets,
    )


def _read(key: RateLimitKey) -> Read:
    if key.claim is not None:
        return claim(key.claim)
    if key.header is not None:
        return header(key.header)
    return principal if key.principal else remote_address


def _says(key: RateLimitKey) -> str:
    if key.claim is not None:
        return f"claim {key.claim}"
    if key.header is not None:
        return f"header {key.header}"
    return "principal" if key.principal else "remoteAddress"
