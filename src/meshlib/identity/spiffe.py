"""SPIFFE IDs, read strictly (SPIFFE-ID specification, section 2)."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

__all__ = ["MAX_LENGTH", "SpiffeId", "parse", "words"]

MAX_LENGTH = 2048
"""Bytes of a whole ID (SPIFFE-ID, 2.3)."""

_ID = re.compile(r"spiffe://(?P<domain>[a-z0-9._-]{1,255})(?P<path>(?:/[a-zA-Z0-9._-]+)*)")

_CONSUL = re.compile(r"/ns/([^/]+)/dc/[^/]+/svc/([^/]+)")
_NAMESPACE = re.compile(r"/ns/([^/]+)(?=/)")
_ACCOUNT = re.compile(r"/sa/([^/]+)")


class SpiffeId(NamedTuple):
    """`spiffe://<trust_domain><path>`.

    Attributes:
        trust_domain: who vouches, as `cluster.local`.
        path: "" or begins with a slash, as `/ns/default/sa/reviews`.
    """

    trust_domain: str
    path: str = ""

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}{self.path}"


def parse(text: str) -> SpiffeId:
    """The ID that `text` is.

    Raises:
        ValueError: it isn't one; the message says what is wrong.

    Example:
        >>> parse("spiffe://example.org/ns/default/sa/web").path
        '/ns/default/sa/web'
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a SPIFFE ID of {len(text)} characters; at most {MAX_LENGTH} are allowed")
    found = _ID.fullmatch(text)
    if found is None:
        expected = "spiffe://trust-domain/path of a-z, A-Z (not in the trust domain), 0-9, '.', '_' and '-'"
        raise ValueError(f"{text[:120]!r} is no SPIFFE ID; expected {expected}")
    if any(segment in {".", ".."} for segment in found["path"].split("/")):
        raise ValueError(f"{text[:120]!r} is no SPIFFE ID: '.' and '..' are not allowed as path segments")
    return SpiffeId(found["domain"], found["path"])


@functools.lru_cache(maxsize=4096)
def words(caller: SpiffeId) -> tuple[str, str, str]:
    """An identity as rules name it: without its scheme, its namespace and its service account, "" for none.

    Both may have more around them, as in Istio: `/region/eu/ns/default/team/a/sa/web`. A service of Consul's,
    `/ns/default/dc/dc1/svc/web`, counts as the service account that Istio would give it.
    """
    whole, path = caller.trust_domain + caller.path, caller.path
    if (consul := _CONSUL.fullmatch(path)) is not None:
        return whole, consul[1], consul[2]
    if (namespace := _NAMESPACE.search(path)) is None:
        return whole, "", ""
    account = _ACCOUNT.search(path, namespace.end())
    return whole, namespace[1], account[1] if account is not None else ""
