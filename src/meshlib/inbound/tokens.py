"""Tokens of callers, by RequestAuthentication."""

from __future__ import annotations

from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet

from meshlib.inbound.denials import UNVERIFIED, Denial, Permit, deny
from meshlib.inbound.effects import FetchKeys, Step, Stepped
from meshlib.policy.arriving import Arriving
from meshlib.policy.tokenplaces import TokenPlace, without_cookie, without_field
from meshlib.policy.tokens import KeysWanted, Refused, TokenRules, Verified

__all__ = ["authenticate", "take_out"]

CHALLENGE = ((b"www-authenticate", b'Bearer error="invalid_token"'),)
"""RFC 6750; Envoy's, too."""


def authenticate(rules: TokenRules, arriving: Arriving, permit: Permit, wall: Callable[[], float]) -> Stepped:
    """The step of tokens: `arriving` gets the claims of a good one, a bad one is refused, none is no fault.

    What the application won't see, the steps that follow don't see either: a header that only we may set can't be
    written by a caller to get past them.

    Args:
        rules: of the process.
        arriving: the request.
        permit: of it; gets headers for the application.
        wall: seconds since 1970.
    """
    if rules.outputs:
        take_out(arriving, permit, rules.outputs)
    found = rules.find(arriving)
    if not found:
        return None
    token, place = found[0]
    places: Collection[TokenPlace] = (place,)
    if len(found) > 1:
        places = {place for _, place in found}
        if any(one != token for one, _ in found):
            # To whom they speak can't be known, and the application may take another one than we do.
            return _refuse(Refused(f"it has {len(found)} tokens that differ, in {_names(places)}"))
    said = rules.judge(token, places, wall())
    if type(said) is KeysWanted:
        return _with_keys(rules, said, token, places, arriving, permit, wall)
    return _judged(said, places, arriving, permit)


def _with_keys(
    rules: TokenRules,
    wanted: KeysWanted,
    token: bytes,
    places: Collection[TokenPlace],
    arriving: Arriving,
    permit: Permit,
    wall: Callable[[], float],
) -> Step:
    """Have keys fetched, and judge the token by what there is then."""
    said: Verified | KeysWanted | Refused = wanted
    if wanted.keys.source is not None:
        yield FetchKeys(wanted.keys.source, wanted.wait)
        said = rules.judge(token, places, wall())
    return _judged(said, places, arriving, permit)


def _judged(
    said: Verified | KeysWanted | Refused, places: Collection[TokenPlace], arriving: Arriving, permit: Permit
) -> Denial | None:
    if type(said) is not Verified:
        assert not isinstance(said, Verified)
        return _refuse(said)
    arriving.claims, arriving.token_principal = said.claims, said.principal
    if not said.rule.forward:
        _hide(arriving, permit, places)
    if said.add:
        permit.add += said.add
        arriving.raw_headers = [*arriving.raw_headers, *said.add]
    return None


def _refuse(said: Refused | KeysWanted) -> Denial:
    status = said.status if isinstance(said, Refused) else 401
    return deny(status, UNVERIFIED, "the request's token isn't accepted", f"its token: {said.reason}", CHALLENGE)


def take_out(arriving: Arriving, permit: Permit, names: AbstractSet[bytes]) -> None:
    """Take headers from a request; one with underscores is the same to what reads headers as CGI does.

    Args:
        arriving: the request.
        permit: of it.
        names: with hyphens for underscores.
    """
    permit.remove |= names
    arriving.raw_headers = [pair for pair in arriving.raw_headers if pair[0].replace(b"_", b"-") not in names]


def _hide(arriving: Arriving, permit: Permit, places: Collection[TokenPlace]) -> None:
    """Take the token out of the request."""
    for kind, name, _ in places:
        if kind == "header":
            take_out(arriving, permit, {name.replace(b"_", b"-")})
        elif kind == "query":
            arriving.raw_target = without_field(arriving.raw_target, name)
            permit.query = arriving.raw_target.partition(b"?")[2]
        else:
            cookies = without_cookie(b"; ".join(arriving.values(b"cookie")), name)
            take_out(arriving, permit, {b"cookie"})
            permit.add = [pair for pair in permit.add if pair[0] != b"cookie"]
            if cookies:
                permit.add.append((b"cookie", cookies))
                arriving.raw_headers.append((b"cookie", cookies))


def _names(places: Collection[TokenPlace]) -> str:
    return ", ".join(sorted(f"{place.kind} {place.name.decode()}" for place in places))
