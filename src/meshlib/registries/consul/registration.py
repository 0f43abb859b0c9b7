"""Keeping instances registered with the Consul agent: a check that is renewed, and put back when the agent lost it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from meshlib.errors import RegistryError
from meshlib.registries.base import Instance
from meshlib.registries.consul.client import CONNECT_DISABLED, ConsulClient, Refused
from meshlib.registries.consul.entries import OUTPUT, Found, check_id, definition, health_of, service_id

__all__ = ["Registrations"]

SEEN_WITHIN = 2.0
"""Seconds to wait until Consul's servers know what the agent was told. It goes on by itself if they don't."""

_IDENTITY = re.compile(r"spiffe://([^/]+)/ns/default/dc/[^/]+/svc/([^/]+)")


class _Told(NamedTuple):
    """What the agent was told of an instance, and when it was last renewed, in monotonic seconds."""

    definition: bytes
    healthy: bool
    renewed: float


class Registrations:
    """What this process has registered with one agent.

    Args:
        client: of the agent.
        clock: monotonic seconds.
    """

    def __init__(self, client: ConsulClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._told: dict[str, _Told] = {}
        self._trust_domain = ""

    async def put(self, instance: Instance, ttl: float) -> None:
        """Renew it, or register it when the agent doesn't know it, or not as it is now. Raises RegistryError."""
        settings = self._client.settings
        native = await self._is_ours(instance)
        wanted = definition(msgspec.structs.replace(instance, healthy=True), ttl, settings, native=native)
        told = _Told(msgspec.json.encode(wanted), instance.healthy, self._clock())
        before = self._told.get(service_id(instance))
        if before is None or before.definition != told.definition or not await self._renewed(instance, before):
            wanted["check"]["Status"] = "passing" if instance.healthy or settings.check != "ttl" else "critical"
            await self._client.calls.agent.service.register(**wanted)
            before = None
            if not instance.healthy:
                await self._renewed(instance, None)
        self._told[service_id(instance)] = told
        if before is None or before.healthy != instance.healthy or told.renewed > before.renewed + ttl:
            await self._until(instance, lambda found: bool(found) and found[0].instance.healthy == instance.healthy)

    async def remove(self, instance: Instance) -> None:
        """Take it out; that it isn't there is no error. Raises RegistryError."""
        self._told.pop(service_id(instance), None)
        try:
            await self._client.calls.agent.service.deregister(service_id(instance))
        except Refused as error:
            if not _unknown(error):
                raise
        await self._until(instance, lambda found: not found)

    async def _renewed(self, instance: Instance, before: _Told | None) -> bool:
        """Whether the agent knew it, and has been told that it is alive, and how it is."""
        name = quote(service_id(instance), safe="")
        try:
            if self._client.settings.check == "ttl":
                healthy = instance.healthy
                said = {
                    "Status": "passing" if healthy else "critical",
                    "Output": OUTPUT + ("healthy" if healthy else "it says that it is not healthy"),
                }
                path = f"/v1/agent/check/update/{quote(check_id(instance), safe='')}"
                await self._client.put(path, data=msgspec.json.encode(said))
                return True
            await self._client.get(f"/v1/agent/service/{name}")
            if (True if before is None else before.healthy) != instance.healthy:
                asked = [("enable", "false" if instance.healthy else "true"), ("reason", f"{OUTPUT}not healthy")]
                await self._client.put(f"/v1/agent/service/maintenance/{name}", asked)
        except Refused as error:
            if not _unknown(error):
                raise
            return False
        return True

    async def _is_ours(self, instance: Instance) -> bool:
        """Whether its identity is one that this Consul's CA gives to its service."""
        found = _IDENTITY.fullmatch(instance.identity)
        if found is None or found[2] != instance.service:
            return False
        if self._trust_domain != found[1]:  # not known yet, or the servers were set up anew
            try:
                answer = await self._client.get("/v1/agent/connect/ca/roots")
            except Refused as error:
                if CONNECT_DISABLED in str(error).lower():
                    return False
                raise
            self._trust_domain = trust_domain(self._client, answer.data)
        return found[1] == self._trust_domain

    async def _until(self, instance: Instance, done: Callable[[tuple[Found, ...]], bool]) -> None:
        """Wait until Consul's servers know of the change, so that whoever looks next sees it."""
        name = service_id(instance).replace("\\", "\\\\").replace('"', '\\"')
        path, filtered = f"/v1/health/service/{quote(instance.service, safe='')}", ("filter", f'Service.ID == "{name}"')
        index = None
        # What can't be read, or isn't known yet, is no failure of the registration.
        with contextlib.suppress(RegistryError, ValueError, RecursionError, TimeoutError):
            async with asyncio.timeout(SEEN_WITHIN):
                while True:
                    answer = await self._client.get(path, [filtered], index=index, wait=SEEN_WITHIN)
                    if done(health_of(answer.data).found):
                        return
                    index = answer.index or None
                    await asyncio.sleep(0.01)


class _Roots(msgspec.Struct, rename="pascal"):
    trust_domain: str = ""


def trust_domain(client: ConsulClient, roots: bytes) -> str:
    """The trust domain in an answer of `/v1/agent/connect/ca/roots`. Raises RegistryError."""
    try:
        return msgspec.json.decode(roots, type=_Roots).trust_domain.lower()
    except (msgspec.DecodeError, RecursionError) as error:
        raise client.error(f"the roots of its CA can't be read: {error}") from error


def _unknown(error: Refused) -> bool:
    """Whether an agent says that it knows no such check or service: 404, and 500 before Consul 1.11."""
    said = str(error).lower()
    return error.status == 404 or (error.status == 500 and ("unknown" in said or "does not have associated" in said))
