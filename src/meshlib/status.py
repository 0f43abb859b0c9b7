"""What is in force, how old it is, and what is wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from meshlib.agent.agent import Agent
    from meshlib.identity.keeper import Identity
    from meshlib.plan.plan import Plan
    from meshlib.resources import FieldNote
    from meshlib.settings import Settings
    from meshlib.state.decisions import DecisionCount

__all__ = ["Status", "status_of"]


class Status(NamedTuple):
    """The state of a mesh. `str()` is the readable form.

    Attributes:
        registry: its URL.
        namespace: of this process.
        version: of the configuration in force, "" when there is none.
        source: where it came from: `registry`, `disk` (the last good one) or `none`.
        age: seconds since the plan in force was published; None when there is none.
        hosts: names the mesh knows.
        endpoints: in all clusters.
        error: what is wrong with the registry or the documents, "" when nothing is.
        error_age: seconds it has been so; None when nothing is wrong.
        registered: `host:port` this process is registered at.
        registration_error: why it isn't, or couldn't be renewed.
        identity: the SPIFFE ID of this process, "" when it has none.
        identity_left: seconds its certificate is valid yet; None when there is none.
        identity_error: what there is to say against it: that it ends soon, or why no newer one can be had.
        keys_error: whose tokens can't be verified, or by old keys only, and why; "" when there is nothing to say.
        limits_error: why GLOBAL rate limits aren't counted, "" when they are or there are none.
        notes: document fields that are approximated or ignored.
        warnings: what the registry passed over, or isn't allowed to read.
        decisions: how often requests came in or were denied, and by what.
    """

    registry: str
    namespace: str
    version: str = ""
    source: str = "none"
    age: float | None = None
    hosts: int = 0
    endpoints: int = 0
    error: str = ""
    error_age: float | None = None
    registered: tuple[str, ...] = ()
    registration_error: str = ""
    identity: str = ""
    identity_left: float | None = None
    identity_error: str = ""
    keys_error: str = ""
    limits_error: str = ""
    notes: tuple[FieldNote, ...] = ()
    warnings: tuple[str, ...] = ()
    decisions: tuple[DecisionCount, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether a configuration is in force and nothing is wrong."""
        wrong = self.error, self.registration_error, self.identity_error, self.keys_error, self.limits_error
        return bool(self.version) and not any(wrong)

    def __str__(self) -> str:
        return "\n".join(f"{name:16}{value}" for name, value in self._lines() if value)

    def _lines(self) -> Iterator[tuple[str, str]]:
        yield "registry", self.registry
        yield "namespace", self.namespace
        age = "" if self.age is None else f", for {self.age:.1f} s"
        yield "configuration", f"{self.version} from {self.source}{age}" if self.version else "none yet"
        yield "endpoints", f"{self.endpoints}, under {self.hosts} names"
        yield "registered", ", ".join(self.registered)
        yield "registering", self.registration_error
        left = "" if self.identity_left is None else f", for {self.identity_left:.0f} s more"
        yield "identity", f"{self.identity}{left}"
        yield "certificates", self.identity_error
        yield "tokens", self.keys_error
        yield "limits", self.limits_error
        yield "wrong", "" if self.error_age is None else f"for {self.error_age:.1f} s: {self.error}"
        for warning in self.warnings:
            yield "warning", warning
        for note in self.notes:
            yield "note", str(note)
        for one in self.decisions:
            named = " ".join(filter(None, (one.code, one.by)))
            yield one.kind, f"{one.times}{f' by {named}' if named else ''}"


def status_of(
    settings: Settings,
    plan: Plan | None,
    agent: Agent | None,
    identity: Identity | None,
    now: float,
    limits_error: str = "",
    keys_error: str = "",
) -> Status:
    """The status at `now` (monotonic seconds)."""
    status = Status(settings.registry, settings.namespace, keys_error=keys_error, limits_error=limits_error)
    if plan is not None:
        endpoints = sum(len(cluster.endpoints) for cluster in plan.clusters.values())
        status = status._replace(version=plan.version, hosts=len(plan.hosts), endpoints=endpoints)
    if identity is not None:
        status = _with_identity(status, identity)
    if agent is None:
        return status
    configuration = agent.configuration
    troubles = [trouble for trouble in (configuration.trouble, configuration.invalid) if trouble is not None]
    registrations = agent.registrations
    return status._replace(
        source="none" if plan is None else "disk" if agent.from_disk else "registry",
        age=None if configuration.changed_at is None else now - configuration.changed_at,
        error="\n".join(str(trouble.error) for trouble in troubles),
        error_age=now - min(trouble.since for trouble in troubles) if troubles else None,
        registered=tuple(f"{one.instance.host}:{one.instance.port}" for one in registrations if one.lease is not None),
        registration_error="\n".join(str(one.error) for one in registrations if one.error is not None),
        notes=configuration.notes,
        warnings=configuration.warnings,
    )


def _with_identity(status: Status, identity: Identity) -> Status:
    material = identity.material
    return status._replace(
        identity="" if material is None else str(material.id),
        identity_left=None if material is None else material.not_after - time.time(),
        identity_error=identity.trouble(time.time()),
    )
