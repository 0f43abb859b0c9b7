"""The exception tree."""

from __future__ import annotations

import copy
import pickle
from types import ModuleType

import httpx
import httpx2
import pybreaker
import pytest

import meshlib
from meshlib import errors
from meshlib.errors import Attempt, Evidence, for_client

EVIDENCE = Evidence(
    "reviews", "reviews[0]", "reviews|v2", (Attempt("10.0.0.1:80", "503", 0.0, 0.02),), "v7", elapsed=0.02
)
CALL_ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.CallError)]


@pytest.mark.parametrize("client", [httpx, httpx2])
@pytest.mark.parametrize(
    ("kind", "caught_by"),
    [
        (errors.UnknownHost, "ConnectError"),
        (errors.NoEndpoints, "ConnectError"),
        (errors.CircuitOpen, "ConnectError"),
        (errors.ConnectFailed, "ConnectError"),
        (errors.ConnectTimedOut, "ConnectTimeout"),
        (errors.ConnectionBroken, "ReadError"),
        (errors.AttemptTimeout, "TimeoutException"),
        (errors.DeadlineExceeded, "TimeoutException"),
        (errors.Overflow, "PoolTimeout"),
        (errors.BadResponse, "RemoteProtocolError"),
    ],
)
def test_a_failure_is_the_clients_own_exception_too(
    client: ModuleType, kind: type[errors.CallError], caught_by: str
) -> None:
    raised = for_client(kind, client)("it failed", EVIDENCE)
    assert isinstance(raised, kind)
    assert isinstance(raised, getattr(client, caught_by))
    assert isinstance(raised, client.HTTPError)


def test_an_open_circuit_is_pybreakers_error_too() -> None:
    assert issubclass(for_client(errors.CircuitOpen, httpx), pybreaker.CircuitBreakerError)


@pytest.mark.parametrize("kind", CALL_ERRORS, ids=lambda kind: kind.__name__)
def test_the_message_carries_the_evidence(kind: type[errors.CallError]) -> None:
    text = str(for_client(kind, httpx)("it failed", EVIDENCE))
    for part in (kind.reason, "it failed", "reviews", "reviews[0]", "reviews|v2", "v7", "10.0.0.1:80", "503", "20 ms"):
        assert part in text


@pytest.mark.parametrize("kind", CALL_ERRORS, ids=lambda kind: kind.__name__)
def test_errors_survive_pickling_and_copying(kind: type[errors.CallError]) -> None:
    raised = for_client(kind, httpx)("it failed", EVIDENCE)
    for again in (
        pickle.loads(pickle.dumps(raised)),
        copy.copy(raised),
        pickle.loads(pickle.dumps(kind("x", EVIDENCE))),
    ):
        assert isinstance(again, kind)
        assert again.evidence == EVIDENCE


def test_an_error_pickled_under_httpx_is_httpxs_after_it() -> None:
    raised = for_client(errors.ConnectFailed, httpx)("it failed", EVIDENCE)
    assert isinstance(pickle.loads(pickle.dumps(raised)), httpx.ConnectError)


def test_every_reason_code_is_in_the_drawn_tree() -> None:
    for kind in CALL_ERRORS:
        if kind not in (errors.CallError, errors.ConnectTimedOut):
            assert f"{kind.__name__} " in (errors.__doc__ or "")
            assert kind.reason in (errors.__doc__ or "")


def test_public_names_are_few_and_all_there() -> None:
    assert len(meshlib.__all__) <= 25
    assert all(hasattr(meshlib, name) for name in meshlib.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Sidecar'"):
        _ = meshlib.Sidecar  # type: ignore[attr-defined]
