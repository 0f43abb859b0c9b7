"""What Consul knows of an instance of a service, and what we tell it of ours: pure translation, both ways.

A label whose name and value Consul's Meta can hold is a Meta entry of that name, so that Consul's own filters see it
(`Service.Meta.version == "v2"`); the others are packed into `meshlib-labels-0`, `-1` and so on, as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from meshlib.errors import SettingsError
from meshlib.registries.base import MAX_INSTANCES, MAX_LABELS, Instance
from meshlib.registries.consul.address import ConsulSettings

__all__ = ["OUTPUT", "Entry", "Found", "Health", "check_id", "definition", "health_of", "native_path", "service_id"]

OUTPUT = "meshlib: "
"""What the output of a check of ours begins with."""

_RAN_OUT = "TTL expired"
"""What Consul puts there when it wasn't renewed in time."""

MAX_META = 64
MAX_META_BYTES = 512
"""Consul's limits for Meta: entries, and bytes of a value."""

MAX_WARNINGS = 20

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here
"""What servers bind that are reached at any address of their machine, and where its agent reaches them."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_OURS = "meshlib-"
_PACKED = "meshlib-labels-"
_RESERVED = ("consul-", _OURS)


class _Message(msgspec.Struct, frozen=True, rename="pascal"):
    """What is needed of one of Consul's messages; the rest is tolerated."""


class Node(_Message, frozen=True):
    """The machine."""

    node: str
    address: str
    datacenter: str = ""


class _Weights(_Message, frozen=True):
    passing: int = 1
    warning: int = 1


class _Connect(_Message, frozen=True):
    native: bool = False


class Service(_Message, frozen=True):
    """The instance as it was registered."""

    id: str = msgspec.field(name="ID")
    service: str
    port: int = 0
    address: str = ""
    kind: str = ""
    meta: dict[str, str] | None = None
    weights: _Weights = _Weights()
    connect: _Connect | None = None


class Check(_Message, frozen=True):
    """One of its checks, or of its machine's."""

    check_id: str = msgspec.field(name="CheckID")
    status: str
    output: str = ""


class Entry(_Message, frozen=True):
    """One element of the answer of `/v1/health/service/<name>`."""

    node: Node
    service: Service
    checks: list[Check]


class Found(NamedTuple):
    """An instance that Consul knows.

    Attributes:
        key: its node and service id, the same in every answer.
        instance: without the identity when it is Consul's.
        native: the path of the SPIFFE ID its certificate has from Consul's CA, "": it has none.
    """

    key: tuple[str, str]
    instance: Instance
    native: str


class Health(NamedTuple):
    """The instances of one answer, what was passed over, in words, and whether any instance is native."""

    found: tuple[Found, ...]
    warnings: tuple[str, ...]
    native: bool = False


def service_id(instance: Instance) -> str:
    """The id it is registered under, unique on its agent."""
    return f"{instance.service}-{instance.id}"


def check_id(instance: Instance) -> str:
    """The id of the check by which it says that it is alive."""
    return f"meshlib:{service_id(instance)}"


def native_path(service: str, datacenter: str) -> str:
    """The path of the SPIFFE ID that Consul's CA gives to a service."""
    return f"/ns/default/dc/{datacenter}/svc/{service}"


def definition(instance: Instance, ttl: float, settings: ConsulSettings, *, native: bool) -> dict[str, Any]:
    """The arguments of py-consul's `agent.service.register`.

    Args:
        instance: what to announce.
        ttl: seconds it lasts without renewal; an HTTP check is made this often in a third of it.
        settings: which check, tags, weights.
        native: whether its identity is of this Consul's CA.

    Raises:
        SettingsError: its labels don't fit into what Consul can hold.
    """
    check: dict[str, Any] = {
        "CheckID": check_id(instance),
        "Name": "meshlib",
        "Status": "passing" if instance.healthy else "critical",
        "DeregisterCriticalServiceAfter": _go(settings.deregister_after),
    }
    if settings.check == "ttl":
        check["TTL"] = _go(ttl)
    else:
        host = _WILDCARDS.get(instance.host, instance.host)
        host = f"[{host}]" if ":" in host else host
        check["HTTP"] = f"http://{host}:{instance.port}{settings.check}"
        check |= {"Status": "passing", "Interval": _go(max(ttl / 3, 1.0)), "Timeout": _go(max(ttl / 3, 1.0))}
    return {
        "name": instance.service,
        "service_id": service_id(instance),
        # Without one an instance has the address of its machine.
        "address": "" if instance.host in _WILDCARDS else instance.host,
        "port": instance.port,
        "tags": list(settings.tags),
        "meta": _meta(instance, native),
        "weights": {"passing": instance.weight, "warning": settings.warning_weight},
        "check": check,
        "connect": {"native": True} if native else None,
        "replace_existing_checks": True,
    }


def _go(seconds: float) -> str:
    """A duration as Go reads it."""
    return f"{max(1, round(seconds * 1000))}ms"


