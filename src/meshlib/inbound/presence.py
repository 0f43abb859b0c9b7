"""Being in the registry: from when the server listens until it is told to go."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from meshlib.errors import RegistryError, SettingsError
from meshlib.inbound.listening import Address, choose, listening

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

__all__ = ["Presence"]

log = logging.getLogger("meshlib.inbound")

LOOK_EVERY = 0.05
PATIENCE = 1.0
"""Seconds a new listening socket is waited for before those that were inherited count."""

WATCH_FOR = 60.0


class Presence:
    """This process's entry in the registry.

    Args:
        mesh: it has a service name.

    Attributes:
        begun: whether a server is being waited for, or was found.
        registered: whether it was ever registered.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.begun = False
        self.registered = False
        self._mesh = mesh
        self._leaving = threading.Event()
        self._lock = threading.Lock()

    def watch(
        self, inherited: Collection[Address], known: Collection[Address], then: Callable[[], None] | None = None
    ) -> None:
        """Register once the server listens. A thread looks, for a minute at most.

        Args:
            inherited: what was listened on before the application started. A worker's socket is its master's, so
                these count when no new one appears.
            known: what is listened on now. More than `inherited` are the application's own, such as an exporter's.
            then: called on that thread when it has registered.
        """
        self.begun = True

        def run() -> None:
            self._watch(frozenset(inherited), frozenset(known))
            if self.registered and then is not None:
                then()

        threading.Thread(target=run, name="meshlib-presence", daemon=True).start()

    def _watch(self, inherited: frozenset[Address], known: frozenset[Address]) -> None:
        began = time.monotonic()
        before: frozenset[Address] = frozenset()
        while not self._leaving.wait(LOOK_EVERY):
            waited = time.monotonic() - began
            now = listening()
            found = now - known
            if waited >= PATIENCE:
                found = found or now & inherited
                if self._mesh.settings.address is not None:
                    found = found or frozenset((self._mesh.settings.address,))
            if found and found == before:  # seen twice: a server may open several, one after the other
                self._settle(found)
                return
            if waited >= WATCH_FOR:
                log.error(
                    "%s isn't registered: this process listens on no TCP socket after %d s; set MESHLIB_ADDRESS",
                    self._mesh.settings.service,
                    WATCH_FOR,
                )
                return
            before = found

    def _settle(self, found: frozenset[Address]) -> None:
        settings = self._mesh.settings
        address = settings.address or choose(found, of_machine=settings.registry.startswith("consul:"))
        if address is None:
            log.error(
                "%s isn't registered: this process listens on %s; set MESHLIB_ADDRESS to the one others should call",
                settings.service,
                ", ".join(sorted(f"{host}:{port}" for host, port in found)),
            )
        else:
            self.register(address)

    def register(self, address: Address) -> None:
        """Register at `address`, unless this process is leaving."""
        self.begun = True
        with self._lock:
            if self._leaving.is_set():
                return
            try:
                self._mesh.serve(address)
            except SettingsError as error:
                log.error("%s isn't registered at %s:%d: %s", self._mesh.settings.service, *address, error)
            else:
                self.registered = True

    @property
    def leaving(self) -> bool:
        """Whether this process was told to go."""
        return self._leaving.is_set()

    @property
    def drain_wait(self) -> float | None:
        """Seconds between leaving and the end, as the InboundPolicy in force has it; None: it doesn't say."""
        plan = self._mesh.plan
        return None if plan is None else plan.inbound.policy.drain_wait

    def leave(self) -> None:
        """Withdraw, for good. It waits for the registry, at most 2 s."""
        self._leaving.set()
        with self._lock:
            if not self.registered:
                return
            try:
                self._mesh.withdraw()
            except RegistryError as error:
                log.warning("%s", error)
