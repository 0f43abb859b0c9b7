"""RequestAuthentication, compiled: where tokens are, and what they must say."""

from __future__ import annotations

__all__ = ["TokenRules"]


class TokenRules:
    """The rules of one process."""
