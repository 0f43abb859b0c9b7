"""From what the registry says to the plan in force: the one writer.

Registry update → decode → unchanged? stop → compile against the states → publish by one store. On any failure the last
good plan serves on, and the error and its age are visible.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from meshlib.errors import InvalidDocuments, RegistryError
from meshlib.plan.hosts import host_of
from meshlib.plan.snapshot import Snapshot
from meshlib.registries.base import Instance, Update
from meshlib.resources import (
    FieldNote,
    Loaded,
    Problem,
    Resource,
    Source,
    load,
    settle,
)

__all__ = ["SUSPECT_FOR", "Configuration", "Trouble"]

log = logging.getLogger("meshlib.agent")

SUSPECT_FOR = 30.0
"""Seconds the last endpoints of a service are kept when it suddenly has none: that is suspect, and costs little."""


FORBIDDING = ("AuthorizationPolicy", "InboundPolicy", "PeerAuthentication", "RequestAuthentication")
"""Kinds that may forbid a request: without them somebody might come in who shouldn't."""

LAMENT_EVERY = 60.0
"""Seconds before the same trouble is logged again."""


class Trouble(NamedTuple):
    """What is wrong with the configuration.

    Attributes:
        error: what happened.
        since: monotonic seconds at which it began.
    """

    error: Exception
    since: float


