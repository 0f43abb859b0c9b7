"""What types can't say of AuthorizationPolicy and RequestAuthentication, by the rules Istio has for them."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib.resources.authentication import RequestAuthenticationSpec
from meshlib.resources.authorization import AuthorizationPolicySpec
from meshlib.resources.documents import Path
from meshlib.resources.shapes import Finding, check_labels

__all__ = ["check_authorization", "check_request_authentication"]


def check_authorization(spec: AuthorizationPolicySpec, at: Path) -> Iterator[Finding]:
    """The findings in an AuthorizationPolicy."""
    chosen = spec.selector.match_labels if spec.selector is not None else {}
    yield from check_labels(chosen, (*at, "selector", "matchLabels"))


def check_request_authentication(spec: RequestAuthenticationSpec, at: Path) -> Iterator[Finding]:
    """The findings in a RequestAuthentication."""
    chosen = spec.selector.match_labels if spec.selector is not None else {}
    yield from check_labels(chosen, (*at, "selector", "matchLabels"))
