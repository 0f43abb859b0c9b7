"""The contract of every registry, and what all of them share: instances, leases, updates, merging and polling.

A registry says who is there (instances, each held by a *lease* that must be renewed) and what is wanted (documents).
It runs on the agent's thread only, on the agent's own asyncio loop.

Time. No registry compares a lease with the reader's clock: **a registry's newest renewal is its clock**. A lease is
expired when others have gone on renewing for longer than its ttl without it. So when nobody can write, because the disk
is full or the registry locked, nobody expires; and when one process dies, the heartbeats of the others carry it out.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

import msgspec

from meshlib.errors import RegistryError, SettingsError
from meshlib.resources.documents import Source
from meshlib.resources.intentions import Intentions

if TYPE_CHECKING:
    from meshlib.resources import Resource, ResourceKey

__all__ = [
    "DEFAULT_TTL",
    "EMPTY",
    "MAX_DOCUMENTS",
    "MAX_DOCUMENT_BYTES",
    "MAX_INSTANCES",
    "POLL_INTERVAL",
    "SWEEP_AFTER",
    "Instance",
    "Lease",
    "Registry",
    "Update",
    "address",
    "make_update",
    "merge",
    "new_id",
    "poll",
]

DEFAULT_TTL = 10.0
"""Seconds a lease lasts without renewal. Consul's shortest TTL; three missed renewals of ttl/3 take an instance out."""

SWEEP_AFTER = 10
"""How many ttls after its last renewal a lease is erased from the registry, and not merely passed over."""

POLL_INTERVAL = 0.2
"""Seconds between two looks at a polled registry: a change is in force within 1 s even when it takes two looks."""

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
MAX_DOCUMENTS = 10_000
MAX_INSTANCES = 100_000
MAX_LABELS = 64

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ID = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:%\[\]-]{0,261}")
_HOST = re.compile(r"[A-Za-z0-9:][A-Za-z0-9._:%-]{0,252}")
_DATACENTER = re.compile(r"[a-z0-9_-]{1,63}")
_TEXT_LONG = re.compile(r"[^\x00-\x1f\x7f]{0,2048}")
_TEXT = re.compile(r"[^\x00-\x1f\x7f]{0,253}")


def new_id() -> str:
    """An id for a lease, unlike any other; a forked child needs one of its own."""
    return uuid.uuid4().hex


class Instance(msgspec.Struct, frozen=True):
    """One process that serves one service at one address.

    Attributes:
        service: its service's name, a DNS label.
        host: address others reach it at, without a port.
        port: 1 to 65535.
        namespace: its service's namespace, a DNS label.
        id: the lease's, unique per process: several workers may register the same address.
        weight: 1 to 65535, share of traffic relative to its peers.
        labels: at most 64, e.g. `{"version": "v2"}`.
        locality: `region/zone/subzone`, "" when unknown.
        healthy: what the process says of itself.
        identity: the SPIFFE ID it serves mTLS with, "": it takes plain connections.
        datacenter: where it is, "": where this registry is. Elsewhere's are `<service>.service.<datacenter>.consul`.

    Raises:
        SettingsError: a value is not allowed; the message names the field.
    """

    service: str
    host: str
    port: int
    namespace: str = "default"
    id: str = msgspec.field(default_factory=new_id)
    weight: int = 1
    labels: Mapping[str, str] = {}
    locality: str = ""
    healthy: bool = True
    identity: str = ""
    datacenter: str = ""

    def __post_init__(self) -> None:
        name = "a DNS label: up to 63 of a-z, 0-9 and -, no - at the ends"
        text = "at most 253 characters without control characters"
        self._check("service", self.service, _LABEL, name)
        self._check("namespace", self.namespace, _LABEL, name)
        self._check("host", self.host, _HOST, "a host name or an IP address without a port")
        self._check("id", self.id, _ID, "up to 262 of letters, digits, '.', '_', ':' and '-'")
        self._check("locality", self.locality, _TEXT, text)
        self._check("identity", self.identity, _TEXT_LONG, "a SPIFFE ID of at most 2048 characters")
        if self.datacenter:
            self._check("datacenter", self.datacenter, _DATACENTER, "lower case letters, digits, '-' and '_'")
        for field, number in (("port", self.port), ("weight", self.weight)):
            if not 1 <= number <= 65535:
                raise SettingsError(f"{field} of an instance is {number}; expected 1 to 65535")
        if len(self.labels) > MAX_LABELS:
            raise SettingsError(f"an instance has {len(self.labels)} labels; at most {MAX_LABELS} are allowed")
        for key, value in self.labels.items():
            self._check("a label's name", key, _TEXT, text)
            self._check(f"label {key}", value, _TEXT, text)

    @staticmethod
    def _check(field: str, value: str, pattern: re.Pattern[str], expected: str) -> None:
        if not pattern.fullmatch(value):
            raise SettingsError(f"{field} of an instance is {value[:80]!r}; expected {expected}")


