"""What runs behind a mesh: the plan in force, the agent that keeps it so, the identity of the process."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, TypeVar

from meshlib.agent.agent import Agent
from meshlib.agent.breakers import BreakerBridge
from meshlib.agent.lastgood import LastGood
from meshlib.agent.lookups import Lookups
from meshlib.agent.redislimits import counts_for
from meshlib.errors import RegistryError
from meshlib.identity.keeper import Identity
from meshlib.identity.keys import IssuerKeysKeeper
from meshlib.identity.outgoing import PeerContexts
from meshlib.identity.sources import open_source
from meshlib.plan.compile import compile_plan
from meshlib.plan.plan import Plan
from meshlib.plan.snapshot import Snapshot
from meshlib.policy.strategy import RetryStrategy
from meshlib.registries.base import Instance, Registry
from meshlib.settings import Settings
from meshlib.state.decisions import Decisions
from meshlib.state.store import StateStore
from meshlib.waiting import Flag

__all__ = ["OPEN_WAIT", "Choices", "Running"]

OPEN_WAIT = 5.0
"""Seconds from its start that a mesh's first calls wait for the first configuration, and the first certificate."""

CLOSE_WAIT = 2.0

FILES_EVERY = 5.0
"""Seconds between two looks at the certificate files that documents name."""


class Part(Protocol):
    """What belongs to a mesh and is made when it is first needed."""

    def close(self) -> None:
        """The mesh is closed; it may be opened again."""


PartT = TypeVar("PartT", bound=Part)


class Choices(NamedTuple):
    """What code chose, beside the settings.

    Attributes:
        make_registry: opens the registry, on the agent's thread.
        make_bridge: to pybreaker's listeners and storage.
        strict: refuse documents with fields that are only approximated or ignored.
        strategy: the user's own way to wait and stop.
    """

    make_registry: Callable[[], Registry]
    make_bridge: Callable[[], BreakerBridge]
    strict: bool = False
    strategy: RetryStrategy | None = None


