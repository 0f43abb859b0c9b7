"""The headers by which a proxy says who called it, `x-forwarded-client-cert` and `x-forwarded-for`. Pure.

The format of the former is Envoy's (HTTP header manipulation, x-forwarded-client-cert): elements with commas, one for
each hop and the nearest last; in each `Key=value` pairs with semicolons, a value in double quotes where it holds one of
`,;="`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from meshlib.identity.spiffe import SpiffeId, parse

__all__ = ["ADDRESSES", "HEADER", "LONGEST", "Hops", "caller_of", "elements", "looks_forged", "remote_of"]

HEADER = b"x-forwarded-client-cert"
ADDRESSES = b"x-forwarded-for"

LONGEST = 65_536
"""Bytes of the header; a chain of certificates in it is some 8 KiB. What is longer counts for nobody."""

MOST_HOPS = 16

_PAIR = re.compile(r'([A-Za-z]{1,16})=(?:"((?:[^"\\]|\\.)*+)"|([^",;=\\]*+))')


class Hops:
    """Whom to believe what they say of their callers.

    Args:
        trusted: SPIFFE IDs, and IP addresses or networks; see MESHLIB_TRUSTED_HOPS.
    """

    def __init__(self, trusted: Sequence[str]) -> None:
        self._ids = frozenset(hop for hop in trusted if hop.startswith("spiffe://"))
        self._networks = tuple(ipaddress.ip_network(hop) for hop in trusted if not hop.startswith("spiffe://"))

    def __bool__(self) -> bool:
        return bool(self._ids or self._networks)

    def trusts(self, peer: SpiffeId | None, address: str | None) -> bool:
        """Whether the other end of a connection is one of them.

        Args:
            peer: its verified identity.
            address: its IP address; None: a Unix socket, or unknown.
        """
        if peer is not None and str(peer) in self._ids:
            return True
        return address is not None and bool(self._networks) and self._within(address)

    def _within(self, address: str) -> bool:
        found = _address(address)
        return found is not None and any(found in network for network in self._networks)

    def trusts_id(self, found: SpiffeId) -> bool:
        """Whether an identity is that of a trusted hop."""
        return str(found) in self._ids


def looks_forged(name: bytes, *, believed: bool) -> bool:
    """Whether the application mustn't see a header of this name.

    One with underscores is the same CGI variable to a WSGI application behind ASGI. A proxy passes it on as it comes,
    so that not even a trusted one vouches for it.

    Args:
        name: of a header, in any case.
        believed: whether the header came from a trusted hop.
    """
    if len(name) != len(HEADER):
        return False
    name = name.lower()
    return name.replace(b"_", b"-") == HEADER and (name != HEADER or not believed)


def caller_of(header: bytes, hops: Hops, trust_domain: str | None) -> SpiffeId | None:
    """For whom the trusted hop makes the request.

    From the nearest hop outwards the first one that isn't itself a trusted hop; None when it has no identity of our
    trust domain, or the header can't be read.

    Args:
        header: as it came from a trusted hop.
        hops: whom to believe.
        trust_domain: ours; None: we have none, and so nobody has an identity.
    """
    found = elements(header)
    if found is None or trust_domain is None:
        return None
    for element in reversed(found):
        uris = [value for key, value in element if key == "uri"]
        if len(uris) != 1:
            return None
        try:
            caller = parse(uris[0])
        except ValueError:
            return None
        if caller.trust_domain != trust_domain or not caller.path:
            return None
        if not hops.trusts_id(caller):
            return caller
    return None


def remote_of(header: bytes, hops: Hops) -> str:
    """The IP address a trusted hop makes the request for: the rightmost that isn't a trusted hop's own.

    Each hop writes the address it was called from behind what it was told, so that all to the left of an address that
    isn't trusted may be made up.

    Args:
        header: `x-forwarded-for` as it came from a trusted hop.
        hops: whom to believe.

    Returns:
        Where all are trusted, the leftmost; "" where none can be read.
    """
    found = ""
    left = header
    for _ in range(MOST_HOPS):
        left, _, last = left.rpartition(b",")
        text = last.strip().decode("latin-1")
        if _address(text) is None:
            break
        found = text
        if not left or not hops.trusts(None, text):
            break
    return found


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)  # how an IPv4 caller looks on a socket for both
    return mapped or found


def elements(header: bytes) -> list[list[tuple[str, str]]] | None:
    """The elements of a header, each the pairs it is of, keys in lower case; None: it isn't in the format."""
    if not header or len(header) > LONGEST:
        return None
    text = header.decode("latin-1")
    found: list[list[tuple[str, str]]] = [[]]
    at = 0
    while True:
        pair = _PAIR.match(text, at)
        if pair is None:
            return None
        quoted, bare = pair[2], pair[3]
        found[-1].append(
            (pair[1].lower(), bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
        )
        at = pair.end()
        if at == len(text):
            return found
        if text[at] == ",":
            if len(found) == MOST_HOPS:
                return None
            found.append([])
            at += 1
            while text[at : at + 1] == " ":  # several headers of the name, joined
                at += 1
        elif text[at] == ";":
            at += 1
        else:
            return None
