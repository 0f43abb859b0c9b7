"""Compiling RequestAuthentications."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from meshlib.policy.claims import SPACED
from meshlib.policy.keyring import KeysUnreadable, read_keys
from meshlib.policy.tokenplaces import BEARER, TOKEN_PARAM, TokenPlace
from meshlib.policy.tokens import TokenRule, TokenRules
from meshlib.resources import JWTRule, RequestAuthenticationSpec
from meshlib.state.inbound import InboundState
from meshlib.state.tokens import IssuerKeys, KeySource

__all__ = ["NO_JOSERFC", "tokens_fault", "tokens_of"]

NO_JOSERFC = (
    "a RequestAuthentication wants tokens verified, and joserfc isn't installed: nobody is let in; "
    'pip install "servicemesh[jwt]"'
)


def tokens_fault(specs: Sequence[RequestAuthenticationSpec]) -> str:
    """Why no token can be verified in this process, "" when they can, or needn't be."""
    needed = any(spec.jwt_rules for spec in specs)
    return NO_JOSERFC if needed and importlib.util.find_spec("joserfc") is None else ""


def tokens_of(specs: Sequence[RequestAuthenticationSpec], state: InboundState) -> TokenRules | None:
    """The rules of all documents together; None without any.

    Rules that are those of before stay the same object, with what they have verified.
    """
    rules = tuple(rule for spec in specs for rule in spec.jwt_rules)
    state.tokens.fault = tokens_fault(specs)
    if not rules or state.tokens.fault:
        state.tokens.want(())
        state.tokens.compiled = None
        return None
    sources = {source for rule in rules if (source := _source(rule)) is not None}
    keys = state.tokens.want(sorted(sources))
    known = state.tokens.compiled
    if known is None or known[0] != rules:
        known = state.tokens.compiled = rules, TokenRules([_rule(rule, keys) for rule in rules])
    return known[1]


def _source(rule: JWTRule) -> KeySource | None:
    """Where the keys of a rule are fetched; None: they stand in the document."""
    return None if rule.jwks else KeySource(rule.issuer, rule.jwks_uri, rule.timeout)


def _rule(rule: JWTRule, keys: Mapping[KeySource, IssuerKeys]) -> TokenRule:
    source = _source(rule)
    return TokenRule(
        rule.issuer,
        audiences=rule.audiences,
        places=_places(rule) or (BEARER, TOKEN_PARAM),
        keys=_own_keys(rule) if source is None else keys[source],
        forward=rule.forward_original_token,
        payload_header=rule.output_payload_to_header.lower().encode(),
        claim_headers=[(one.header.lower().encode(), one.claim) for one in rule.output_claim_to_headers],
        lists=(*SPACED, *rule.space_delimited_claims),
    )


def _places(rule: JWTRule) -> Sequence[TokenPlace]:
    return [
        *(TokenPlace("header", one.name.lower().encode(), one.prefix.lower().encode()) for one in rule.from_headers),
        *_named("query", rule.from_params),
        *_named("cookie", rule.from_cookies),
    ]


def _named(kind: Literal["query", "cookie"], names: Iterable[str]) -> Iterable[TokenPlace]:
    return (TokenPlace(kind, name.encode()) for name in names)


def _own_keys(rule: JWTRule) -> IssuerKeys:
    """The keys in the document. Where they are of no use every token is refused, and the log says why."""
    try:
        return IssuerKeys(None, read_keys(rule.jwks.encode()))
    except KeysUnreadable as error:
        return IssuerKeys(None, error=f"its jwks can't be used: {error}")
