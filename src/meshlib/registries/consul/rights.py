"""What an ACL token must be allowed to read, and what of that it isn't. Pure.

Consul leaves out of its lists what a token may not read, without a word: a missing rule looks like an empty catalog. So
it is asked what the token may do, as Consul's own web interface does (`/v1/internal/acl/authorize`, since 1.8).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

__all__ = ["MAX_RIGHTS", "Right", "lacking", "request"]

MAX_RIGHTS = 1000
"""The most that are asked about at once."""


class Right(NamedTuple):
    """To read something.

    Attributes:
        resource: `key`, `node` or `service`.
        segment: its name; with "" all there are, a key's ends in `/` and stands for what begins with it.
    """

    resource: str
    segment: str

    @property
    def rule(self) -> str:
        """The rule of a policy that gives it."""
        whole = self.segment and not self.segment.endswith("/")
        return f'{self.resource}{"" if whole else "_prefix"} "{self.segment}" {{ policy = "read" }}'


def request(rights: Iterable[Right]) -> str:
    """What to POST."""
    asked = [{"Resource": right.resource, "Segment": right.segment, "Access": "read"} for right in sorted(set(rights))]
    return msgspec.json.encode(asked[:MAX_RIGHTS]).decode()


class _Judged(msgspec.Struct, rename="pascal"):
    resource: str
    allow: bool
    segment: str = ""


def lacking(answer: bytes) -> tuple[Right, ...]:
    """Those that the token hasn't. Raises ValueError when it isn't such an answer."""
    judged = msgspec.json.decode(answer, type=list[_Judged])
    return tuple(Right(one.resource, one.segment) for one in judged if not one.allow)
