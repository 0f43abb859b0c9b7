"""Istio's security.istio.io documents: PeerAuthentication, and what all of them share.

Names, defaults and meanings are those of istio/api (`peer_authentication.proto`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["MutualTLS", "MutualTLSMode", "PeerAuthenticationSpec", "PolicyTargetReference", "WorkloadSelector"]

MutualTLSMode = Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]


class _Message(msgspec.Struct, frozen=True, rename="camel"):
    """A message of the Istio API: immutable, in camel case on the wire."""


class WorkloadSelector(_Message, frozen=True):
    """Instances that wear all of these labels."""

    match_labels: dict[str, str] = {}


class PolicyTargetReference(_Message, frozen=True):
    """A gateway that a document is for, instead of processes that a selector chooses."""

    kind: str
    name: str
    group: str = ""
    namespace: str = ""


class MutualTLS(_Message, frozen=True):
    """UNSET inherits from the next wider document; without any it is PERMISSIVE."""

    mode: MutualTLSMode = "UNSET"


class PeerAuthenticationSpec(_Message, frozen=True):
    """Whether callers must come with mTLS. `portLevelMtls` needs a selector, as in Istio."""

    selector: WorkloadSelector | None = None
    mtls: MutualTLS | None = None
    port_level_mtls: dict[str, MutualTLS] = {}
