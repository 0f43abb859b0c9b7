"""The identity that a SPIFFE Workload API hands out over a unix socket: SPIRE's agent, or another of its kind.

The `spiffe` package speaks to it, over gRPC and on a thread of its own; here that is bridged into the agent's loop. A
stream that ended is begun anew on a fresh channel: a channel that has failed waits up to two minutes by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING

from meshlib.errors import IdentityError
from meshlib.identity.certificates import make_material
from meshlib.identity.material import Material

if TYPE_CHECKING:
    from spiffe.workloadapi.x509_context import X509Context

__all__ = ["ANSWER_WAIT", "FIRST_RETRY", "LONGEST_RETRY", "WorkloadIdentity"]

ANSWER_WAIT = 5.0
"""Seconds a Workload API may take for its first word before that is told as an error; it is waited for all the same."""

FIRST_RETRY = 0.2
"""Seconds before a stream that ended is begun anew; doubled each time, give or take a quarter."""

LONGEST_RETRY = 4.0
"""Seconds between two tries at most."""


class WorkloadIdentity:
    """An `IdentitySource` on the Workload API at `socket`. Only the bundle of our own trust domain is trusted.

    Of several identities the first is taken, the default one (SPIFFE Workload API, 5.3).
    """

    def __init__(self, socket: Path) -> None:
        self.url = f"spiffe://{socket}"
        self._socket = socket

    async def watch(self) -> AsyncGenerator[Material | IdentityError, None]:
        """See `IdentitySource.watch`."""
        trouble = ""
        wait = FIRST_RETRY
        while True:
            async with contextlib.aclosing(self._stream()) as stream:
                async for said in stream:
                    if isinstance(said, Material):
                        trouble, wait = "", FIRST_RETRY
                    elif str(said) == trouble:
                        continue
                    else:
                        trouble = str(said)
                    yield said
            await asyncio.sleep(wait * random.uniform(0.75, 1.25))
            wait = min(2 * wait, LONGEST_RETRY)

    async def aclose(self) -> None:
        """See `IdentitySource.aclose`."""

    async def _stream(self) -> AsyncGenerator[Material | IdentityError, None]:
        """What one stream says, until it ends; the last item is then an error."""
        from spiffe import WorkloadApiClient
        from spiffe.errors import ArgumentError

        try:
            client = WorkloadApiClient(f"unix://{self._socket}")
        except ArgumentError as error:
            yield IdentityError(self.url, str(error), _UNAVAILABLE)
            return
        loop = asyncio.get_running_loop()
        newest: asyncio.Queue[X509Context | Exception] = asyncio.Queue(1)

        def put(news: X509Context | Exception) -> None:
            if newest.full():
                newest.get_nowait()
            newest.put_nowait(news)

        def hand_over(news: X509Context | Exception) -> None:
            loop.call_soon_threadsafe(put, news)

        watching = client.stream_x509_contexts(hand_over, hand_over, retry_connect=False)
        answered = False
        try:
            while True:
                try:
                    async with asyncio.timeout(None if answered else ANSWER_WAIT):
                        news = await newest.get()
                except TimeoutError:
                    problem = f"nobody has answered at the socket for {ANSWER_WAIT:.0f} s"
                    yield IdentityError(self.url, problem, "see what listens there, and its log")
                    news = await newest.get()
                answered = True
                if isinstance(news, Exception):
                    yield self._explained(news)
                    return
                yield self._material(news)
        finally:
            watching.cancel()
            client.close()

    def _material(self, context: X509Context) -> Material | IdentityError:
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        svid = context.default_svid
        bundle = context.x509_bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
        if bundle is None:
            return IdentityError(self.url, f"there is no bundle of {svid.spiffe_id.trust_domain}", "see its log")
        chain, roots = (
            [certificate.public_bytes(Encoding.PEM) for certificate in certificates]
            for certificates in (svid.cert_chain, bundle.x509_authorities)
        )
        key = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            return make_material(self.url, b"".join(chain), key, b"".join(sorted(roots)))
        except IdentityError as error:
            return error

    def _explained(self, error: Exception) -> IdentityError:
        text = str(error)
        way_out = next((way_out for code, way_out in _WAYS_OUT.items() if code in text), "see its log")
        return IdentityError(self.url, text, way_out)


_UNAVAILABLE = "see that SPIRE's agent, or what else serves the Workload API, runs and lets this user open the socket"

# By the gRPC codes that the Workload API uses (SPIFFE Workload API, 4).
_WAYS_OUT = {
    "UNAVAILABLE": _UNAVAILABLE,
    "PERMISSION_DENIED": "create a registration entry whose selectors this process fits",
    "INVALID_ARGUMENT": "see that the socket is that of a Workload API",
    "UNIMPLEMENTED": "see that the socket is that of a Workload API",
}
