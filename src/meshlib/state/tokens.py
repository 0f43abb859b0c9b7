"""The keys of issuers, and what was compiled of the rules for their tokens; both survive a plan swap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from meshlib.policy.keyring import Keyring
    from meshlib.policy.tokens import TokenRules
    from meshlib.resources import JWTRule

__all__ = ["IssuerKeys", "KeySource", "TokenState"]

MOST_UNUSED = 100
"""Sources that no plan names any more and whose keys are kept, for policies that come and go."""


class KeySource(NamedTuple):
    """Where keys are fetched.

    Attributes:
        issuer: whose.
        uri: of the key set, "": as the issuer's OpenID Connect discovery says.
        timeout: seconds for all of it.
    """

    issuer: str
    uri: str
    timeout: float


class IssuerKeys:
    """The keys of one source. One thread writes, by single stores; requests read.

    Args:
        source: None for keys that a document holds itself.
        ring: the keys, None: they were never had.

    Attributes:
        error: why they aren't there or couldn't be refreshed, "" when nothing is wrong.
    """

    __slots__ = ("error", "ring", "source")

    def __init__(self, source: KeySource | None, ring: Keyring | None = None, error: str = "") -> None:
        self.source = source
        self.ring = ring
        self.error = error


class TokenState:
    """What is known of issuers. Written by whoever compiles plans; one at a time.

    Attributes:
        wanted: the keys that the newest plan needs fetched.
        compiled: the newest rules, and what they were compiled from.
        fault: why no token can be verified at all, "" when they can, or needn't be.
    """

    __slots__ = ("_keys", "compiled", "fault", "wanted")

    def __init__(self) -> None:
        self._keys: dict[KeySource, IssuerKeys] = {}
        self.wanted: tuple[IssuerKeys, ...] = ()
        self.compiled: tuple[tuple[JWTRule, ...], TokenRules] | None = None
        self.fault = ""

    @property
    def trouble(self) -> str:
        """What there is to say against the keys of the newest rules, "" when nothing."""
        rules = self.compiled[1].rules if self.compiled is not None else ()
        said = (f"{rule.issuer}: {rule.keys.error}" for rule in rules if rule.keys.error)
        return "\n".join(dict.fromkeys([self.fault, *said] if self.fault else said))

    def want(self, sources: Iterable[KeySource]) -> dict[KeySource, IssuerKeys]:
        """From now on these are needed, and no others. What is known of them is kept."""
        wanted = {source: self._keys.get(source, IssuerKeys(source)) for source in sources}
        unused = [pair for pair in self._keys.items() if pair[0] not in wanted]
        self._keys = {**dict(unused[-MOST_UNUSED:]), **wanted}
        self.wanted = tuple(wanted.values())
        return wanted
