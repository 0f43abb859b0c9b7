"""Rate limits: this process's own, and those it shares with others.

The process's own come first, for they cost nothing: what they refuse isn't counted anywhere else. What the shared ones
refuse is given back to the own.

Responses say in `RateLimit-Limit`, `-Remaining` and `-Reset` how the tightest limit stands, and a refusal says in
`Retry-After` when there is a token again. These are the fields of the IETF's draft on rate limits
(draft-ietf-httpapi-ratelimit-headers) up to its version 06, which clients and gateways read; later ones put everything
into `RateLimit` and `RateLimit-Policy`, in a form that still changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

from meshlib.inbound.denials import LIMITED, UNCOUNTED, Denial, Permit, RawHeader, deny
from meshlib.inbound.effects import Count, Step, Stepped
from meshlib.policy.arriving import Arriving
from meshlib.policy.notes import Note
from meshlib.policy.ratelimit import Draw, Level, Limit, RateLimits

__all__ = ["limit"]

Standing = tuple[Limit, Level]


def limit(limits: RateLimits, arriving: Arriving, permit: Permit, clock: Callable[[], float]) -> Stepped:
    """The step of rate limits.

    Args:
        limits: of the process.
        arriving: the request.
        permit: of it; gets headers for the response.
        clock: monotonic seconds.
    """
    draws = limits.draw(arriving, clock())
    standings: list[Standing] = [(one, level) for one, level, _ in draws]
    denial = _refused(standings, permit)
    if denial is not None:
        return denial
    held = [one for one in limits.shared if one.holds(arriving)] if limits.shared else ()
    if held:
        return _counting(held, limits, draws, arriving, permit)
    permit.reply += _fields(standings)
    return None


def _counting(
    held: Sequence[Limit], limits: RateLimits, draws: Sequence[Draw], arriving: Arriving, permit: Permit
) -> Step:
    """Have a request counted on shared limits that it is held to."""
    levels: Sequence[Level | None] = yield Count([one.spending(arriving) for one in held])
    counted = [(one, level) for one, level in zip(held, levels, strict=True) if level is not None]
    uncounted = [one for one, level in zip(held, levels, strict=True) if level is None]
    denial = _refused(counted, permit) or _unknown(uncounted, permit)
    if denial is not None:
        limits.give_back(draws)
        return denial
    permit.reply += _fields([*((one, level) for one, level, _ in draws), *counted])
    return None


def _refused(standings: Sequence[Standing], permit: Permit) -> Denial | None:
    """The answer if a limit has no token, of several the one that takes longest."""
    short: Limit | None = None
    longest = 0.0
    for one, (enough, tokens) in standings:
        if enough:
            continue
        if not one.enforced:
            permit.notes.append(Note("dry-run", one.name, f"dry run: rate limit {one.name!r} ({one.says})"))
        elif (wait := one.wait(tokens)) > longest:
            short, longest = one, wait
    if short is None:
        return None
    seconds = max(1, ceil(longest))
    headers = ((b"retry-after", b"%d" % seconds), *_named(short.size, 0, seconds))
    return deny(429, LIMITED, "too many requests", f"rate limit {short.name!r}: {short.says}", headers, short.name)


def _unknown(uncounted: Sequence[Limit], permit: Permit) -> Denial | None:
    """What becomes of a request whose shared limits couldn't be counted."""
    for one in uncounted:
        if one.enforced and one.refuses_uncounted:
            why = f"rate limit {one.name!r} can't be counted, and its onError says DENY"
            return deny(503, UNCOUNTED, "a limit can't be checked just now", why, ((b"retry-after", b"1"),), one.name)
        permit.notes.append(Note("uncounted", one.name, f"not counted: rate limit {one.name!r}"))
    return None


def _fields(standings: Sequence[Standing]) -> Sequence[RawHeader]:
    """How the limit stands of which least is left, as headers of the response."""
    least: Limit | None = None
    left = 0.0
    for one, (_, tokens) in standings:
        if one.enforced and (least is None or tokens < left):
            least, left = one, tokens
    return () if least is None else _named(least.size, int(left), ceil(least.full(left)))


def _named(size: int, left: int, seconds: int) -> tuple[RawHeader, RawHeader, RawHeader]:
    return (
        (b"ratelimit-limit", b"%d" % size),
        (b"ratelimit-remaining", b"%d" % left),
        (b"ratelimit-reset", b"%d" % seconds),
    )
