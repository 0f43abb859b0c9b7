"""What to do when Consul refuses: the rule an ACL token lacks, by the path that was asked for. Pure."""

from __future__ import annotations

from urllib.parse import unquote

__all__ = ["way_out"]

_RULES = (
    ("/v1/kv/", 'key_prefix "{0}" {{ policy = "{access}" }}'),
    ("/v1/txn", 'key_prefix "{prefix}/" {{ policy = "write" }}'),
    ("/v1/health/service/", 'service "{0}" {{ policy = "read" }} and node_prefix "" {{ policy = "read" }}'),
    ("/v1/catalog/", 'service_prefix "" {{ policy = "read" }} and node_prefix "" {{ policy = "read" }}'),
    ("/v1/discovery-chain/", 'service "{0}" {{ policy = "read" }}'),
    ("/v1/config/", 'service_prefix "" {{ policy = "read" }}'),
    ("/v1/connect/intentions", 'service "{service}" {{ policy = "write" }}'),
    ("/v1/agent/connect/ca/leaf/", 'service "{0}" {{ policy = "write" }}'),
    ("/v1/agent/service/", 'service "{service}" {{ policy = "write" }}'),
    ("/v1/agent/check/", 'service "{service}" {{ policy = "write" }}'),
    ("/v1/agent/connect/authorize", 'service "{service}" {{ policy = "write" }}'),
    ("/v1/agent/", 'agent_prefix "" {{ policy = "read" }}'),
)


def way_out(status: int, said: str, method: str, path: str, *, prefix: str, service: str) -> str:
    """What to do about an answer that isn't 200.

    Args:
        status: of the answer.
        said: the beginning of its body.
        method: of the request.
        path: what was asked for.
        prefix: of the keys that hold documents.
        service: this process's, "" when it isn't known.
    """
    if status in {401, 403} and "not found" in said.lower():
        return "Consul doesn't know this ACL token; see CONSUL_HTTP_TOKEN and token_file"
    if status in {401, 403} or "permission denied" in said.lower():
        access = "read" if method == "GET" else "write"
        for start, rule in _RULES:
            if path.startswith(start):
                name = unquote(path.removeprefix(start))
                return "the ACL token needs " + rule.format(
                    name, access=access, prefix=prefix, service=service or "<name>"
                )
        return "the ACL token needs more rights"
    if "no cluster leader" in said.lower():
        return "Consul's servers have no leader just now"
    if "http request to an https server" in said.lower():
        return "that port speaks TLS: set scheme=https, and ca_file if it isn't a public CA's"
    return "see the agent's log" if status >= 500 else "is that Consul?"