class Update(msgspec.Struct, frozen=True):
    """One complete snapshot of a registry.

    Attributes:
        instances: in the order of their names, leases of one address merged into one.
        sources: the documents, each with the place it comes from.
        version: changes exactly when instances or sources do.
        warnings: what was passed over, in words.
        asked: the full names of the hosts this snapshot speaks of, where a registry only tells of those it was asked
            for (see `Registry.want`); None: of every host there is.
        intentions: who may call the service this process is; None: the registry has no say in it.
    """

    instances: tuple[Instance, ...]
    sources: tuple[Source, ...]
    version: str
    warnings: tuple[str, ...] = ()
    asked: frozenset[str] | None = None
    intentions: Intentions | None = None


class Lease:
    """A registration that lasts as long as it is renewed.

    Attributes:
        instance: what is registered now.
        ttl: seconds it lasts without renewal.
    """

    __slots__ = ("_put", "_remove", "_withdrawn", "instance", "ttl")

    def __init__(
        self,
        instance: Instance,
        ttl: float,
        put: Callable[[Instance, float], Awaitable[None]],
        remove: Callable[[Instance], Awaitable[None]],
    ) -> None:
        """A lease whose entry `put` writes, creating it when it isn't there, and `remove` takes out."""
        self.instance = instance
        self.ttl = ttl
        self._put = put
        self._remove = remove
        self._withdrawn = False

    @property
    def interval(self) -> float:
        """Seconds between renewals: a third of `ttl`, so that two may fail."""
        return self.ttl / 3

    async def renew(self) -> None:
        """Say that the process is alive; puts the entry back if it is gone. Raises RegistryError."""
        if not self._withdrawn:
            await self._put(self.instance, self.ttl)

    async def set_healthy(self, healthy: bool) -> None:
        """Change the health flag for everybody. Raises RegistryError; the next renewal then brings it along."""
        self.instance = msgspec.structs.replace(self.instance, healthy=healthy)
        await self.renew()

    async def withdraw(self) -> None:
        """Take the entry out now; later renewals do nothing. Raises RegistryError; the entry then expires."""
        self._withdrawn = True
        await self._remove(self.instance)


class Registry(Protocol):
    """Where snapshots come from, and where processes register."""

    @property
    def url(self) -> str:
        """The URL it was opened with, in its full form."""

    def watch(self) -> AsyncGenerator[Update | RegistryError, None]:
        """Every state of the registry from now on, the first at once.

        Snapshots are complete, never torn. An error is yielded as a value, once per change of error, and the iteration
        goes on; when the registry has recovered, its snapshot is yielded again even if nothing in it changed.
        """

    async def want(self, hosts: Iterable[str]) -> None:
        """From now on watch the services with these full names too, as `reviews.default.svc.cluster.local`.

        Returns at once; `watch` yields a snapshot whose `asked` has each name when its first answer is there, be it
        that there is no such service. Registries that tell of everything do nothing. Names that can't be a service's
        here are asked and have nothing.
        """

    async def register(self, instance: Instance, ttl: float = DEFAULT_TTL) -> Lease:
        """Announce `instance` for `ttl` seconds. Raises RegistryError."""

    async def apply(self, resources: Iterable[Resource]) -> None:
        """Create or replace documents, all or none. Raises RegistryError."""

    async def delete(self, keys: Iterable[ResourceKey]) -> tuple[ResourceKey, ...]:
        """Delete documents and say which were there. Raises RegistryError."""

    async def snapshot(self) -> Update:
        """Read the registry once. Raises RegistryError."""

    async def aclose(self) -> None:
        """Let go of files and connections. Leases are not withdrawn."""


