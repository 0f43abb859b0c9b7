"""Small documents for registries to keep."""

from __future__ import annotations

import msgspec

from meshlib.resources.documents import Metadata, Origin, Resource
from meshlib.resources.networking import ServiceEntrySpec

__all__ = ["entry"]


def entry(name: str, host: str = "") -> Resource:
    """A ServiceEntry called `name` for `host`."""
    spec = {"hosts": [host or f"{name}.example"], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]}
    document = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": name},
        "spec": spec,
    }
    typed = msgspec.convert(spec, ServiceEntrySpec)
    return Resource("ServiceEntry", Metadata(name), typed, Origin(name), document)
