"""What types can't say of RequestAuthentication, by the rules Istio has for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from meshlib.resources.authentication import JWTRule, RequestAuthenticationSpec
from meshlib.resources.authorizing import check_target
from meshlib.resources.documents import Path, show
from meshlib.resources.keysets import jwks_fault
from meshlib.resources.shapes import Finding, check_count, check_header_name, check_header_value

__all__ = ["check_request_authentication", "url_fault"]

_RULES_AT_MOST = 100
_NAMES_AT_MOST = 100
_TEXT_AT_MOST = 2048
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
# A claim that set one of these would change how the request is read.
_FRAMING = frozenset(
    ("connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
)


def check_request_authentication(spec: RequestAuthenticationSpec, at: Path) -> Iterator[Finding]:
    """The findings in a RequestAuthentication."""
    yield from check_target(spec, at)
    if len(spec.jwt_rules) > _RULES_AT_MOST:
        yield (*at, "jwtRules"), f"has {len(spec.jwt_rules)} rules; at most {_RULES_AT_MOST} are allowed"
    for index, rule in enumerate(spec.jwt_rules):
        here = (*at, "jwtRules", index)
        yield from _keys(rule, here)
        yield from _places(rule, here)
        yield from _headers_out(rule, here)
        for name, texts in (("audiences", rule.audiences), ("spaceDelimitedClaims", rule.space_delimited_claims)):
            yield from _texts(texts, (*here, name))


def url_fault(url: str) -> str | None:
    """What is wrong with a URL that keys are fetched from, None when nothing is."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return f"{show(url)} is not a URL"
    if not sound or not _PRINTABLE.fullmatch(url) or "\\" in url or len(url) > _TEXT_AT_MOST:
        return f"{show(url)} is not a URL with http:// or https:// and a host"
    if parts.username is not None or parts.fragment:
        return "has a user or a fragment, which no request carries; remove it"
    return None


def _keys(rule: JWTRule, at: Path) -> Iterator[Finding]:
    if not rule.issuer or len(rule.issuer) > _TEXT_AT_MOST:
        yield (*at, "issuer"), f"expected what the claim iss must be, found {show(rule.issuer)}"
        return
    if rule.jwks and rule.jwks_uri:
        yield at, "has both jwks and jwksUri; keep one of them"
    if rule.jwks and (fault := jwks_fault(rule.jwks)) is not None:
        yield (*at, "jwks"), fault
    if rule.jwks_uri and (fault := url_fault(rule.jwks_uri)) is not None:
        yield (*at, "jwksUri"), fault
    if not (rule.jwks or rule.jwks_uri) and url_fault(rule.issuer) is not None:
        yield at, f"has no keys: the issuer {show(rule.issuer)} is no URL that could be asked; write jwksUri or jwks"


def _places(rule: JWTRule, at: Path) -> Iterator[Finding]:
    for index, place in enumerate(rule.from_headers):
        yield from check_header_name(place.name, (*at, "fromHeaders", index, "name"))
        yield from check_header_value(place.prefix, (*at, "fromHeaders", index, "prefix"))
    yield from _texts(rule.from_params, (*at, "fromParams"))
    yield from check_count(rule.from_headers, _NAMES_AT_MOST, (*at, "fromHeaders"))
    yield from check_count(rule.from_cookies, _NAMES_AT_MOST, (*at, "fromCookies"))
    for index, cookie in enumerate(rule.from_cookies):
        # RFC 6265: the name of a cookie is a token, too.
        yield from check_header_name(cookie, (*at, "fromCookies", index))


def _headers_out(rule: JWTRule, at: Path) -> Iterator[Finding]:
    """Headers for the application: each is set once, and none that says where the request ends."""
    yield from check_count(rule.output_claim_to_headers, _NAMES_AT_MOST, (*at, "outputClaimToHeaders"))
    named: list[tuple[Path, str]] = []
    if rule.output_payload_to_header:
        named.append(((*at, "outputPayloadToHeader"), rule.output_payload_to_header))
    for index, one in enumerate(rule.output_claim_to_headers):
        named.append(((*at, "outputClaimToHeaders", index, "header"), one.header))
        yield from _texts((one.claim,), (*at, "outputClaimToHeaders", index, "claim"), single=True)
    seen: set[str] = set()
    for path, header in named:
        name = header.lower()
        yield from check_header_name(header, path)
        if name in seen:
            yield path, f"{show(header)} is set twice; a header has one value, write another"
        if name in _FRAMING:
            yield path, f"{show(header)} says where a request ends or goes; write another header"
        seen.add(name)


def _texts(texts: Sequence[str], at: Path, *, single: bool = False) -> Iterator[Finding]:
    yield from check_count(texts, _NAMES_AT_MOST, at)
    for index, text in enumerate(texts):
        if not text or len(text) > _TEXT_AT_MOST:
            yield at if single else (*at, index), f"expected a text of at most {_TEXT_AT_MOST}, found {show(text)}"
