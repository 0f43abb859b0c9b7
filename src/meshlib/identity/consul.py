"""The identity that Consul's CA issues to a service: its leaf and the roots, by one blocking query each.

Consul's agent renews a leaf by itself, at some moment between 0.6 and 0.9 of its life and after a change of roots; the
queries bring that. Should nothing have come by then, it is asked once more in good time.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import time
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import msgspec

from meshlib.errors import IdentityError, RegistryError
from meshlib.identity.certificates import make_material
from meshlib.identity.material import Material

if TYPE_CHECKING:
    from meshlib.registries.consul.client import Answer, ConsulClient

__all__ = ["ASK_AGAIN", "FIT_WAIT", "ConsulIdentity", "ask_again"]

ASK_AGAIN = (0.92, 0.96)
"""Between these shares of a leaf's life it is asked for once more, at a moment left to chance, if no newer has come."""

LEAST_WAIT = 5.0
"""Seconds between two such questions at least."""

FIT_WAIT = 2.0
"""Seconds that leaf and roots may be of different times before that is an error: they come by two queries."""


class _Root(msgspec.Struct, rename="pascal"):
    root_cert: str


class _Roots(msgspec.Struct, rename="pascal"):
    trust_domain: str
    roots: list[_Root]


class _Leaf(msgspec.Struct):
    certificates: str = msgspec.field(name="CertPEM")
    key: str = msgspec.field(name="PrivateKeyPEM")
    uri: str = msgspec.field(name="ServiceURI")
    begins: dt.datetime = msgspec.field(name="ValidAfter")
    ends: dt.datetime = msgspec.field(name="ValidBefore")

    def __repr__(self) -> str:
        return f"<leaf of {self.uri}>"  # and not the key


T = TypeVar("T")
_Said = _Roots | _Leaf | RegistryError


def ask_again(begins: float, ends: float, now: float, chance: float) -> float:
    """Seconds until a leaf is asked for once more.

    Args:
        begins: of the leaf's life, Unix seconds.
        ends: of the leaf's life, Unix seconds.
        now: Unix seconds.
        chance: 0 to 1.
    """
    first, last = ASK_AGAIN
    due = begins + (ends - begins) * (first + (last - first) * chance)
    if now < due:
        return max(LEAST_WAIT, due - now)
    return max(LEAST_WAIT, (ends - now) / 4) * (0.75 + 0.5 * chance)


class ConsulIdentity:
    """An `IdentitySource` on the CA of the Consul that `client` asks.

    All roots Consul tells of are trusted, those that it has replaced as well, until it tells of them no more. What
    leads from the new root to the old comes with the leaf.

    Args:
        client: of the agent; closed with this.
        service: whose leaf. With ACLs the token needs `service:write` on it.
        clock: Unix seconds.
    """

    def __init__(self, client: ConsulClient, service: str, clock: Callable[[], float] = time.time) -> None:
        self.url = client.url
        self._client = client
        self._service = service
        self._clock = clock

    async def watch(self) -> AsyncGenerator[Material | IdentityError, None]:
        """See `IdentitySource.watch`."""
        both = _Both(self._client, self._service)
        given: Material | None = None
        trouble = ""
        try:
            while True:
                came = await both.wait(self._patience(both))
                if not came and both.unfit is None:
                    await both.ask_for_leaf()
                    continue
                material = both.material(self.url)
                if material is not None and (material != given or (trouble and both.trouble is None)):
                    given, trouble = material, ""
                    yield material
                # Two halves that don't fit are left a moment for the other one to come.
                error = self._explained(both.trouble) if both.trouble else None if came else both.unfit
                if error is not None and str(error) != trouble:
                    trouble = str(error)
                    yield error
        finally:
            await both.aclose()

    async def aclose(self) -> None:
        """See `IdentitySource.aclose`."""
        await self._client.aclose()

    def _patience(self, both: _Both) -> float | None:
        """Seconds until something is to be done although nothing has come."""
        if both.unfit is not None:
            return FIT_WAIT
        if both.leaf is None:
            return None
        chance = random.random()
        return ask_again(both.leaf.begins.timestamp(), both.leaf.ends.timestamp(), self._clock(), chance)

    def _explained(self, error: RegistryError) -> IdentityError:
        way_out = error.way_out
        if "Connect must be enabled" in error.problem:
            way_out = "set connect { enabled = true } in the configuration of Consul's servers and of this agent"
        return IdentityError(self.url, error.problem, way_out)


