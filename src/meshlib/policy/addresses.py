"""IP addresses and blocks as numbers."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Sequence

__all__ = ["any_block"]

Address = tuple[int, int]
"""IP version and the address as a number."""


def any_block(values: Sequence[str]) -> Callable[[str], bool | None] | None:
    """Whether an address is in one of `values`, addresses or CIDR blocks; None where the address isn't known.

    Returns:
        None when one of `values` is no such block.
    """
    single: set[Address] = set()
    blocks: list[tuple[int, int, int]] = []
    try:
        for value in values:
            network = ipaddress.ip_network(value, strict=False)
            mask = int(network.netmask)
            if network.num_addresses == 1:
                single.add((network.version, int(network.network_address)))
            else:
                blocks.append((network.version, int(network.network_address), mask))
    except ValueError:
        return None

    def holds(address: str) -> bool | None:
        found = _number(address)
        if found is None:
            return None
        if found in single:
            return True
        version, number = found
        return any(kind == version and number & mask == network for kind, network, mask in blocks)

    return holds


@functools.lru_cache(maxsize=4096)
def _number(address: str) -> Address | None:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)  # how an IPv4 caller looks on a socket for both
    return (4, int(mapped)) if mapped is not None else (found.version, int(found))
