"""What the code says of the fields of documents, in the words of `docs/reference/documents.md`."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from meshlib.resources import fields, units
from meshlib.resources.authentication import RequestAuthenticationSpec
from meshlib.resources.authorization import AuthorizationPolicySpec
from meshlib.resources.destinations import DestinationRuleSpec
from meshlib.resources.documents import Metadata
from meshlib.resources.inbound import InboundPolicySpec
from meshlib.resources.networking import ServiceEntrySpec, VirtualServiceSpec
from meshlib.resources.outbound import OutboundPolicySpec
from meshlib.resources.security import PeerAuthenticationSpec

__all__ = ["SPECS", "Field", "fields_of", "ignored", "messages"]

SPECS: dict[str, type[msgspec.Struct]] = {
    "VirtualService": VirtualServiceSpec,
    "DestinationRule": DestinationRuleSpec,
    "ServiceEntry": ServiceEntrySpec,
    "PeerAuthentication": PeerAuthenticationSpec,
    "RequestAuthentication": RequestAuthenticationSpec,
    "AuthorizationPolicy": AuthorizationPolicySpec,
    "InboundPolicy": InboundPolicySpec,
    "OutboundPolicy": OutboundPolicySpec,
}
SCALARS = {str: "text", int: "whole number", float: "number", bool: "true or false"}
SECONDS = (units.Duration, units.Timeout)


class Field(NamedTuple):
    """A row of a table: the field's name on the wire, its type and its default."""

    name: str
    type: str
    default: str


def messages() -> dict[str, type[msgspec.Struct]]:
    """Every message by its heading, a kind before what it is made of."""
    found: dict[str, type[msgspec.Struct]] = {"Metadata": Metadata}
    for name, spec in SPECS.items():
        found[name] = spec
        for inner in _inside(spec):
            found.setdefault(inner.__name__, inner)
    return found


def fields_of(owner: type[msgspec.Struct]) -> list[Field]:
    """The rows of a message's table."""
    hints = typing.get_type_hints(owner, include_extras=True)
    return [
        Field(field.encode_name, _type(hints[field.name]), _default(field, hints[field.name]))
        for field in msgspec.structs.fields(owner)
    ]


def ignored(owner: type[msgspec.Struct]) -> dict[str, list[str]]:
    """The fields of a message that aren't applied, by the reason."""
    found: dict[str, list[str]] = {}
    for name, reason in fields._IGNORED.get(owner, {}).items():
        found.setdefault(reason, []).append(name)
    return found


def _inside(owner: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for hint in typing.get_type_hints(owner, include_extras=True).values():
        for inner in _structs(hint):
            yield inner
            yield from _inside(inner)


def _structs(hint: Any) -> Iterator[type[msgspec.Struct]]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield hint
    for argument in typing.get_args(hint):
        yield from _structs(argument)


def _type(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _type(next(argument for argument in arguments if argument is not types.NoneType))
    if origin is typing.Annotated:
        return _unit(arguments[0], arguments[1])
    if origin is Literal:
        return ", ".join(arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"map of {_type(arguments[1])}"
    if issubclass(hint, msgspec.Struct):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    return SCALARS[hint]


def _unit(base: type, unit: Any) -> str:
    if isinstance(unit, units.Range):
        high = "2³² − 1" if unit.high == 2**32 - 1 else f"{unit.high:g}" if unit.high < 1e5 else f"{unit.high:.0f}"
        return f"{SCALARS[base]}, {unit.low:g} to {high}"
    if unit is units.Base64Text:
        return "base64"
    return "duration, or `0s`" if unit is units.Timeout else "duration"


def _default(field: Any, hint: Any) -> str:
    if field.required:
        return "required"
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if default is None or default in ("", (), {}):
        return "–"
    if any(argument in SECONDS for argument in typing.get_args(hint)):
        return f"{default:g}s" if default >= 1 else f"{default * 1000:g}ms"
    return f"{default:g}" if isinstance(default, float) else str(default)
