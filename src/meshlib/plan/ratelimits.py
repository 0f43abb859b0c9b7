"""Compiling the rate limits of InboundPolicies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from meshlib.plan.matches import compile_match
from meshlib.policy.ratelimit import Limit, RateLimits, Read, claim, header, principal, remote_address
from meshlib.resources import RateLimit, RateLimitKey
from meshlib.state.buckets import Buckets
from meshlib.state.inbound import InboundState

__all__ = ["limits_of"]


def limits_of(limits: Sequence[RateLimit], state: InboundState) -> RateLimits | None:
    """The limits of one process. None without any.

    A limit is the same as an older plan's by its name and by what it tells callers apart by.

    Args:
        limits: of the InboundPolicy in force.
        state: keeps the buckets.
    """
    if not limits:
        return None
    names = Counter[str]()
    found: list[tuple[str, RateLimit]] = []
    for one in limits:
        names[one.name] += 1
        # Two of one name would draw twice from one bucket.
        found.append((one.name if names[one.name] == 1 else f"{one.name}#{names[one.name]}", one))
    keys = [(name, one.by) for name, one in found if one.scope == "LOCAL"]
    buckets = state.buckets.adopt(keys)
    return RateLimits(
        tuple(_limit(name, one, buckets[name, one.by]) for name, one in found if one.scope == "LOCAL"),
        tuple(_limit(name, one, None) for name, one in found if one.scope == "GLOBAL"),
        state.buckets,
    )


def _limit(name: str, written: RateLimit, buckets: Buckets | None) -> Limit:
    size = written.burst if written.burst is not None else written.requests
    whose = ", ".join(_says(key) for key in written.by)
    says = f"{written.requests} in {written.per:g} s, {size} at once" + (f", by {whose}" if whose else "")
    return Limit(
        name=name,
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
