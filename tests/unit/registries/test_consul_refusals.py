"""What an operator is told to do when Consul refuses, or isn't what speaks there."""

from __future__ import annotations

import pytest

from meshlib.registries.consul.refusals import way_out


def told(method: str, path: str, *, service: str = "web", said: str = "Permission denied") -> str:
    return way_out(403, said, method, path, prefix="mesh/one", service=service)


@pytest.mark.parametrize(
    ("method", "path", "rule"),
    [
        ("PUT", "/v1/txn", 'key_prefix "mesh/one/" { policy = "write" }'),
        ("GET", "/v1/kv/mesh/one/", 'key_prefix "mesh/one/" { policy = "read" }'),
        ("PUT", "/v1/agent/service/register", 'service "web" { policy = "write" }'),
        ("PUT", "/v1/agent/check/update/web-1", 'service "web" { policy = "write" }'),
        ("GET", "/v1/connect/intentions/match", 'service "web" { policy = "write" }'),
        ("GET", "/v1/discovery-chain/a%20b", 'service "a b" { policy = "read" }'),
    ],
)
def test_the_rule_that_lacks_is_told_as_it_has_to_be_written(method: str, path: str, rule: str) -> None:
    assert told(method, path) == f"the ACL token needs {rule}"


def test_a_service_that_is_not_known_is_left_to_be_filled_in() -> None:
    assert 'service "<name>"' in told("PUT", "/v1/agent/service/register", service="")


def test_plain_text_to_a_tls_port_is_told_what_to_set() -> None:
    said = "Client sent an HTTP request to an HTTPS server."
    assert "scheme=https" in way_out(400, said, "GET", "/v1/catalog/services", prefix="meshlib", service="")
