"""Token buckets on a Redis, by a script of our own: exact among any number of processes, in one round trip.

The script does what `RateLimits.draw` does, by Redis's clock: a request takes a token from each bucket, or from none if
an enforced one is empty. A bucket that would be full again expires.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from meshlib.agent.counting import Answer, Away, SharedCounts
from meshlib.errors import SettingsError
from meshlib.policy.ratelimit import Level, Spending
from meshlib.resources.units import parse_duration
from meshlib.settings import Settings

if TYPE_CHECKING:
    import redis

__all__ = ["TIMEOUT", "RedisAddress", "RedisLimits", "counts_for", "parse_address"]

TIMEOUT = 0.05
"""Seconds a request waits to be counted, unless the URL says otherwise."""

PATIENCE = 5.0
"""Times the timeout until a connection that says nothing counts as lost."""

CONNECT_TIMEOUT = 1.0

T = TypeVar("T")

EXPECTED = "expected redis://[user:password@]host[:port][/db], rediss://… (TLS) or unix:///path/to/socket"
FILES = {"ca_file": "ssl_ca_certs", "cert_file": "ssl_certfile", "key_file": "ssl_keyfile"}

SCRIPT = b"""
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local held, allowed = {}, true
for i = 1, #KEYS do
    local size, rate = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1])
    local tokens = size
    local left, of, at = string.match(redis.call('GET', KEYS[i]) or '', '^(%S+) (%S+) (%S+)$')
    if left then
        left, of, at = tonumber(left), tonumber(of), tonumber(at)
        if of ~= size then left = left * size / of end
        tokens = math.min(size, left + math.max(0, now - at) * rate)
    end
    held[i] = tokens
    if tokens < 1 and ARGV[3 * i] == '1' then allowed = false end
end
local said = {}
for i = 1, #KEYS do
    local size, rate, tokens = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), held[i]
    local enough = tokens >= 1
    if enough and allowed then
        tokens = tokens - 1
        local kept = string.format('%.17g %.17g %.6f', tokens, size, now)
        redis.call('SET', KEYS[i], kept, 'PX', math.ceil((size - tokens) / rate * 1000) + 1)
    end
    said[2 * i - 1] = enough and 1 or 0
    said[2 * i] = string.format('%.17g', tokens)
end
return said
"""
"""KEYS: the buckets; ARGV: for each its size, its rate in tokens a second, 1 when it is enforced.

