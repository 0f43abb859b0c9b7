"""Istio's RequestAuthentication: which tokens are accepted, and what becomes of their claims.

Names, defaults and meanings are those of istio/api (`request_authentication.proto`).
"""

from __future__ import annotations

import msgspec

from meshlib.resources.security import PolicyTargetReference, WorkloadSelector
from meshlib.resources.units import Seconds

__all__ = ["ClaimToHeader", "JWTHeader", "JWTRule", "RequestAuthenticationSpec"]


class _Message(msgspec.Struct, frozen=True, rename="camel"):
    """A message of the Istio API: immutable, in camel case on the wire."""


class JWTHeader(_Message, frozen=True):
    """A header that carries a token behind `prefix`, which is "Bearer " for `authorization`."""

    name: str
    prefix: str = ""


class ClaimToHeader(_Message, frozen=True):
    """A header for the application with the value of a claim; `a.b` is `b` within `a`."""

    header: str
    claim: str


class JWTRule(_Message, frozen=True):
    """Tokens of one issuer.

    Attributes:
        issuer: what `iss` must be.
        audiences: one of them must be in `aud`; empty: any.
        jwks_uri: where its keys are; empty, with `jwks` empty too: as the issuer's OpenID Connect discovery says.
        jwks: its keys themselves, a JSON Web Key Set.
        from_headers, from_params, from_cookies: where tokens are looked for; with none of them in
            `authorization: Bearer …` and the query parameter `access_token`.
        output_payload_to_header: a header for the application with the payload in base64url.
        forward_original_token: whether the application sees the token.
        output_claim_to_headers: claims as headers for the application.
        timeout: seconds for fetching keys. Istio's default is 5.
        space_delimited_claims: claims that are lists written with spaces, besides `scope` and `permission`.
    """

    issuer: str
    audiences: tuple[str, ...] = ()
    jwks_uri: str = ""
    jwks: str = ""
    from_headers: tuple[JWTHeader, ...] = ()
    from_params: tuple[str, ...] = ()
    from_cookies: tuple[str, ...] = ()
    output_payload_to_header: str = ""
    forward_original_token: bool = False
    output_claim_to_headers: tuple[ClaimToHeader, ...] = ()
    timeout: Seconds = 5.0
    space_delimited_claims: tuple[str, ...] = ()


class RequestAuthenticationSpec(_Message, frozen=True):
    """A request with a token that no rule accepts is refused; one without any is let through, for others to judge."""

    selector: WorkloadSelector | None = None
    jwt_rules: tuple[JWTRule, ...] = ()
    target_ref: PolicyTargetReference | None = None
    target_refs: tuple[PolicyTargetReference, ...] = ()