def _meta(instance: Instance, native: bool) -> dict[str, str]:
    own = {
        "meshlib-namespace": "" if instance.namespace == "default" else instance.namespace,
        "meshlib-locality": instance.locality,
        "meshlib-identity": "" if native else instance.identity,
    }
    meta = {key: value for key, value in own.items() if value}
    plain = {key: value for key, value in instance.labels.items() if _is_plain(key, value)}
    packed = {key: value for key, value in instance.labels.items() if key not in plain}
    while plain and len(plain) > MAX_META - len(meta) - len(_parts(packed)):
        key = max(plain)
        packed[key] = plain.pop(key)
    meta |= plain
    meta |= {f"{_PACKED}{number}": part for number, part in enumerate(_parts(packed))}
    if len(meta) > MAX_META or any(len(value.encode()) > MAX_META_BYTES for value in meta.values()):
        raise SettingsError(
            f"the labels, locality or identity of {instance.service} are too long for Consul,"
            f" which holds {MAX_META} entries of {MAX_META_BYTES} bytes; shorten them (MESHLIB_LABELS)"
        )
    return meta


def _is_plain(key: str, value: str) -> bool:
    fits = len(value.encode()) <= MAX_META_BYTES
    return fits and bool(_PLAIN_KEY.fullmatch(key)) and not key.lower().startswith(_RESERVED)


def _parts(labels: Mapping[str, str]) -> list[str]:
    if not labels:
        return []
    text = json.dumps(labels, sort_keys=True, separators=(",", ":"))
    return [text[start : start + MAX_META_BYTES] for start in range(0, len(text), MAX_META_BYTES)]


_decode = msgspec.json.Decoder(list[Entry]).decode


def health_of(answer: bytes, datacenter: str = "") -> Health:
    """The instances in an answer of `/v1/health/service/<name>`.

    One whose lease ran out is gone. One that something else than its lease speaks against (its machine, another check,
    itself) is there and not healthy; in warning, it has its weight for warnings. Proxies and gateways are no instances.

    Args:
        answer: as it came.
        datacenter: that was asked for, "": the agent's own.

    Raises:
        ValueError: it isn't such an answer.
    """
    entries = _decode(answer)
    if len(entries) > MAX_INSTANCES:
        raise ValueError(f"{len(entries)} instances; at most {MAX_INSTANCES} are taken")
    found, warnings = [], []
    lower = {entry.service.service for entry in entries if entry.service.service.islower()}
    for entry in entries:
        if entry.service.kind or _is_gone(entry):
            continue
        name = entry.service.service
        if name not in lower and name.lower() in lower:
            # Consul's lists know no case and its ACLs do: the right to write `Web` is none to write `web`.
            warnings.append(f"{name} ({entry.service.id} on {entry.node.node}) is passed over: it isn't {name.lower()}")
            continue
        try:
            found.append(_found(entry, datacenter))
        except (SettingsError, ValueError) as error:
            warnings.append(
                f"{entry.service.service} ({entry.service.id} on {entry.node.node}) is passed over: {error}"
            )
    return Health(tuple(found), tuple(warnings[:MAX_WARNINGS]), any(one.native for one in found))


def _is_gone(entry: Entry) -> bool:
    """Whether its lease, a check of ours, ran out: nobody says any more that it is there."""
    own = f"meshlib:{entry.service.id}"
    return any(
        check.check_id == own and check.status == "critical" and check.output.startswith(_RAN_OUT)
        for check in entry.checks
    )


def _found(entry: Entry, datacenter: str) -> Found:
    service, meta = entry.service, entry.service.meta or {}
    statuses = {check.status for check in entry.checks}
    weight = service.weights.warning if "warning" in statuses else service.weights.passing
    instance = Instance(
        service.service.lower(),
        service.address or entry.node.address,
        service.port,
        namespace=meta.get("meshlib-namespace") or "default",
        id=_lease_id(service),
        weight=min(max(weight, 1), 65535),
        labels=_labels(meta),
        locality=meta.get("meshlib-locality", ""),
        # Consul's own DNS gives no instance of weight 0 either.
        healthy=weight > 0 and statuses <= {"passing", "warning"},
        identity=meta.get("meshlib-identity", ""),
        datacenter=datacenter,
    )
    native = ""
    if service.connect is not None and service.connect.native:
        # What Consul's CA signs is derived, and never what somebody wrote into Meta.
        instance = msgspec.structs.replace(instance, identity="")
        native = native_path(service.service, entry.node.datacenter)
    return Found((entry.node.node, service.id), instance, native)


def _lease_id(service: Service) -> str:
    name = service.id.removeprefix(f"{service.service}-")
    return (
        name if re.fullmatch(r"[A-Za-z0-9\[][A-Za-z0-9._:%\[\]-]{0,261}", name) else "id-" + name.encode().hex()[:250]
    )


def _labels(meta: Mapping[str, str]) -> dict[str, str]:
    plain = {key: value for key, value in meta.items() if not key.startswith(_RESERVED) and len(value) <= 253}
    return dict(list((plain | _unpacked(meta)).items())[:MAX_LABELS])


def _unpacked(meta: Mapping[str, str]) -> dict[str, str]:
    if f"{_PACKED}0" not in meta:
        return {}  # as ever, but for strange labels
    parts: Iterable[str] = (meta[key] for key in (f"{_PACKED}{number}" for number in range(MAX_META)) if key in meta)
    return msgspec.json.decode("".join(parts).encode(), type=dict[str, str])