A bucket is written as `tokens size instant`. Another size than before keeps the share that was left.
"""

SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest()


class RedisAddress(NamedTuple):
    """What MESHLIB_LIMITS says.

    Attributes:
        url: as redis-py takes it, with its secrets.
        shown: without them.
        timeout: seconds a request waits.
        files: redis-py's names of TLS files, and their paths.
    """

    url: str
    shown: str
    timeout: float
    files: tuple[tuple[str, str], ...]


def parse_address(url: str, source: str) -> RedisAddress:
    """MESHLIB_LIMITS, checked.

    Args:
        url: what it says.
        source: the variable or the argument, for messages.

    Raises:
        SettingsError: it isn't allowed, or redis-py is missing. The password isn't in the text.
    """
    # Whatever stands before the last @ may be a password.
    shown = re.sub(r"^(\w+://)?.*@", r"\1", url, flags=re.DOTALL).partition("?")[0]
    said = f"{source} is {shown!r}"
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:  # its text may hold some of a password
        raise SettingsError(f"{said}; {EXPECTED}") from None
    unix = parts.scheme == "unix"
    if parts.scheme not in {"redis", "rediss", "unix"} or (unix and not parts.path.startswith("/")) or port == 0:
        raise SettingsError(f"{said}; {EXPECTED}")
    if not unix and (not host or not re.fullmatch(r"/?[0-9]{0,5}", parts.path)):
        raise SettingsError(f"{said}; {EXPECTED}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(options.keys() - {"timeout", *FILES}):
        raise SettingsError(f"{said} with the option {unknown[0]!r}; known: {', '.join(('timeout', *FILES))}")
    if parts.scheme != "rediss" and (useless := [name for name in FILES if name in options]):
        raise SettingsError(f"{said} with the option {useless[0]!r}, which is for TLS: rediss://")
    try:
        timeout = parse_duration(options["timeout"]) if "timeout" in options else TIMEOUT
    except ValueError as error:
        raise SettingsError(f"{said}, and its timeout {options['timeout']!r} {error}") from None
    if importlib.util.find_spec("redis") is None:
        raise SettingsError(f"{said}, which needs the package redis; pip install 'servicemesh[limits]'")
    files = tuple((FILES[name], unquote(path)) for name, path in options.items() if name in FILES)
    return RedisAddress(url.partition("?")[0], shown, timeout, files)


class RedisLimits:
    """Buckets on a Redis, as a `CountStore`.

    Args:
        address: of it.
        prefix: before each key.
    """

    def __init__(self, address: RedisAddress, prefix: str) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        options: dict[str, Any] = dict(address.files)
        if address.url.startswith("rediss:"):
            options["ssl_check_hostname"] = True
        self._client: redis.Redis = redis.Redis.from_url(
            address.url,
            socket_timeout=max(PATIENCE * address.timeout, 0.25),
            socket_connect_timeout=CONNECT_TIMEOUT,
            retry=Retry(NoBackoff(), 0),  # nobody's time is spent twice
            max_connections=1,
            client_name="meshlib",
            protocol=2,
            **options,
        )
        self._errors = (redis.RedisError, OSError)
        self._no_script = redis.exceptions.NoScriptError
        self._prefix = prefix

    def count(self, requests: Sequence[Sequence[Spending]]) -> Sequence[Answer | str]:
        """See `CountStore`."""
        return self._reached(lambda: self._count(requests))

    def reach(self) -> None:
        """See `CountStore`."""
        self._reached(self._client.ping)

    def close(self) -> None:
        """See `CountStore`."""
        self._client.close()

    def _reached(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except self._errors as error:
            raise Away(f"{type(error).__name__}: {str(error)[:200]}") from None

    def _count(self, requests: Sequence[Sequence[Spending]]) -> Sequence[Answer | str]:
        replies = self._sent(requests)
        if any(isinstance(reply, self._no_script) for reply in replies):
            # A Redis that was restarted, or never saw us, has no script yet; the others of the batch were counted.
            self._client.script_load(SCRIPT)
            again = [number for number, reply in enumerate(replies) if isinstance(reply, self._no_script)]
            for number, reply in zip(again, self._sent([requests[number] for number in again]), strict=True):
                replies[number] = reply
        return [_levels(reply, len(request)) for reply, request in zip(replies, requests, strict=True)]

    def _sent(self, requests: Sequence[Sequence[Spending]]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for request in requests:
            keys = [self._prefix + one.key for one in request]
            numbers = [number for one in request for number in (one.size, repr(one.rate), int(one.enforced))]
            pipeline.evalsha(SHA, len(keys), *keys, *numbers)
        return pipeline.execute(raise_on_error=False)


def counts_for(settings: Settings) -> SharedCounts:
    """What counts on the Redis that MESHLIB_LIMITS names; nothing where it names none.

    Raises:
        SettingsError: see `parse_address`.
    """
    if not settings.limits:
        return SharedCounts(None, "", 0.0)
    address = parse_address(settings.limits, "MESHLIB_LIMITS")
    # Processes of one service share its limits, and no others.
    prefix = f"meshlib:limit:{settings.namespace}/{settings.service or ''}:"
    return SharedCounts(
        lambda: RedisLimits(address, prefix), f"the Redis of MESHLIB_LIMITS ({address.shown})", address.timeout
    )


def _levels(reply: object, number: int) -> Answer | str:
    if isinstance(reply, Exception):
        return f"{type(reply).__name__}: {str(reply)[:200]}"
    try:
        assert isinstance(reply, list)
        found: list[Level] = [(reply[at] == 1, float(reply[at + 1])) for at in range(0, 2 * number, 2)]
    except (AssertionError, IndexError, TypeError, ValueError):
        return "it answered what the script can't have said"
    return found if all(isfinite(tokens) for _, tokens in found) else "it answered what the script can't have said"