class _Both:
    """The newest leaf and the newest roots, and what is wrong with either.

    Attributes:
        leaf: the newest.
        roots: the newest.
        unfit: why these two are no identity together; None: they are, or one isn't there.
    """

    def __init__(self, client: ConsulClient, service: str) -> None:
        self.leaf: _Leaf | None = None
        self.roots: _Roots | None = None
        self.unfit: IdentityError | None = None
        self._client = client
        self._service = service
        self._trouble: dict[type, RegistryError] = {}
        self._made: tuple[_Leaf, _Roots, Material] | None = None
        self._following: dict[type, AsyncGenerator[_Said, None]] = {_Leaf: self._leaves(), _Roots: self._all_roots()}
        self._next: dict[type, asyncio.Task[_Said]] = {}

    @property
    def trouble(self) -> RegistryError | None:
        """What is wrong with one of the queries."""
        return next(iter(self._trouble.values()), None)

    async def wait(self, timeout: float | None) -> bool:
        """Take what comes next; False when nothing did within `timeout` seconds."""
        for kind, following in self._following.items():
            if kind not in self._next:
                self._next[kind] = asyncio.ensure_future(anext(following))
        done, _ = await asyncio.wait(self._next.values(), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for kind in [kind for kind, task in self._next.items() if task in done]:
            said = self._next.pop(kind).result()
            if isinstance(said, RegistryError):
                self._trouble[kind] = said
                continue
            self._trouble.pop(kind, None)
            if isinstance(said, _Leaf):
                self.leaf = said
            else:
                self.roots = said
        return bool(done)

    def material(self, source: str) -> Material | None:
        """What the two are together, None when they are nothing; `unfit` then says why."""
        if self.leaf is None or self.roots is None:
            return None
        if self._made is None or self._made[:2] != (self.leaf, self.roots):
            try:
                material = _joined(source, self.leaf, self.roots, self._service)
            except IdentityError as error:
                self.unfit = error
                return None
            self._made, self.unfit = (self.leaf, self.roots, material), None
        return self._made[2]

    async def ask_for_leaf(self) -> None:
        """Ask for the leaf from the beginning, instead of waiting on."""
        await self._end(_Leaf)
        self._following[_Leaf] = self._leaves()

    async def aclose(self) -> None:
        for kind in self._following:
            await self._end(kind)

    async def _end(self, kind: type) -> None:
        task = self._next.pop(kind, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self._following[kind].aclose()

    def _leaves(self) -> AsyncGenerator[_Leaf | RegistryError, None]:
        return self._follow(f"/v1/agent/connect/ca/leaf/{quote(self._service, safe='')}", _Leaf)

    def _all_roots(self) -> AsyncGenerator[_Roots | RegistryError, None]:
        return self._follow("/v1/agent/connect/ca/roots", _Roots)

    def _follow(self, path: str, kind: type[T]) -> AsyncGenerator[T | RegistryError, None]:
        from meshlib.registries.consul.query import follow

        def decode(answer: Answer) -> T:
            try:
                return msgspec.json.decode(answer.data, type=kind)
            except ValueError as error:
                # Told here, without a beginning of what came: that may be of a key.
                raise self._client.error(f"the answer to GET {path} can't be read: {error}") from error

        return follow(self._client, path, (), decode)


def _joined(source: str, leaf: _Leaf, roots: _Roots, service: str) -> Material:
    """Raises IdentityError."""
    trusted = "\n".join(root.root_cert for root in roots.roots).encode()
    material = make_material(source, leaf.certificates.encode(), leaf.key.encode(), trusted)
    if material.id.trust_domain != roots.trust_domain or not material.id.path.endswith(f"/svc/{service}"):
        expected = f"spiffe://{roots.trust_domain}/ns/default/dc/…/svc/{service}"
        raise IdentityError(source, f"the leaf is for {material.id}; expected {expected}", "see Consul's CA provider")
    return material
