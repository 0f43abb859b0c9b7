"""Places in policies that hold seldom or never, by what they say alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from meshlib.resources.authentication import RequestAuthenticationSpec
from meshlib.resources.authorization import AuthorizationPolicySpec, AuthorizationRule
from meshlib.resources.documents import Path, Resource, show

__all__ = ["hints", "identity_places", "token_places"]

_IDENTITY = ("principals", "namespaces", "service_accounts")
_IDENTITY_KEYS = ("source.principal", "source.namespace", "source.serviceAccount")
_TOKEN_KEY = "request.auth."  # noqa: S105  # the beginning of a name, not a secret
_LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|::1")
_UNNORMAL = re.compile(r"//|\\|/\.{1,2}(?=/|$)")

_Found = tuple[Resource, Path, str]


def identity_places(rule: AuthorizationRule) -> Iterator[Path]:
    """Where a rule wants a caller with an identity."""
    for index, one in enumerate(rule.from_):
        for name in _IDENTITY:
            if getattr(one.source, name):
                yield "from", index, "source", _written(one.source, name)
    for index, condition in enumerate(rule.when):
        if condition.key in _IDENTITY_KEYS and condition.values:
            yield "when", index


def token_places(rule: AuthorizationRule) -> Iterator[tuple[Path, bool]]:
    """Where a rule asks for a token, and whether it holds without one."""
    for index, one in enumerate(rule.from_):
        if one.source.request_principals:
            yield ("from", index, "source", "requestPrincipals"), False
        elif one.source.not_request_principals:
            yield ("from", index, "source", "notRequestPrincipals"), True
    for index, condition in enumerate(rule.when):
        if condition.key.startswith(_TOKEN_KEY):
            yield ("when", index), not condition.values


def hints(resource: Resource) -> Iterator[_Found]:
    """What a document says that hardly does what was meant."""
    spec = resource.spec
    if isinstance(spec, AuthorizationPolicySpec):
        for number, rule in enumerate(spec.rules):
            for path, message in _odd(rule):
                yield resource, ("spec", "rules", number, *path), message
    if isinstance(spec, RequestAuthenticationSpec):
        if not spec.jwt_rules:
            yield resource, ("spec",), "accepts no token and refuses none; write jwtRules, or remove it"
        for number, issuer in enumerate(spec.jwt_rules):
            url = urlsplit(issuer.jwks_uri or ("" if issuer.jwks else issuer.issuer))
            if url.scheme == "http" and not _LOOPBACK.fullmatch(url.hostname or ""):
                message = "fetches keys in plain text: whoever is on the way can put in their own; write https://"
                yield resource, ("spec", "jwtRules", number), message


def _odd(rule: AuthorizationRule) -> Iterator[tuple[Path, str]]:
    for part, messages in (
        (("from", "source"), [one.source for one in rule.from_]),
        (("to", "operation"), [one.operation for one in rule.to]),
    ):
        for index, message in enumerate(messages):
            for name in message.__struct_fields__:
                at: Path = (part[0], index, part[1], _written(message, name))
                yield from _odd_values(name.removeprefix("not_"), getattr(message, name), at)
    for index, condition in enumerate(rule.when):
        for name, values in (("values", condition.values), ("notValues", condition.not_values)):
            yield from _odd_values(condition.key, values, ("when", index, name))


def _odd_values(name: str, values: Sequence[str], at: Path) -> Iterator[tuple[Path, str]]:
    for index, value in enumerate(values):
        if _has_literal_star(name, value):
            message = f"{show(value)} has a * that stands for itself: only one at the beginning or the end is any text"
            yield (*at, index), message
        if name == "methods" and value != value.upper():
            yield (*at, index), f"{show(value)} is hardly a method: they are upper case, as in {show(value.upper())}"
        if name == "paths" and _UNNORMAL.search(value):
            message = f"{show(value)} never matches: paths are compared without //, /./, /../ and \\; write it so"
            yield (*at, index), message


def _has_literal_star(name: str, value: str) -> bool:
    if name in ("namespaces", "source.namespace") or "{" in value:
        return False
    if name.startswith("request.headers["):  # of `*abc*` both are any text
        return "*" in value.removeprefix("*").removesuffix("*")
    return "*" in (value[1:] if value.startswith("*") else value[:-1])


def _written(message: object, field: str) -> str:
    fields: Sequence[str] = message.__struct_fields__  # type: ignore[attr-defined]  # a message
    names: Sequence[str] = message.__struct_encode_fields__  # type: ignore[attr-defined]  # a message
    return names[fields.index(field)]
