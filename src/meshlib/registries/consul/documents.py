"""Documents in Consul's key-value store: `<prefix>/<namespace>/<kind>/<name>`, each a document as JSON."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from meshlib.registries.base import MAX_DOCUMENT_BYTES, MAX_DOCUMENTS
from meshlib.registries.consul.client import ConsulClient
from meshlib.resources import Resource, ResourceKey, Source, encode

__all__ = ["MAX_VALUE_BYTES", "DocumentStore", "Documents", "documents_of"]

MAX_VALUE_BYTES = 512 * 1024
"""Consul's limit for a value (`kv_max_value_size`), and for a transaction as it is sent (`txn_max_req_len`)."""

MAX_OPERATIONS = 64
"""Consul's limit for a transaction."""

MAX_WARNINGS = 20

_OVERHEAD = 80  # bytes of an operation besides its key and its value


class Documents(NamedTuple):
    """The documents of one answer, and what was passed over, in words."""

    sources: tuple[Source, ...]
    warnings: tuple[str, ...]


class _Pair(msgspec.Struct, rename="pascal"):
    key: str
    value: bytes | None = None


def documents_of(answer: bytes, prefix: str) -> Documents:
    """The documents in an answer of `/v1/kv/<prefix>/?recurse`; none in the b"" that stands for 404.

    Raises:
        ValueError: it isn't such an answer.
    """
    pairs = msgspec.json.decode(answer, type=list[_Pair]) if answer else []
    sources: list[Source] = []
    warnings = []
    for pair in sorted(pairs, key=lambda pair: pair.key):
        if pair.key.endswith("/"):
            continue  # a folder, as Consul's own pages make them
        if not pair.key.startswith(f"{prefix}/") or pair.key.removeprefix(f"{prefix}/").count("/") != 2:
            warnings.append(f"the key {pair.key[:200]} is passed over; expected {prefix}/<namespace>/<kind>/<name>")
        elif len(pair.value or b"") > MAX_DOCUMENT_BYTES or len(sources) >= MAX_DOCUMENTS:
            raise ValueError(f"{pair.key[:200]} is too large, or one of more than {MAX_DOCUMENTS} documents")
        else:
            sources.append(Source(pair.key, pair.value or b""))
    return Documents(tuple(sources), tuple(warnings[:MAX_WARNINGS]))


class DocumentStore:
    """Writes documents.

    Up to 64 documents that have 512 KiB as they are sent are one transaction of Consul's, all or none. More are several
    transactions, after all of them were found to be small enough; a Consul that goes away between two of them has some.
    """

    def __init__(self, client: ConsulClient) -> None:
        self._client = client

    async def apply(self, resources: Iterable[Resource]) -> None:
        """Create or replace. Raises RegistryError; when a document is too large, before any is written."""
        documents = {resource.key: encode(resource) for resource in resources}
        for key, body in documents.items():
            if len(body) > MAX_VALUE_BYTES:
                raise self._client.error(
                    f"{key} has {len(body)} bytes; Consul takes {MAX_VALUE_BYTES} at most", "split it"
                )
        if not documents:
            return
        values = {self._key(key): body for key, body in documents.items()}
        if len((await self._keys()) | values.keys()) > MAX_DOCUMENTS:
            raise self._client.error(f"would hold more than {MAX_DOCUMENTS} documents", "delete some first")
        for batch in _batches(values):
            if sum(map(_size, batch, (values[name] for name in batch))) > MAX_VALUE_BYTES:
                (large,) = batch  # too large for a transaction, where it is sent as base64, and alone in its batch
                await self._client.put(f"/v1/kv/{quote(large)}", self._datacenter(), values[large])
            else:
                await self._transact(
                    [{"Verb": "set", "Key": name, "Value": base64.b64encode(values[name]).decode()} for name in batch]
                )

    async def delete(self, keys: Iterable[ResourceKey]) -> tuple[ResourceKey, ...]:
        """Delete, and say which were there. Raises RegistryError."""
        wanted = tuple(dict.fromkeys(keys))
        if not wanted:
            return ()
        there = await self._keys()
        found = tuple(key for key in wanted if self._key(key) in there)
        for batch in _batches({self._key(key): b"" for key in found}):
            await self._transact([{"Verb": "delete", "Key": key} for key in batch])
        return found

    def _key(self, key: ResourceKey) -> str:
        return f"{self._client.settings.prefix}/{key.namespace}/{key.kind}/{key.name}"

    def _datacenter(self) -> list[tuple[str, str]]:
        datacenter = self._client.settings.datacenter
        return [("dc", datacenter)] if datacenter else []

    async def _keys(self) -> frozenset[str]:
        path = f"/v1/kv/{quote(self._client.settings.prefix)}/"
        answer = await self._client.get(path, [("keys", ""), *self._datacenter()], missing_ok=True)
        try:
            return frozenset(msgspec.json.decode(answer.data, type=list[str]) if answer.data else ())
        except (msgspec.DecodeError, RecursionError) as error:
            raise self._client.error(f"the answer to GET {path} can't be read: {error}") from error

    async def _transact(self, operations: list[dict[str, str]]) -> None:
        body = msgspec.json.encode([{"KV": operation} for operation in operations])
        await self._client.put("/v1/txn", self._datacenter(), body)


def _batches(values: Mapping[str, bytes]) -> Iterator[list[str]]:
    """The keys in transactions that Consul takes; one that is too large for any stands alone."""
    batch: list[str] = []
    size = 2
    for key, value in values.items():
        if batch and (len(batch) == MAX_OPERATIONS or size + _size(key, value) > MAX_VALUE_BYTES):
            yield batch
            batch, size = [], 2
        batch.append(key)
        size += _size(key, value)
    if batch:
        yield batch


def _size(key: str, value: bytes) -> int:
    """The bytes of an operation as it is sent."""
    return _OVERHEAD + len(key.encode()) + (len(value) + 2) // 3 * 4
