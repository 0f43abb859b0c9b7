"""Documents as Consul's keys and values, in transactions that Consul takes."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from meshlib.errors import RegistryError
from meshlib.registries.consul.address import consul_settings
from meshlib.registries.consul.client import Answer
from meshlib.registries.consul.documents import MAX_VALUE_BYTES, DocumentStore, documents_of
from tests.contract.documents import entry

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Recording:
    """A client of a Consul that holds the keys it is told to, and takes what it is given."""

    settings = consul_settings("consul://?prefix=p&dc=dc2", {})

    def __init__(self, *keys: str) -> None:
        self._keys = keys
        self.put_to: list[tuple[str, bytes]] = []

    def error(self, problem: str, way_out: str = "") -> RegistryError:
        return RegistryError("consul", problem, way_out)

    async def get(self, path: str, params: Any, *, missing_ok: bool) -> Answer:
        assert (path, missing_ok) == ("/v1/kv/p/", True)
        return Answer(msgspec.json.encode(self._keys) if self._keys else b"", 1, {})

    async def put(self, path: str, params: Any, data: bytes) -> Answer:
        assert params == [("dc", "dc2")]
        self.put_to.append((path, data))
        return Answer(b"{}", 0, {})

    @property
    def transactions(self) -> list[list[dict[str, str]]]:
        return [[one["KV"] for one in msgspec.json.decode(data)] for path, data in self.put_to if path == "/v1/txn"]


def store(client: Recording) -> DocumentStore:
    return DocumentStore(client)  # type: ignore[arg-type]


async def test_sixty_four_documents_are_one_transaction() -> None:
    client = Recording()
    await store(client).apply([entry(f"n{number}") for number in range(64)])
    (operations,) = client.transactions
    assert len(operations) == 64
    assert operations[0]["Key"] == "p/default/ServiceEntry/n0"
    assert b'"n0.example"' in base64.b64decode(operations[0]["Value"])


async def test_no_transaction_is_more_than_consul_takes() -> None:
    client = Recording()
    await store(client).apply([entry(f"n{number}", "x" * 100_000) for number in range(10)] + [entry("small")])
    assert len(client.transactions) > 1
    assert all(len(data) <= MAX_VALUE_BYTES for _, data in client.put_to)
    assert sum(map(len, client.transactions)) == 11


async def test_a_document_too_large_for_any_transaction_is_put_by_itself() -> None:
    client = Recording()
    await store(client).apply([entry("before"), entry("large", "x" * 450_000), entry("after")])
    assert [path for path, _ in client.put_to] == ["/v1/txn", "/v1/kv/p/default/ServiceEntry/large", "/v1/txn"]


async def test_a_document_too_large_for_consul_is_refused_before_any_is_written() -> None:
    client = Recording()
    with pytest.raises(RegistryError, match="ServiceEntry/default/large"):
        await store(client).apply([entry("before"), entry("large", "x" * MAX_VALUE_BYTES)])
    assert client.put_to == []


async def test_only_what_is_there_is_deleted() -> None:
    client = Recording("p/default/ServiceEntry/one", "p/default/ServiceEntry/two")
    deleted = await store(client).delete([entry("one").key, entry("three").key])
    assert deleted == (entry("one").key,)
    assert client.transactions == [[{"Verb": "delete", "Key": "p/default/ServiceEntry/one"}]]


def pairs(*keys: str) -> bytes:
    return msgspec.json.encode([{"Key": key, "Value": base64.b64encode(key.encode()).decode()} for key in keys])


def test_documents_come_in_the_order_of_their_keys_and_folders_are_none() -> None:
    found = documents_of(pairs("p/b/Kind/y", "p/a/Kind/x", "p/", "p/a/"), "p")
    assert [(source.origin, source.text) for source in found.sources] == [
        ("p/a/Kind/x", b"p/a/Kind/x"),
        ("p/b/Kind/y", b"p/b/Kind/y"),
    ]
    assert found.warnings == ()


def test_keys_that_name_no_document_are_passed_over_in_words() -> None:
    found = documents_of(pairs("p/stray", "p/a/b/c/d", "q/a/b/c"), "p")
    assert found.sources == ()
    assert len(found.warnings) == 3
    assert "p/<namespace>/<kind>/<name>" in found.warnings[0]


def test_nothing_beneath_the_prefix_is_no_document() -> None:
    assert documents_of(b"", "p").sources == ()
