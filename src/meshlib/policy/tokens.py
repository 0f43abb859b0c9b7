"""RequestAuthentication, compiled: where tokens are, what they must say, and what becomes of their claims."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from meshlib.policy.arriving import Arriving, Claims
from meshlib.policy.claims import claim_of
from meshlib.policy.keyring import Keyring, signed_by
from meshlib.policy.tokencache import TokenCache
from meshlib.policy.tokenplaces import TokenPlace, TokenPlaces
from meshlib.policy.webtoken import BadToken, WebToken, read_token
from meshlib.state.tokens import IssuerKeys

__all__ = ["SKEW", "KeysWanted", "Refused", "TokenRule", "TokenRules", "Verified", "bare_audience"]

SKEW = 60.0
"""Seconds that clocks may differ by; Envoy's `clock_skew_seconds`."""

ROTATION_WAIT = 1.0
"""Seconds at most that a request waits for keys because its token names an unknown one; anybody can write such a name.
Where there are no keys at all it waits as long as they may take."""

MAX_HEADER = 8192
"""Bytes of a claim as a header; what is longer isn't given to the application."""

FAR = 1e12
"""Seconds; some thirty thousand years."""

RawHeader = tuple[bytes, bytes]


class Refused(NamedTuple):
    """Why a token isn't accepted.

    Attributes:
        reason: for the log.
        status: of the answer: 401, or 403 for a good token that is meant for others, as Envoy has it.
    """

    reason: str
    status: int = 401


class KeysWanted(NamedTuple):
    """The token may be good: its key isn't known here.

    Attributes:
        keys: that should be fetched.
        wait: seconds to wait for them.
        reason: why the token is refused, should that bring nothing.
    """

    keys: IssuerKeys
    wait: float
    reason: str


class Verified(NamedTuple):
    """A good token.

    Attributes:
        rule: that accepted it.
        ring: the keys it was verified with.
        ends: seconds since 1970 when it stops being good.
        claims: of it, lists as lists.
        principal: `<iss>/<sub>`, "" where it lacks one.
        add: the headers for the application.
    """

    rule: TokenRule
    ring: Keyring
    ends: float
    claims: Claims
    principal: str
    add: Sequence[RawHeader]

    def holds(self, places: Collection[TokenPlace], wall: float) -> bool:
        """Whether the token is still good, and good where it is."""
        rule = self.rule
        return self.ends >= wall and self.ring is rule.keys.ring and rule.places.issuperset(places)


class TokenRule:
    """One JWTRule; immutable but for its keys.

    Args:
        issuer: what `iss` must be.
        audiences: one of them must be in `aud`, none: any will do.
        places: where its tokens are looked for.
        keys: of the issuer.
        forward: whether the application sees the token.
        payload_header: a header for the payload, b"" for none.
        claim_headers: headers for claims.
        lists: claims that are lists written with spaces.
    """

    __slots__ = ("audiences", "claim_headers", "forward", "issuer", "keys", "lists", "payload_header", "places")

    def __init__(
        self,
        issuer: str,
        *,
        audiences: Iterable[str] = (),
        places: Iterable[TokenPlace],
        keys: IssuerKeys,
        forward: bool = False,
        payload_header: bytes = b"",
        claim_headers: Iterable[tuple[bytes, str]] = (),
        lists: Iterable[str] = (),
    ) -> None:
        self.issuer = issuer
        self.audiences = frozenset(map(bare_audience, audiences))
        self.places = frozenset(places)
        self.keys = keys
        self.forward = forward
        self.payload_header = payload_header
        self.claim_headers = tuple(claim_headers)
        self.lists = frozenset(lists)

    def judge(self, token: WebToken, wall: float) -> Verified | KeysWanted | Refused:
        """What comes of a token whose `iss` is this rule's. The cheap questions first: most bad tokens end there."""
        fault = _time_fault(token.claims, wall) or self._audience_fault(token.claims)
        if fault is not None:
            return fault
        ring = self.keys.ring
        if ring is None:
            why = self.keys.error or "they weren't fetched yet"
            return self._wanted(f"there are no keys of {self.issuer}: {why}", rotation=False)
        fitting = ring.fitting(token)
        if fitting and signed_by(token, fitting):
            return self._verified(token, ring)
        named = "without a key's name" if token.kid is None else f"by key {token.kid[:80]!r}"
        if fitting and token.kid is not None:
            return Refused(f"its {token.algorithm} signature {named} isn't one by {self.issuer}")
        return self._wanted(f"no key of {self.issuer} fits its {token.algorithm} signature {named}", rotation=True)

    def _wanted(self, reason: str, *, rotation: bool) -> KeysWanted | Refused:
        source = self.keys.source
        if source is None:  # the keys stand in the document
            return Refused(reason)
        return KeysWanted(self.keys, min(source.timeout, ROTATION_WAIT) if rotation else source.timeout, reason)

    def _audience_fault(self, claims: Claims) -> Refused | None:
        said = claims.get("aud", ())
        said = [said] if isinstance(said, str) else said
        if not isinstance(said, list | tuple) or not all(isinstance(one, str) for one in said):
            return Refused("its aud is neither a text nor a list of texts")
        if self.audiences and self.audiences.isdisjoint(map(bare_audience, said)):
            return Refused(f"it is meant for {str(said)[:200]}, and not for {sorted(self.audiences)}", 403)
        return None

    def _verified(self, token: WebToken, ring: Keyring) -> Verified:
        claims: dict[str, Any] = dict(token.claims)
        for name in self.lists:
            if isinstance(value := claims.get(name), str):
                claims[name] = value.split()
        subject = claims.get("sub")
        add = [(self.payload_header, token.payload)] if self.payload_header else []
        for header, path in self.claim_headers:
            if (text := _header_text(claim_of(token.claims, path))) is not None:
                add.append((header, text))
        principal = f"{self.issuer}/{subject}" if subject else ""
        return Verified(self, ring, claims.get("exp", math.inf) + SKEW, claims, principal, add)


