"""Fetching the keys of an issuer of tokens, once."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from meshlib.policy.keyring import MAX_KEY_SET
from meshlib.policy.webtoken import BadToken, json_object
from meshlib.state.tokens import KeySource

if TYPE_CHECKING:
    import httpx

__all__ = ["KeysUnreachable", "fetch_key_set", "open_client"]

DISCOVERY = "/.well-known/openid-configuration"

MAX_REDIRECTS = 3


class KeysUnreachable(Exception):
    """Why the keys of an issuer can't be had now."""


async def fetch_key_set(client: httpx.AsyncClient, source: KeySource) -> bytes:
    """The key set of an issuer, unread.

    Args:
        client: verifies servers' certificates.
        source: where it is.

    Raises:
        KeysUnreachable: it can't be had.
    """
    import httpx

    uri = source.uri
    try:
        async with asyncio.timeout(source.timeout):
            if not uri:
                uri = source.issuer.rstrip("/") + DISCOVERY
                uri = _key_set_of(await _get(client, uri), uri, source.issuer)
            return await _get(client, uri)
    except TimeoutError:
        raise KeysUnreachable(f"{uri} didn't answer within {source.timeout:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError, ValueError) as error:
        raise KeysUnreachable(f"{uri[:200]}: {str(error) or type(error).__name__}") from error


def _key_set_of(answer: bytes, asked: str, issuer: str) -> str:
    """Where an OpenID configuration says that the keys are."""
    try:
        said = json_object(answer, "answer")
    except BadToken as error:
        raise KeysUnreachable(f"{asked}: {error}") from None
    # Or whoever answers for one issuer could bring in the keys of another (OpenID Connect Discovery, 4.3).
    if said.get("issuer") != issuer:
        raise KeysUnreachable(f"{asked} speaks of the issuer {str(said.get('issuer'))[:200]!r}, not of {issuer!r}")
    uri = said.get("jwks_uri")
    if not isinstance(uri, str):
        raise KeysUnreachable(f"{asked} has no jwks_uri")
    return _followed(asked, uri)


async def _get(client: httpx.AsyncClient, uri: str) -> bytes:
    """What is at `uri`, or where that leads to."""
    for _ in range(MAX_REDIRECTS + 1):
        # Unpacking is left out: a small answer may unpack into any amount.
        async with client.stream("GET", uri, headers={"accept-encoding": "identity"}) as reply:
            if reply.next_request is None:
                return await _whole(reply, uri)
            uri = _followed(uri, str(reply.next_request.url))
    raise KeysUnreachable(f"{uri}: more than {MAX_REDIRECTS} redirects")


async def _whole(reply: httpx.Response, uri: str) -> bytes:
    if reply.status_code != 200:
        raise KeysUnreachable(f"{uri} answered {reply.status_code}")
    if reply.headers.get("content-encoding", "identity") != "identity":
        raise KeysUnreachable(f"{uri} answered packed, unasked")
    found = bytearray()
    async for piece in reply.aiter_raw():
        found += piece
        if len(found) > MAX_KEY_SET:
            raise KeysUnreachable(f"{uri}: it has more than {MAX_KEY_SET} bytes")
    return bytes(found)


def _followed(here: str, there: str) -> str:
    """Go from one URL to the next; never to where others could write what is read."""
    scheme = _scheme(there)
    if scheme not in ("http", "https") or (scheme == "http" and _scheme(here) == "https"):
        raise KeysUnreachable(f"{here} leads to {there[:200]!r}, which isn't https")
    return there


def _scheme(uri: str) -> str:
    return urlsplit(uri).scheme.lower()


Opening = Callable[[], "httpx.AsyncClient"]


def open_client() -> httpx.AsyncClient:
    """A client of its own: fetching keys is no call of the mesh's. Costs some 40 ms.

    Roots are httpx's: certifi's, or those of SSL_CERT_FILE and SSL_CERT_DIR; proxies are the environment's.

    Raises:
        KeysUnreachable: these can't be used.
    """
    import httpx

    try:
        return httpx.AsyncClient(follow_redirects=False, timeout=None)  # noqa: S113 - a whole fetch has one
    except (OSError, ValueError) as error:
        variables = "SSL_CERT_FILE, SSL_CERT_DIR and HTTPS_PROXY"
        raise KeysUnreachable(f"nothing can be fetched with the environment's {variables}: {error}") from error
