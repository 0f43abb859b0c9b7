"""Everything that meshlib raises.

    MeshError
    ├── SettingsError(ValueError)        a MESHLIB_* variable or an argument is wrong
    ├── InvalidDocuments(ValueError)     documents that cannot be applied; carries every problem
    ├── RegistryError                    the registry is away, damaged, locked or full
    ├── IdentityError                    where keys and certificates come from is away, or what came is of no use
    └── CallError                        a call that brought no response; carries its evidence
        ├── UnknownHost        UH        registry-only, and the mesh doesn't know the host
        ├── NoEndpoints        UH        the cluster has no endpoint at all
        ├── CircuitOpen        UO        the circuit breaker refused the call
        ├── Overflow           UO        a limit of connectionPool refused the call
        ├── DeadlineExceeded   DT        the deadline of the whole call ran out
        ├── AttemptTimeout     UT        the last attempt ran into its own timeout
        ├── ConnectFailed      UF        no connection could be opened
        ├── ConnectionBroken   UC        the connection broke before the response head
        └── BadResponse        UPE       what came back is not HTTP

The codes are Envoy's response flags where Envoy has one. What a transport raises is, besides, the exception of the
HTTP client in use that `except` clauses wait for: `for_client` joins the two, so that a `ConnectFailed` raised under
httpx is an `httpx.ConnectError` and under httpx2 an `httpx2.ConnectError`. A `CircuitOpen` is a
`pybreaker.CircuitBreakerError` too.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from meshlib.resources import Problem

__all__ = [
    "Attempt",
    "AttemptTimeout",
    "BadResponse",
    "CallError",
    "CircuitOpen",
    "ConnectFailed",
    "ConnectionBroken",
    "DeadlineExceeded",
    "Evidence",
    "IdentityError",
    "InvalidDocuments",
    "MeshError",
    "NoEndpoints",
    "Overflow",
    "RegistryError",
    "SettingsError",
    "UnknownHost",
]


class MeshError(Exception):
    """The base of everything meshlib raises on purpose."""


class SettingsError(MeshError, ValueError):
    """A variable or an argument has a value that is not allowed; the message names it, its value and what is."""


class InvalidDocuments(MeshError, ValueError):
    """Some documents can't be applied. Nothing of what was in force before is lost.

    Attributes:
        problems: what is wrong, each with its file, document, path and what was expected.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RegistryError(MeshError):
    """The registry cannot be read or written just now. The last good configuration stays in force.

    Attributes:
        registry: the registry's URL.
        problem: what is wrong, in words.
        way_out: what to do about it.
    """

    def __init__(self, registry: str, problem: str, way_out: str = "") -> None:
        self.registry = registry
        self.problem = problem
        self.way_out = way_out
        super().__init__(f"{registry}: {problem}" + (f" ({way_out})" if way_out else ""))


class IdentityError(MeshError):
    """Keys and certificates can't be had just now, or are of no use. Those in force stay so until they expire.

    Attributes:
        source: where they come from, as MESHLIB_IDENTITY says.
        problem: what is wrong, in words.
        way_out: what to do about it.
    """

    def __init__(self, source: str, problem: str, way_out: str = "") -> None:
        self.source = source
        self.problem = problem
        self.way_out = way_out
        super().__init__(f"{source}: {problem}" + (f" ({way_out})" if way_out else ""))


class Attempt(NamedTuple):
    """One try of a call.

    Attributes:
        endpoint: `host:port` it went to.
        outcome: the status as text, or the word of `meshlib.call.effects.Failure`, or `abandoned`.
        started: seconds after the call began.
        seconds: how long it took to the response head or the failure.
        kind: `first`, `retry` or `hedge`.
    """

    endpoint: str
    outcome: str
    started: float
    seconds: float
    kind: str = "first"


class Evidence(NamedTuple):
    """What is known of a call: on errors as `evidence`, of a response as `extensions["meshlib"].evidence(now)`.

    Attributes:
        host: the logical host that was asked for.
        route: the name of the route taken, "" when none was.
        cluster: the name of the cluster chosen, "" when none was.
        attempts: every attempt in order.
        version: of the configuration in force when the call began.
        elapsed: seconds the call took.
    """

    host: str
    route: str = ""
    cluster: str = ""
    attempts: tuple[Attempt, ...] = ()
    version: str = ""
    elapsed: float = 0.0

    def __str__(self) -> str:
        where = f"route {self.route or '-'}, cluster {self.cluster or '-'}"
        lines = [f"host {self.host}, {where}, configuration {self.version}"]
        lines += [
            f"  {number}. {attempt.kind} to {attempt.endpoint}: {attempt.outcome} after {attempt.seconds * 1000:.0f} ms"
            for number, attempt in enumerate(self.attempts, 1)
        ]
        return "\n".join(lines)