class TokenRules:
    """The rules of one process; what they verified is kept with them.

    Args:
        rules: in the order of the documents.

    Attributes:
        outputs: headers that only we may set, with hyphens for underscores: from no caller are they let through.
    """

    __slots__ = ("_by_issuer", "_cache", "_places", "outputs", "rules")

    def __init__(self, rules: Sequence[TokenRule]) -> None:
        self.rules = tuple(rules)
        self._by_issuer: dict[str, list[TokenRule]] = {}
        for rule in rules:
            self._by_issuer.setdefault(rule.issuer, []).append(rule)
        self._places = TokenPlaces(place for rule in rules for place in rule.places)
        self._cache: TokenCache[Verified] = TokenCache()
        headers = {rule.payload_header for rule in rules} | {name for rule in rules for name, _ in rule.claim_headers}
        self.outputs = frozenset(name.replace(b"_", b"-") for name in headers - {b""})

    def find(self, arriving: Arriving) -> list[tuple[bytes, TokenPlace]]:
        """The tokens of a request, and where each is."""
        return self._places.find(arriving)

    def judge(self, token: bytes, places: Collection[TokenPlace], wall: float) -> Verified | KeysWanted | Refused:
        """What comes of a token.

        Args:
            token: as it came.
            places: where it was; a rule takes it only from its own.
            wall: seconds since 1970.
        """
        known = self._cache.get(token)
        if known is not None and known.holds(places, wall):
            return known
        try:
            said = self._judge(read_token(token), places, wall)
        except BadToken as error:
            return Refused(str(error))
        if isinstance(said, Verified):
            self._cache.put(token, said)
        return said

    def _judge(self, token: WebToken, places: Collection[TokenPlace], wall: float) -> Verified | KeysWanted | Refused:
        issuer, subject = token.claims.get("iss"), token.claims.get("sub", "")
        if not isinstance(issuer, str) or not isinstance(subject, str):
            return Refused("its iss or its sub is no text")
        answer: KeysWanted | Refused | None = None
        # Of several rules for one issuer, one that accepts the token is enough.
        for rule in self._by_issuer.get(issuer, ()):
            if rule.places.issuperset(places):
                said = rule.judge(token, wall)
                if isinstance(said, Verified):
                    return said
                if answer is None or isinstance(said, KeysWanted):
                    answer = said
        names = ", ".join(f"{place.kind} {place.name.decode()}" for place in places)
        return answer or Refused(f"no rule is for tokens of {issuer[:200]!r} in {names}")


def bare_audience(audience: str) -> str:
    """An audience without `http://`, `https://` and a slash at its end: those are alike to Envoy."""
    for scheme in ("https://", "http://"):
        audience = audience.removeprefix(scheme)
    return audience.removesuffix("/")


def _time_fault(claims: Claims, wall: float) -> Refused | None:
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name, wall)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return Refused(f"its {name} is no number")
        if not -FAR < value < FAR:  # beyond what floats can be compared and added with
            return Refused(f"its {name} is no time")
        if name == "exp" and wall > value + SKEW:
            return Refused(f"it ended {wall - value:.0f} s ago")
        if name != "exp" and wall + SKEW < value:
            return Refused(f"it begins in {value - wall:.0f} s by its {name}")
    return None


def _header_text(claim: Any) -> bytes | None:
    """A text, a number or a truth as a header; None for anything else, as in Envoy, and for what would be no header."""
    if isinstance(claim, bool):
        return b"true" if claim else b"false"
    if isinstance(claim, float) and claim.is_integer() and abs(claim) < 2**53:
        claim = int(claim)
    if not isinstance(claim, str | int | float):
        return None
    text = str(claim)
    # Who reads headers takes blanks at the ends away, and would take " admin" for "admin".
    if not text or text != text.strip() or any(ord(character) < 32 or ord(character) == 127 for character in text):
        return None
    written = text.encode()
    return written if len(written) <= MAX_HEADER else None