class Configuration:
    """Takes in what a registry says and publishes snapshots. Not thread-safe: the agent's thread only.

    Args:
        publish: compiles a snapshot and puts the plan in force.
        strict: refuse documents with fields that are approximated or ignored.
        recall: gives the documents that were good when the process ran last.

    Attributes:
        update: the last update that went in force without a problem, to be kept on disk.
        notes: fields approximated or ignored, by path.
        warnings: what the registry passed over or wasn't let see, in words.
        trouble: with the registry, or None.
        invalid: with the documents, or None.
        changed_at: monotonic seconds at which the plan in force was published.
    """

    def __init__(
        self,
        publish: Callable[[Snapshot], None],
        *,
        strict: bool = False,
        recall: Callable[[], tuple[Source, ...]] = tuple,
    ) -> None:
        self._publish = publish
        self._strict = strict
        self._recall = recall
        self._adopted = False
        self._resources: tuple[Resource, ...] = ()
        self._good_sources: tuple[Source, ...] = ()
        self._sources: tuple[Source, ...] | None = None
        self._deferred: set[str] = set()
        self._seen: Update | None = None
        self._served: dict[str, list[Instance]] = {}
        self._suspects: dict[str, float] = {}
        self._closed = ""
        self._lamented = "", 0.0
        self.update: Update | None = None
        self.notes: tuple[FieldNote, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self.trouble: Trouble | None = None
        self.invalid: Trouble | None = None
        self.changed_at: float | None = None

    @property
    def published(self) -> bool:
        """Whether any plan is in force."""
        return self.changed_at is not None

    def take(self, said: Update | RegistryError, now: float) -> float | None:
        """Take in one item of a registry's `watch`.

        Args:
            said: a snapshot or an error.
            now: monotonic seconds.

        Returns:
            Seconds after which `revisit` should be called, or None.
        """
        if isinstance(said, RegistryError):
            if self.trouble is None and self.published:
                self._lament(str(said), now)
            since = self.trouble.since if self.trouble is not None else now
            self.trouble = Trouble(said, since)
            return None
        if self.trouble is not None:
            log.info("the registry is back after %.1f s", now - self.trouble.since)
            self.trouble = None
        for warning in said.warnings:
            if warning not in self.warnings:
                log.warning("%s", warning)
        self.warnings = said.warnings
        self._seen = said
        if said.sources != self._sources or self._deferred & (said.asked or self._deferred):
            self._decode(said.sources, said.asked, now)
        return self._put_in_force(now)

    def _lament(self, error: str, now: float) -> None:
        """Log an error, unless it is the same as a short while ago: a part that fails comes again with every change."""
        before, at = self._lamented
        if error != before or now - at > LAMENT_EVERY:
            log.warning("the registry is in trouble, the last good configuration stays in force: %s", error)
            self._lamented = error, now

    def revisit(self, now: float) -> float | None:
        """Let go of suspect endpoints whose time is over; answers as `take` does."""
        return self._put_in_force(now) if self._seen is not None else None

    def _decode(self, sources: tuple[Source, ...], asked: frozenset[str] | None, now: float) -> None:
        """Adopt the documents if all of them are good; else the old ones stay.

        A registry that tells of some hosts only may define subsets of the others (a service-resolver does). A document
        that names one is judged once its host was asked for, and till then holds up nothing.
        """
        self._sources = sources
        self._deferred = set()

        def elsewhere(host: str) -> bool:
            if asked is None or host in asked:
                return False
            self._deferred.add(host)
            return True

        loaded = load(sources, strict=self._strict, elsewhere=elsewhere)
        if loaded.problems:
            error = InvalidDocuments(loaded.problems)
            others = "the old ones stay in force" if self._adopted else self._make_do(loaded, elsewhere)
            log.error("the documents can't be applied, %s:\n%s", others, error)
            self.invalid = Trouble(error, self.invalid.since if self.invalid is not None else now)
            return
        if self.invalid is not None:
            log.info("the documents can be applied again, after %.1f s", now - self.invalid.since)
        self.invalid = None
        self._adopt(loaded, sources)

    def _adopt(self, loaded: Loaded, sources: tuple[Source, ...]) -> None:
        settled = settle(loaded.resources)
        self._resources, self._good_sources = settled.resources, sources
        self.notes = (*loaded.notes, *settled.notes)
        self._adopted = True
        self._closed = ""

    def _make_do(self, loaded: Loaded, elsewhere: Callable[[str], bool]) -> str:
        """Have something in force although there was nothing before: a slip in one document must not undo STRICT."""
        sources = self._recall()
        kept = load(sources, strict=self._strict, elsewhere=elsewhere)
        if sources and not kept.problems:
            self._adopt(kept, sources)
            return "those of the last good configuration are in force"
        securing = (*FORBIDDING, "DestinationRule")
        self._resources = tuple(found for found in loaded.resources if found.kind in securing)
        self._closed = closed_by(loaded.problems)
        entrance = "; requests coming in are answered with 503 until they are mended" if self._closed else ""
        return f"and there were none before; only the good ones about who connects to whom are in force{entrance}"

    def _put_in_force(self, now: float) -> float | None:
        seen = self._seen
        if seen is None:
            return None
        instances, again = self._plausible(seen, now)
        old_documents = self.invalid is not None and isinstance(self.invalid.error, InvalidDocuments)
        version = f"{seen.version}+old-documents" if old_documents else seen.version
        snapshot = Snapshot(instances, self._resources, version, seen.asked, seen.intentions, self._closed)
        try:
            self._publish(snapshot)
        except Exception as error:
            log.exception("the configuration %s can't be compiled, the old one stays in force", version)
            self.invalid = self.invalid or Trouble(error, now)
            if self.update is None:
                self._close(snapshot, error, now)
            return again
        if not old_documents:
            self.invalid = None
        self.changed_at = now
        self.update = Update(instances, self._good_sources, version, asked=seen.asked, intentions=seen.intentions)
        return again

    def _close(self, snapshot: Snapshot, error: Exception, now: float) -> None:
        """There is no old configuration that could stay in force: calls go on without what forbids, requests don't."""
        calls = tuple(one for one in snapshot.resources if one.kind not in FORBIDDING)
        if len(calls) == len(snapshot.resources):
            return
        try:
            self._publish(snapshot._replace(resources=calls, closed=f"the policies can't be compiled: {error!r:.500}"))
        except Exception:
            log.exception("nor can it be without its policies on who may come in: there is none")
        else:
            self.changed_at = now

    def _plausible(self, seen: Update, now: float) -> tuple[tuple[Instance, ...], float | None]:
        """The instances, and for services that suddenly have none the last ones for a while."""
        services: dict[str, list[Instance]] = {}
        for instance in seen.instances:
            services.setdefault(host_of(instance), []).append(instance)
        kept: list[Instance] = []
        for key, last in self._served.items():
            if key in services or (seen.asked is not None and key not in seen.asked):
                self._suspects.pop(key, None)
                continue
            if key not in self._suspects:
                log.info("%s has no endpoint any more; its last %d are kept for %d s", key, len(last), SUSPECT_FOR)
            since = self._suspects.setdefault(key, now)
            if now - since < SUSPECT_FOR:
                services[key] = last
                kept += last
        for key in [key for key in self._suspects if key not in services]:
            del self._suspects[key]
        self._served = services
        waits = [since + SUSPECT_FOR - now for since in self._suspects.values()]
        return (*seen.instances, *kept), max(0.0, min(waits)) if waits else None


def closed_by(problems: Sequence[Problem]) -> str:
    """Why no request may come in while these documents are refused and none were in force before, "" when they may.

    What can't be read at all, or is of no known kind, might have been meant to forbid something.
    """
    grave = [problem for problem in problems if problem.kind in FORBIDDING or not problem.kind]
    if not grave:
        return ""
    more = f", and {len(grave) - 1} more" if len(grave) > 1 else ""
    return f"a policy that may forbid it is refused, and there is no older one: {str(grave[0])[:500]}{more}"
