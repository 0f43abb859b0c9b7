"""The two answers of inbound policy: a permit and a denial."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import NamedTuple

from meshlib.policy.notes import Note

__all__ = [
    "DENIED",
    "EXPIRED",
    "FAULT",
    "GIVEN_UP",
    "LIMITED",
    "OVERLOADED",
    "TOO_LARGE",
    "UNCOUNTED",
    "UNREADY",
    "UNSAFE",
    "UNVERIFIED",
    "Denial",
    "Permit",
    "deny",
    "phrase",
    "with_reply",
]

DENIED = "RBAC"
"""The reason of a request that may not come in; Envoy's details say `rbac_access_denied`."""

UNREADY = "NOCONFIG"
"""The reason of a request that nobody can judge yet."""

UNVERIFIED = "JWT"
"""The reason of a request whose token isn't accepted; Envoy's details say `jwt_authn_access_denied`."""

UNSAFE = "PATH"
"""The reason of a request whose path can be read in two ways."""

LIMITED = "RL"
"""The reason of a request beyond a rate limit; RL is Envoy's response flag."""

UNCOUNTED = "RLSE"
"""The reason of a request whose rate limit can't be counted; RLSE is Envoy's response flag for that."""

OVERLOADED = "UO"
"""The reason of a request beyond what can be served now; UO is Envoy's response flag for an overflow."""

EXPIRED = "DT"
"""The reason of work whose caller has stopped waiting; DT is Envoy's response flag for a deadline that ran out."""

TOO_LARGE = "SIZE"
"""The reason of a request beyond the InboundPolicy's bounds."""

FAULT = "FI"
"""The reason of an injected fault; FI is Envoy's response flag."""

ADDING_UP = frozenset((b"set-cookie", b"vary"))
"""Headers of responses of which none replaces another."""

RawHeader = tuple[bytes, bytes]


class Denial(NamedTuple):
    """The answer to a request that doesn't reach the application.

    Attributes:
        status: of the response.
        headers: of the response, all of them.
        body: an `application/problem+json` that tells the caller no more of the rules than it needs.
        reason: for the log, in words.
        code: one of the reasons above, "" for an answer that is no refusal (to a CORS preflight).
        by: what refused, for counters: a policy's `namespace/name`, a limit's name; "" where the code says it all.
        notes: of the permit that it didn't become.
    """

    status: int
    headers: Sequence[RawHeader]
    body: bytes
    reason: str
    code: str = ""
    by: str = ""
    notes: Sequence[Note] = ()


class Permit:
    """Leave to come in, in the making while the steps of admission go on.

    Attributes:
        add: headers for the application; what the caller sent under their names is taken away.
        remove: names of headers (lower case) the application doesn't see.
        query: the query the application sees, None: as it came.
        reply: headers for the response. They replace the application's own of these names, and others of these, except
            where values add up (`set-cookie`, `vary`).
        notes: what happened on the way that is only counted and logged: dry runs, AUDIT.
        priority: of the request.
    """

    __slots__ = ("_endings", "add", "notes", "priority", "query", "remove", "reply")

    def __init__(self) -> None:
        self.add: list[RawHeader] = []
        self.remove: set[bytes] = set()
        self.query: bytes | None = None
        self.reply: list[RawHeader] = []
        self.notes: list[Note] = []
        self.priority = ""
        self._endings: list[Callable[[int | None, float], None]] = []

    @property
    def watched(self) -> bool:
        """Whether anybody is to hear of the end, or the response gets headers."""
        return bool(self._endings or self.reply)

    def on_end(self, ending: Callable[[int | None, float], None]) -> None:
        """Have `ending(status, now)` called once when the request has ended, whatever became of it.

        The status is the response's, None where there was none; `now` is monotonic seconds.
        """
        self._endings.append(ending)

    def end(self, status: int | None, now: float) -> None:
        """The request has ended. A second call does nothing."""
        endings, self._endings = self._endings, []
        for ending in endings:
            ending(status, now)


def with_reply(headers: Iterable[RawHeader], reply: Sequence[RawHeader]) -> list[RawHeader]:
    """The headers of a response with those of `Permit.reply`."""
    replaced = {name for name, _ in reply if name not in ADDING_UP}
    kept = [pair for pair in headers if pair[0].lower() not in replaced]
    kept += reply
    return kept


def phrase(status: int) -> str:
    """What a status is called."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def deny(status: int, code: str, detail: str, reason: str, headers: Sequence[RawHeader] = (), by: str = "") -> Denial:
    """A denial.

    Args:
        status: of the response.
        code: why, for machines.
        detail: for the caller: nothing by which an attacker gets on.
        reason: for the log: everything.
        headers: more of the response.
        by: what refused; see `Denial`.
    """
    problem = {"type": "about:blank", "title": phrase(status), "status": status, "detail": detail}
    body = json.dumps(problem, separators=(",", ":")).encode()
    every = (
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-meshlib-reason", code.encode()),
        *headers,
    )
    return Denial(status, every, body, reason, code, by)


GIVEN_UP = deny(
    504, EXPIRED, "the deadline of the caller had passed when this request arrived", "its caller has stopped waiting"
)
"""The answer to expired work."""