def address(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def merge(leases: Iterable[Instance]) -> tuple[tuple[Instance, ...], tuple[str, ...]]:
    """One instance per address of a service, and warnings about leases that contradict each other.

    The workers of one server register the same address. The greatest weight counts, one healthy worker makes the
    address healthy, and labels and locality are those of the least lease id. So is the identity, of the leases that
    announce one: a lease that is of before, or of somebody else, brings nobody back to plain text. The merged id is the
    address, so that nothing changes when a worker is replaced.
    """
    groups: dict[tuple[str, str, str, str, int], list[Instance]] = {}
    for lease in leases:
        groups.setdefault((lease.namespace, lease.service, lease.datacenter, lease.host, lease.port), []).append(lease)
    merged, warnings = [], []
    for key in sorted(groups):
        group = groups[key]
        first = min(group, key=lambda lease: lease.id)
        where = address(first.host, first.port)
        if any(lease.labels != first.labels or lease.locality != first.locality for lease in group):
            warnings.append(
                f"{first.namespace}/{first.service} at {where} is registered with different labels or localities; "
                f"those of lease {first.id} are used"
            )
        identified = sorted((lease.id, lease.identity) for lease in group if lease.identity)
        if any(lease.identity != first.identity for lease in group):
            warnings.append(
                f"{first.namespace}/{first.service} at {where} is registered with different identities; "
                f"that of lease {identified[0][0]} is used"
            )
        merged.append(
            msgspec.structs.replace(
                first,
                id=where,
                weight=max(lease.weight for lease in group),
                healthy=any(lease.healthy for lease in group),
                identity=identified[0][1] if identified else "",
            )
        )
    return tuple(merged), tuple(warnings)


def make_update(
    leases: Iterable[Instance],
    sources: Sequence[Source],
    warnings: Sequence[str] = (),
    *,
    asked: frozenset[str] | None = None,
    intentions: Intentions | None = None,
) -> Update:
    """The snapshot made of live leases and documents; `sources` must come in an order of their own."""
    instances, contradictions = merge(leases)
    digest = blake2b(_encoder.encode(instances), digest_size=12)
    for origin, text in sources:
        # Lengths go first, so that no two different lists of documents run together into the same bytes.
        digest.update(b"%d %d " % (len(origin.encode()), len(text)))
        digest.update(origin.encode())
        digest.update(text)
    if asked is not None or intentions is not None:
        digest.update(_encoder.encode((sorted(asked or ()), intentions)))
    return Update(
        instances, tuple(sources), digest.hexdigest(), (*warnings, *contradictions), asked=asked, intentions=intentions
    )


_encoder = msgspec.json.Encoder(order="deterministic")

EMPTY = make_update((), ())
"""The snapshot of a registry with nobody and nothing in it."""


async def poll(
    look: Callable[[bool], Update | None], interval: float = POLL_INTERVAL
) -> AsyncGenerator[Update | RegistryError, None]:
    """Watch by looking every `interval` seconds.

    Args:
        look: gives the whole snapshot, or None when nothing can have changed since it last gave one; when it is called
            with True, the snapshot is wanted anyhow. May raise RegistryError.
        interval: seconds between two looks.
    """
    last: Update | None = None
    trouble = ""
    while True:
        try:
            update = look(last is None or bool(trouble))
        except RegistryError as error:
            if str(error) != trouble:
                trouble = str(error)
                yield error
        else:
            if update is not None and (trouble or last is None or not _same(update, last)):
                yield update
            if update is not None:
                last, trouble = update, ""
        await asyncio.sleep(interval)


def _same(one: Update, other: Update) -> bool:
    return one.version == other.version and one.warnings == other.warnings