class Running:
    """Starts when it is first needed, may be closed and begun again, and lives through a fork. Thread-safe.

    Attributes:
        settings: as they were when it was made.
        plan: in force now; None before the first is there, and in a forked child until it is needed.
        identity: of this process; None: it has none.
        peers: the TLS contexts of connections to others.
        keys: of the issuers whose tokens are taken.
        counts: counts requests on limits that processes share.
        takes_tls: whether this process's server takes TLS with our identity, so that others may be told of it.
    """

    def __init__(self, settings: Settings, choices: Choices) -> None:
        self.settings = settings
        self.plan: Plan | None = None
        self.identity = _identity(settings)
        self.peers = PeerContexts(self.identity)
        self.counts = counts_for(settings)
        self.takes_tls = False
        self._choices = choices
        self._bridge = choices.make_bridge()
        self._snapshot: Snapshot | None = None
        self._held: Plan | None = None  # the newest, while plans are held back
        self._holding = False  # until there is an identity to live by them
        self._store = StateStore()
        self.keys = self._new_keys()
        self._agent: Agent | None = None
        self._lookups = self._new_lookups()
        self._lock = threading.RLock()
        self._session = object()  # another one with each closing: what comes late from the agent before is passed over
        self._served: tuple[str, int] | None = None
        self._parts: dict[type[Any], Any] = {}

    @property
    def decisions(self) -> Decisions:
        """What became of requests coming in, counted."""
        return self._store.inbound.decisions

    @property
    def resumes(self) -> bool:
        """Whether there is no plan yet in a process forked from one that had a plan: `ready` gives the same."""
        return self.plan is None and self._snapshot is not None

    @property
    def begins_empty(self) -> bool:
        """Whether there is no plan because nobody has made the registry yet: so nothing in it forbids anything."""
        agent = self._agent
        return agent is not None and agent.begins_empty

    def part(self, kind: type[PartT]) -> PartT:
        """The mesh's only `kind`, made as `kind(mesh)` when it is first asked for, and closed with the mesh."""
        with self._lock:
            found = self._parts.get(kind)
            if found is None:
                found = self._parts[kind] = kind(self)  # type: ignore[call-arg]  # every part takes its mesh
            return found

    def ready(self) -> Plan:
        """The plan in force; starts the agent if need be."""
        while (plan := self._first_plan()) is None:
            pass
        return plan

    async def aready(self) -> Plan:
        """`ready` without blocking the event loop."""
        while (plan := await self._afirst_plan()) is None:
            pass
        return plan

    def _first_plan(self) -> Plan | None:
        """The plan in force, once there is one; None: the mesh was closed meanwhile, and may be opened again."""
        first = self.plan is None  # also in a forked child, which has a plan at once and a certificate of before
        agent = self._started()
        for flag, seconds in self._first_waits(agent) if first else ():
            flag.wait(seconds)
        return self._plan_with(agent)

    async def _afirst_plan(self) -> Plan | None:
        first = self.plan is None
        agent = await self._astarted()
        for flag, seconds in self._first_waits(agent) if first else ():
            await flag.sleep(seconds)
        return self._plan_with(agent)

    def _first_waits(self, agent: Agent) -> Iterator[tuple[Flag, float]]:
        """What the first calls wait for, and how long: all of them to the same moment."""
        until = agent.began + OPEN_WAIT
        if self.plan is None and self._held is None:
            yield agent.published, until - time.monotonic()
        if self.identity is not None:
            yield self.identity.settled, until - time.monotonic()

    def _plan_with(self, agent: Agent) -> Plan | None:
        self._let_go()
        plan = self.plan
        if plan is None and agent is self._agent:
            # Without any configuration every host is outside the mesh; `status` and the log say why.
            plan = Plan("none", {}, (), {}, allow_any=self._allow_any)
        return plan

    def look_up(self, name: str) -> Plan:
        """The plan in force when the registry has said what it knows of the service `name`, or doesn't say in time."""
        agent = self._started()
        self._lookups.wait(name, agent.want, lambda: agent.configuration.trouble is not None)
        return self.ready()

    async def alook_up(self, name: str) -> Plan:
        """`look_up` without blocking the event loop."""
        agent = await self._astarted()
        await self._lookups.sleep(name, agent.want, lambda: agent.configuration.trouble is not None)
        return await self.aready()

    async def _astarted(self) -> Agent:
        agent = self._agent
        if agent is None:
            import anyio.to_thread

            # Starting takes a lock that is held while a plan is compiled.
            agent = await anyio.to_thread.run_sync(self._started, abandon_on_cancel=True)
        return agent

    def _started(self) -> Agent:
        with self._lock:
            if self._agent is None:
                publish = functools.partial(self._publish, self._session)
                self._holding = self.identity is not None and not self.identity.settled.is_set()
                if self._snapshot is not None:
                    publish(self._snapshot)
                settings = self.settings
                chores = [self._bridge.run, self._look_at_files, self.keys.run]
                if self.identity is not None:
                    chores += [self.identity.run, functools.partial(self._hold, self.identity.settled, self._session)]
                self._agent = Agent(
                    self._choices.make_registry,
                    publish,
                    LastGood(settings.state_dir, settings.registry, settings.namespace, settings.service),
                    strict=self._choices.strict,
                    serves=settings.service is not None,
                    chores=chores,
                )
                if self._served is not None:
                    self._announce(self._agent, *self._served)
            return self._agent

    async def _look_at_files(self) -> None:
        """Take in certificate files that documents name, when they change: a chore of the agent's."""
        while True:
            await asyncio.sleep(FILES_EVERY)
            self.peers.refresh()

    async def _hold(self, settled: Flag, session: object) -> None:
        """Keep plans back until there is a certificate, for a while: a chore of the agent's.

        A call by the first plan would find peers that it can't show itself to.
        """
        await settled.sleep(OPEN_WAIT)
        if session is self._session:
            self._let_go()

    def _let_go(self) -> None:
        if self._holding:
            with self._lock:
                self._holding, held, self._held = False, self._held, None
                self.plan = self.plan or held

    @property
    def _allow_any(self) -> bool:
        return self.settings.outbound == "allow-any"

    def _publish(self, session: object, snapshot: Snapshot) -> None:
        # The lock keeps the store to one writer at a time, and closing from being undone by a plan on its way.
        with self._lock:
            if session is not self._session:
                return
            plan = compile_plan(
                snapshot,
                self.settings.namespace,
                self._store,
                time.monotonic(),
                random.random,
                allow_any=self._allow_any,
                strategy=self._choices.strategy,
                identity=self.identity is not None,
                service=self.settings.service,
                labels=self.settings.labels,
                caller=socket.gethostname(),
            )
            self._bridge.attach(plan)
            self.keys.look()
            self.peers.prepare({peer for cluster in plan.clusters.values() for peer in cluster.peers.values()})
            self._snapshot = snapshot
            if self._holding:
                self._held = plan
            else:
                self.plan = plan
            if plan.wanted and self._agent is not None:
                self._agent.want(plan.wanted)
        self._lookups.published()

    def close(self) -> None:
        """Withdraw, stop the agent, forget the plan. Using the mesh again opens it again."""
        with self._lock:
            agent, self._agent = self._agent, None
            self._session = object()
            self.plan = self._held = self._snapshot = None
            self._served = None
            parts = list(self._parts.values())
        for part in parts:
            part.close()
        if agent is not None:
            agent.close(CLOSE_WAIT)
        self.counts.close()

    def _announce(self, agent: Agent, host: str, port: int) -> None:
        settings = self.settings
        instance = Instance(
            service=settings.service or "",
            host=host,
            port=port,
            namespace=settings.namespace,
            labels=settings.labels,
            locality=settings.locality,
        )
        agent.register(instance, self._spiffe_id if self.takes_tls and self.identity is not None else None)

    def _spiffe_id(self) -> str:
        """The identity to announce, "" as long as there is none."""
        material = self.identity.material if self.identity is not None else None
        return "" if material is None else str(material.id)

    def withdraw(self) -> None:
        """Take this service out of the registry; calls already on their way to it are still welcome.

        Raises:
            RegistryError: the registry doesn't take it; the registration expires by itself.
        """
        with self._lock:  # begun under it: a mesh that is closed beside it ends after it
            self._served = None
            leaving = self._agent.withdraw() if self._agent is not None else None
        if leaving is not None:
            try:
                leaving.result(CLOSE_WAIT)
            except (TimeoutError, concurrent.futures.CancelledError):  # the latter: closing had no more patience
                problem = f"didn't take the withdrawal of {self.settings.service} within {CLOSE_WAIT:g} s"
                raise RegistryError(self.settings.registry, problem, "it will expire by itself") from None

    def _new_keys(self) -> IssuerKeysKeeper:
        # A pure client has the documents of the whole mesh, too, and no callers.
        return IssuerKeysKeeper(self._store.inbound.tokens, eager=self.settings.service is not None)

    def _new_lookups(self) -> Lookups:
        return Lookups(lambda: self.plan)

    def _after_fork(self) -> None:
        """In a child: the agent's thread is gone, its locks may be held, and what is in flight is the parent's."""
        self._lock = threading.RLock()
        self._agent = None
        self._served = None
        self._store = StateStore()
        self.keys = self._new_keys()
        self._bridge = self._choices.make_bridge()
        self._lookups = self._new_lookups()
        if self.identity is not None:
            self.identity.after_fork()
        self.peers.after_fork()
        self.counts.after_fork()
        self.plan = self._held = None


def _identity(settings: Settings) -> Identity | None:
    if settings.identity == "none":
        return None
    url, service, registry = settings.identity, settings.service, settings.registry
    return Identity(lambda: open_source(url, service=service, registry=registry), url)
