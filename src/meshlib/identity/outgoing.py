"""TLS contexts towards peers: who is accepted, by which roots, and with which certificate of ours.

Contexts are built on the agent's thread, before the plan or the material that needs them is in force. Connections read
what is there by one load.
"""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import cast

from meshlib.identity.certificates import split
from meshlib.identity.keeper import Commit, Identity
from meshlib.identity.loading import load_into
from meshlib.identity.material import Material
from meshlib.identity.secured import Secured
from meshlib.identity.verifying import Expecting, OutgoingContext
from meshlib.plan.peers import PeerTls

__all__ = ["PeerContexts"]

log = logging.getLogger("meshlib.identity")

MAX_FILE = 4 * 1024 * 1024
"""Bytes of a PEM file: the bundles of public CAs have some 250 kB."""

Stamp = tuple[tuple[int, int, int] | None, ...]


class PeerContexts:
    """The contexts of one process, by peer. Written by the agent's thread, read from any.

    Args:
        identity: what MUTUAL by the mesh is done with; None: this process has none.
        clock: monotonic seconds.
        wall: Unix seconds, which certificates are dated in.
    """

    def __init__(
        self,
        identity: Identity | None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._identity = identity
        self._clock = clock
        self._wall = wall
        self._material: Material | None = None
        self._base: tuple[Material, OutgoingContext] | None = None
        self._made: dict[PeerTls, Secured] = {}
        self._stamps: dict[PeerTls, Stamp] = {}
        self._shared: dict[tuple[PeerTls, Stamp], ssl.SSLContext] = {}
        self._complaints: dict[PeerTls, str] = {}
        # Reentrant, for `Identity.follow` may call back at once.
        self._lock = threading.RLock()
        if identity is not None:
            identity.follow(self._prepare_material)

    def after_fork(self) -> None:
        """Begin afresh in a forked child, where the lock may be held by a thread that isn't there."""
        self._lock = threading.RLock()

    def get(self, peer: PeerTls) -> Secured:
        """How to secure a connection to `peer`; the same object while nothing changes."""
        made = self._made.get(peer)
        if made is None:
            # A call of an earlier plan, whose peers were dropped meanwhile.
            with self._lock:
                made = self._made.get(peer) or self._add([peer])[peer]
        return made if made.context is not None else self._explained(made)

    def prepare(self, peers: Iterable[PeerTls]) -> None:
        """Build what a plan's peers need, and drop what it has no use for.

        Args:
            peers: of every cluster of the plan that is about to be in force.
        """
        wanted = set(peers)
        with self._lock:
            added = self._add(wanted - self._made.keys())
            self._made = {peer: made for peer, made in {**self._made, **added}.items() if peer in wanted}
            for kept in (self._stamps, self._complaints):
                for peer in kept.keys() - wanted:
                    del kept[peer]
            self._prune()

    def refresh(self) -> None:
        """Read the files of SIMPLE and MUTUAL again if they have changed. Blocks: for the agent's thread."""
        with self._lock:
            changed = {}
            for peer, stamp in list(self._stamps.items()):
                found = _stamp(peer)
                if found == stamp:
                    continue
                self._stamps[peer] = found
                made, before = self._build(peer, self._material), self._made[peer]
                if made.context is None and before.context is not None:
                    self._complain(peer, f"{made.problem}; what was there before stays in force")
                else:
                    self._complaints.pop(peer, None)
                    changed[peer] = made
            if changed:
                self._made = {**self._made, **changed}
                self._prune()

    def _prune(self) -> None:
        used = {self._shared_by(peer) for peer in self._stamps}
        self._shared = {key: context for key, context in self._shared.items() if key in used}

    def _complain(self, peer: PeerTls, problem: str) -> None:
        if self._complaints.get(peer) != problem:
            self._complaints[peer] = problem
            log.warning("TLS to %s: %s", peer.sni, problem)

    def _add(self, peers: Iterable[PeerTls]) -> dict[PeerTls, Secured]:
        added = {}
        for peer in peers:
            if peer.mode != "ISTIO_MUTUAL":
                self._stamps[peer] = _stamp(peer)
            made = added[peer] = self._build(peer, self._material)
            if made.problem and peer.mode != "ISTIO_MUTUAL":
                self._complain(peer, made.problem)
        self._made = {**self._made, **added}
        return added

    def _prepare_material(self, material: Material) -> Commit:
        with self._lock:
            peers = [peer for peer in self._made if peer.mode == "ISTIO_MUTUAL"]
        # Also where no peer needs it: a material that can't be used is refused now, not at the next plan.
        self._based_on(material)
        built = {peer: self._build(peer, material) for peer in peers}

        def commit() -> None:
            with self._lock:
                self._material = material
                made = dict(self._made)
                for peer in made:
                    if peer.mode == "ISTIO_MUTUAL":
                        made[peer] = built.get(peer) or self._build(peer, material)
                self._made = made

        return commit

    def _build(self, peer: PeerTls, material: Material | None) -> Secured:
        if peer.mode == "ISTIO_MUTUAL":
            return self._of_the_mesh(peer, material)
        key = self._shared_by(peer)
        try:
            context = self._shared.get(key) or _file_context(peer)
        except (OSError, ValueError) as error:
            return Secured(None, peer.sni, f"the files of its DestinationRule can't be used: {error}")
        self._shared[key] = context
        return Secured(context, peer.sni)

    def _shared_by(self, peer: PeerTls) -> tuple[PeerTls, Stamp]:
        # A context doesn't depend on the name that is sent, and one with the system's roots costs 40 ms.
        return peer._replace(sni=""), self._stamps[peer]

    def _of_the_mesh(self, peer: PeerTls, material: Material | None) -> Secured:
        if not peer.names:
            way_out = "have it announce one, or name it in the DestinationRule's subjectAltNames"
            return Secured(None, peer.sni, f"no identity is known for this endpoint; {way_out}")
        if material is None:
            return Secured(None, peer.sni)
        # A bundle vouches for its own trust domain only (X509-SVID, 5), whatever else its CAs have signed.
        domain = f"spiffe://{material.id.trust_domain}/"
        names = tuple(name for name in peer.names if "://" not in name or name.startswith(domain))
        if not names:
            problem = f"the identity {peer.names[0][:200]!r} is not of the trust domain {material.id.trust_domain}"
            return Secured(None, peer.sni, problem)
        expires = self._clock() + (material.not_after - self._wall())
        # One context for all of them: any number of instances may announce identities, each its own.
        context = cast("ssl.SSLContext", Expecting(self._based_on(material), names))
        return Secured(context, peer.sni, "", frozenset(split(material.roots)), expires)

    def _based_on(self, material: Material) -> OutgoingContext:
        base = self._base
        if base is None or base[0] is not material:
            base = self._base = material, _mesh_context(material)
        return base[1]

    def _explained(self, made: Secured) -> Secured:
        # Only this changes without an announcement: the reason why there is no identity yet.
        if made.problem:
            return made
        if self._identity is None:
            return made._replace(problem="this process has no identity; set MESHLIB_IDENTITY")
        error = self._identity.error
        return made._replace(problem=f"no certificate yet from {self._identity.url}: {error or 'nothing came so far'}")


def _mesh_context(material: Material) -> OutgoingContext:
    context = _fresh(None)
    context.load_verify_locations(cadata=material.roots.decode("ascii"))
    load_into(context, material.certificates, material.key)
    return context


def _file_context(peer: PeerTls) -> ssl.SSLContext:
    context = _fresh(peer.names)
    context.check_hostname = peer.verify and not peer.names
    if not peer.verify:
        context.names = ()
        context.verify_mode = ssl.CERT_NONE
    elif peer.roots:
        roots = _read(peer.roots)
        try:
            context.load_verify_locations(cadata=b"".join(split(roots)).decode("ascii"))
        except ValueError as error:
            raise ValueError(f"{peer.roots} {error}") from error
    else:
        context.load_default_certs()
    if peer.mode == "MUTUAL":
        load_into(context, _read(peer.certificate), _read(peer.key))
    return context


def _fresh(names: tuple[str, ...] | None) -> OutgoingContext:
    context = OutgoingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.names = names
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A renegotiation would ask for certificates past our check, and make a write wait for a read.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


def _files(peer: PeerTls) -> tuple[str, ...]:
    return tuple(path for path in (peer.roots, peer.certificate, peer.key) if path and peer.mode != "ISTIO_MUTUAL")


def _stamp(peer: PeerTls) -> Stamp:
    stamps: list[tuple[int, int, int] | None] = []
    for path in _files(peer):
        found = None
        with contextlib.suppress(OSError, ValueError):
            status = os.stat(path)
            found = (status.st_mtime_ns, status.st_size, status.st_ino)
        stamps.append(found)
    return tuple(stamps)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise ValueError(f"{path} has more than {MAX_FILE} bytes")
    return content
