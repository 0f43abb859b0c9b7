"""MESHLIB_* variables and arguments, checked at start."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from meshlib.errors import SettingsError
from meshlib.registries import default_url

__all__ = ["Settings", "default_state_dir", "parse_address", "settings_from"]

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
IDENTITIES = ("none", "files", "consul", "spiffe")
OUTBOUND = ("allow-any", "registry-only")


class Secret(str):
    """A text that `repr` doesn't show, as it may hold a password."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'" if self else "''"


class Settings(NamedTuple):
    """What a mesh needs to know before it starts; each field is a variable of the same name.

    Attributes:
        service: MESHLIB_SERVICE; None: a pure client.
        namespace: MESHLIB_NAMESPACE.
        registry: MESHLIB_REGISTRY, a URL.
        address: MESHLIB_ADDRESS as (host, port); None: what the server binds.
        labels: MESHLIB_LABELS.
        locality: MESHLIB_LOCALITY.
        outbound: MESHLIB_OUTBOUND, `allow-any` or `registry-only`.
        state_dir: MESHLIB_STATE_DIR.
        identity: MESHLIB_IDENTITY, `none` or a URL.
        trusted_hops: MESHLIB_TRUSTED_HOPS, SPIFFE IDs and IP networks.
        limits: MESHLIB_LIMITS, the URL of a Redis, "" for none.
    """

    service: str | None
    namespace: str
    registry: str
    address: tuple[str, int] | None
    labels: Mapping[str, str]
    locality: str
    outbound: str
    state_dir: Path
    identity: str = "none"
    trusted_hops: tuple[str, ...] = ()
    limits: Secret = Secret("")


def default_state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The user's state directory: XDG_STATE_HOME, else ~/.local/state, or ~/Library/Application Support on macOS."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "meshlib"
    base = environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "meshlib"


def settings_from(
    environ: Mapping[str, str] = os.environ,
    *,
    service: str | None = None,
    namespace: str | None = None,
    registry: str | None = None,
    address: str | None = None,
    labels: Mapping[str, str] | None = None,
    locality: str | None = None,
    outbound: str | None = None,
    state_dir: str | os.PathLike[str] | None = None,
    identity: str | None = None,
    trusted_hops: str | Sequence[str] | None = None,
    limits: str | None = None,
) -> Settings:
    """Arguments where they are given, else the variables, else the defaults.

    Raises:
        SettingsError: names the variable (or argument), the value and what is allowed.
    """

    def value(name: str, given: str | None, default: str) -> tuple[str, str]:
        variable = f"MESHLIB_{name.upper()}"
        if given is not None:
            return given, name
        return environ.get(variable) or default, variable

    found_dir = Path(state_dir) if state_dir is not None else None
    directory = found_dir or Path(environ.get("MESHLIB_STATE_DIR") or default_state_dir(environ)).expanduser()
    name, source = value("service", service, "")
    return Settings(
        service=_label(name, source) if name else None,
        namespace=_label(*value("namespace", namespace, "default")),
        registry=_registry(*value("registry", registry, default_url(directory.absolute()))),
        address=parse_address(*given) if (given := value("address", address, ""))[0] else None,
        labels=labels if labels is not None else _labels(*value("labels", None, "")),
        locality=_locality(*value("locality", locality, "")),
        outbound=_one_of(*value("outbound", outbound, OUTBOUND[0]), OUTBOUND),
        state_dir=directory.absolute(),
        identity=_identity(*value("identity", identity, "none")),
        trusted_hops=_hops(*value("trusted_hops", _joined(trusted_hops), "")),
        limits=Secret(value("limits", limits, "")[0]),
    )


def parse_address(text: str, source: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` as (host, port).

    Raises:
        SettingsError: it is not an address.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise SettingsError(f"{source} is {text!r}; expected host:port, such as 10.0.0.5:8080 or [::1]:8080")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _label(text: str, source: str) -> str:
    if not LABEL.fullmatch(text):
        raise SettingsError(f"{source} is {text!r}; expected a DNS label: up to 63 of a-z, 0-9 and -, no - at the ends")
    return text


def _registry(url: str, source: str) -> str:
    if ":" not in url:
        raise SettingsError(
            f"{source} is {url!r}; expected a URL: sqlite:///path, file:///directory-or-file or consul://host:port"
        )
    return url


def _locality(text: str, source: str) -> str:
    if text.count("/") > 2:
        raise SettingsError(f"{source} is {text!r}; expected region, region/zone or region/zone/subzone")
    return text


def _one_of(text: str, source: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise SettingsError(f"{source} is {text!r}; allowed: {', '.join(allowed)}")
    return text


def _identity(text: str, source: str) -> str:
    if text.partition(":")[0] not in IDENTITIES:
        raise SettingsError(f"{source} is {text!r}; expected none, files:///directory, consul or spiffe:///socket")
    return text


def _joined(parts: str | Sequence[str] | None) -> str | None:
    return parts if parts is None or isinstance(parts, str) else ",".join(parts)


def _hops(text: str, source: str) -> tuple[str, ...]:
    hops = tuple(filter(None, (part.strip() for part in text.split(","))))
    for hop in hops:
        if not hop.startswith("spiffe://"):
            try:
                ipaddress.ip_network(hop)
            except ValueError as error:
                expected = "SPIFFE IDs and IP networks with commas, such as spiffe://example.org/gateway,10.1.0.0/16"
                raise SettingsError(f"{source} has {hop!r}; expected {expected} ({error})") from None
    return hops


def _labels(text: str, source: str) -> Mapping[str, str]:
    labels = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise SettingsError(f"{source} has {part!r}; expected name=value pairs such as version=v2,track=canary")
        labels[name.strip()] = value.strip()
    return labels