class CallError(MeshError):
    """A call that brought no response.

    Attributes:
        reason: a short code, Envoy's response flag where there is one.
        evidence: host, route, cluster, every attempt, configuration version.
        request: the client's request, where its own exceptions have it.
    """

    reason: ClassVar[str] = "-"
    client_bases: ClassVar[tuple[str, ...]] = ("ConnectError",)
    request: Any

    def __init__(self, message: str, evidence: Evidence) -> None:
        self.evidence = evidence
        self.message = message
        self._request = None
        Exception.__init__(self, message, evidence)

    def __str__(self) -> str:
        return f"[{self.reason}] {self.message}\n{self.evidence}"

    def __reduce__(self) -> tuple[object, ...]:
        client = next((base.__module__ for base in type(self).__mro__ if base.__name__ in self.client_bases), "")
        return _unpickle, (_plain(type(self)).__name__, client.partition(".")[0], self.message, self.evidence)


class UnknownHost(CallError):
    """The mesh doesn't know the host, and MESHLIB_OUTBOUND is `registry-only`."""

    reason = "UH"


class NoEndpoints(CallError):
    """The cluster has no endpoint at all: nobody registered, or no endpoint wears the subset's labels."""

    reason = "UH"


class CircuitOpen(CallError):
    """The cluster's circuit breaker is open, or half-open with all its probes out. Nothing was sent."""

    reason = "UO"


class Overflow(CallError):
    """A limit of connectionPool is reached. Nothing was sent."""

    reason = "UO"
    client_bases = ("PoolTimeout",)


class DeadlineExceeded(CallError):
    """The deadline of the whole call ran out: retries, backoff and hedges spend one purse."""

    reason = "DT"
    client_bases = ("ReadTimeout",)


class AttemptTimeout(CallError):
    """The last attempt ran into its own timeout, and no further attempt was allowed."""

    reason = "UT"
    client_bases = ("ReadTimeout",)


class ConnectFailed(CallError):
    """No connection could be opened, and no further attempt was allowed."""

    reason = "UF"


class ConnectTimedOut(ConnectFailed):
    """Opening the connection took longer than the connect timeout allows."""

    client_bases = ("ConnectTimeout",)


class ConnectionBroken(CallError):
    """The connection broke before a response head came, and the request could not be sent again safely."""

    reason = "UC"
    client_bases = ("ReadError",)


class BadResponse(CallError):
    """What came back is not HTTP."""

    reason = "UPE"
    client_bases = ("RemoteProtocolError",)


def for_client(error: type[CallError], client: ModuleType) -> type[CallError]:
    """The class to raise under `client` (httpx or httpx2): `error`, and the client's own exception as well."""
    key = (error, client.__name__)
    joined = _joined.get(key)
    if joined is None:
        joined = _joined[key] = _join(error, client)
    return joined


_joined: dict[tuple[type, str], type[CallError]] = {}


def _join(error: type[CallError], client: ModuleType) -> type[CallError]:
    bases: list[type] = [error]
    bases += [getattr(client, name) for name in error.client_bases]
    if issubclass(error, CircuitOpen) and (pybreaker := sys.modules.get("pybreaker")) is not None:
        # The agent imports pybreaker when a circuit breaker is configured; without one nobody can be waiting for it.
        bases.append(pybreaker.CircuitBreakerError)
    joined: type[CallError] = types.new_class(error.__name__, tuple(bases))
    joined.__module__ = error.__module__
    joined.__doc__ = error.__doc__
    return joined


def _plain(joined: type) -> type:
    return next(base for base in joined.__mro__ if base.__module__ == __name__ and base not in _joined.values())


def _unpickle(name: str, client: str, message: str, evidence: Evidence) -> CallError:
    error: type[CallError] = vars(sys.modules[__name__])[name]
    module = sys.modules.get(client)
    return (error if module is None else for_client(error, module))(message, evidence)
