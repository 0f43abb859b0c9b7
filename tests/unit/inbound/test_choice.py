"""Which of the addresses a server is bound to is registered."""

from __future__ import annotations

import pytest

from meshlib.inbound.listening import Address, choose


@pytest.mark.parametrize(
    ("bound", "registered"),
    [
        ([("127.0.0.1", 80)], ("127.0.0.1", 80)),
        ([("10.1.2.3", 80)], ("10.1.2.3", 80)),
        ([("0.0.0.0", 80)], ("127.0.0.1", 80)),
        ([("::", 80)], ("::1", 80)),
        ([("::1", 80), ("127.0.0.1", 80)], ("127.0.0.1", 80)),
        ([("::", 80), ("0.0.0.0", 80)], ("127.0.0.1", 80)),
        ([("127.0.0.1", 80), ("127.0.0.1", 9090)], None),
    ],
)
def test_one_port_is_one_server_and_a_wildcard_is_reached_over_loopback(
    bound: list[Address], registered: Address | None
) -> None:
    assert choose(bound) == registered


@pytest.mark.parametrize(
    ("bound", "registered"),
    [
        ([("127.0.0.1", 80)], ("127.0.0.1", 80)),
        ([("0.0.0.0", 80)], ("0.0.0.0", 80)),
        ([("::", 80), ("0.0.0.0", 80)], ("0.0.0.0", 80)),
        ([("0.0.0.0", 80), ("0.0.0.0", 81)], None),
    ],
)
def test_a_wildcard_stays_one_where_the_registry_knows_the_machine(
    bound: list[Address], registered: Address | None
) -> None:
    assert choose(bound, of_machine=True) == registered
