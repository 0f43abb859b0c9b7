"""Istio's AuthorizationPolicy: who may do what here.

Names, defaults and meanings are those of istio/api (`authorization_policy.proto`). A text is compared exactly, as a
prefix (`abc*`), as a suffix (`*abc`) or for being there at all (`*`); values of one field are alternatives, fields of
one message must all hold.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from meshlib.resources.security import PolicyTargetReference, WorkloadSelector

__all__ = [
    "DRY_RUN",
    "AuthorizationAction",
    "AuthorizationCondition",
    "AuthorizationFrom",
    "AuthorizationPolicySpec",
    "AuthorizationRule",
    "AuthorizationSource",
    "AuthorizationTo",
    "ExtensionProviderRef",
    "Operation",
]

DRY_RUN = "istio.io/dry-run"
"""The annotation of a policy that is only counted and logged; its value is "true"."""

AuthorizationAction = Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"]


class _Message(msgspec.Struct, frozen=True, rename="camel"):
    """A message of the Istio API: immutable, in camel case on the wire."""


class AuthorizationSource(_Message, frozen=True):
    """Who asks.

    Attributes:
        principals: identities of callers, without `spiffe://`: `cluster.local/ns/default/sa/productpage`.
        request_principals: issuer and subject of a verified token, `<iss>/<sub>`.
        namespaces: of callers' identities.
        service_accounts: of callers' identities: `name` of this namespace, or `namespace/name`.
        ip_blocks: addresses of connections, single or CIDR.
        remote_ip_blocks: of whom a trusted hop made the request for (`x-forwarded-for`).
    """

    principals: tuple[str, ...] = ()
    not_principals: tuple[str, ...] = ()
    request_principals: tuple[str, ...] = ()
    not_request_principals: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    not_namespaces: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()
    not_service_accounts: tuple[str, ...] = ()
    ip_blocks: tuple[str, ...] = ()
    not_ip_blocks: tuple[str, ...] = ()
    remote_ip_blocks: tuple[str, ...] = ()
    not_remote_ip_blocks: tuple[str, ...] = ()


class Operation(_Message, frozen=True):
    """What is asked for. Paths are without the query and may be templates: `{*}` is a segment, `{**}` any number."""

    hosts: tuple[str, ...] = ()
    not_hosts: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    not_ports: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    not_methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    not_paths: tuple[str, ...] = ()


class AuthorizationFrom(_Message, frozen=True):
    """One alternative of `from`."""

    source: AuthorizationSource


class AuthorizationTo(_Message, frozen=True):
    """One alternative of `to`."""

    operation: Operation


class AuthorizationCondition(_Message, frozen=True):
    """A further condition: an attribute of the request, such as `request.headers[x-team]`, and what it must be."""

    key: str
    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()


class AuthorizationRule(_Message, frozen=True):
    """Any of `from`, any of `to` and all of `when` must hold; a rule without any of them always does."""

    from_: tuple[AuthorizationFrom, ...] = msgspec.field(default=(), name="from")
    to: tuple[AuthorizationTo, ...] = ()
    when: tuple[AuthorizationCondition, ...] = ()


class ExtensionProviderRef(_Message, frozen=True):
    """Who decides for `action: CUSTOM`: the name of one of the InboundPolicy's `extensionProviders`."""

    name: str


class AuthorizationPolicySpec(_Message, frozen=True):
    """Applied when any of `rules` holds; without rules never, so that ALLOW without rules lets nobody in."""

    selector: WorkloadSelector | None = None
    rules: tuple[AuthorizationRule, ...] = ()
    action: AuthorizationAction = "ALLOW"
    provider: ExtensionProviderRef | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: tuple[PolicyTargetReference, ...] = ()
