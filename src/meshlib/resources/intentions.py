"""Who may call a service, in the words of Consul's intentions."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["HeaderPermission", "Intention", "Intentions", "Permission"]

Action = Literal["allow", "deny"]


class _Message(msgspec.Struct, frozen=True):
    """Immutable; kept on disk with the last good configuration."""


class HeaderPermission(_Message, frozen=True):
    """A condition on a header: at most one of the texts; none of them: the header is present."""

    name: str
    exact: str | None = None
    prefix: str | None = None
    suffix: str | None = None
    regex: str | None = None
    invert: bool = False
    ignore_case: bool = False


class Permission(_Message, frozen=True):
    """One of an intention's L7 permissions: all conditions must hold; the first permission that fits decides."""

    action: Action
    path_exact: str | None = None
    path_prefix: str | None = None
    path_regex: str | None = None
    methods: tuple[str, ...] = ()
    headers: tuple[HeaderPermission, ...] = ()


class Intention(_Message, frozen=True):
    """What callers of one service may do.

    Attributes:
        source: the calling service's name, or "*" for any.
        action: None when `permissions` decide; a request none of them fits is then denied.
    """

    source: str
    action: Action | None
    permissions: tuple[Permission, ...] = ()
    source_namespace: str = "default"


class Intentions(_Message, frozen=True):
    """The intentions that hold for one destination.

    Attributes:
        rules: by precedence, the first that fits the caller decides.
        default_allow: whether a caller none of them fits is let in: the ACL system's default policy.
    """

    rules: tuple[Intention, ...] = ()
    default_allow: bool = False
