"""The head of a request coming in, as rules see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from meshlib.policy.hosts import forbidding_hosts, host_of
from meshlib.policy.intentions import RequestView
from meshlib.policy.match import HeadView, RawHeaders
from meshlib.policy.paths import PathReading, guesses, read_path

__all__ = ["Arriving", "Claims"]

Claims = Mapping[str, Any]


class Arriving(HeadView):
    """A `HeadView` of a request that came in: so every `match` of a VirtualService can be asked of it, too.

    A `match` holds by any reading of path, host and query, so that no spelling gets past a limit.

    Args:
        method: as it came.
        raw_target: path and query as they came over the wire, or rebuilt from `seen` where the server doesn't tell.
        host: "" ; the `Host` header is in `raw_headers`.
        raw_headers: names in lower case.
        seen: the path as the application sees it: decoded, without the query, with what it is mounted under.
        exact: whether `raw_target` is what came over the wire.
        mount: what the application says it is mounted under, "" for nothing.
        principal: the caller's verified identity without `spiffe://`, "" for none.
        namespace, service_account: of that identity, where it has them.
        source_ip: of the connection, "" on a Unix socket.
        remote_ip: whom a trusted hop made the request for, else `source_ip`.
        port: of ours that it came to; None on a Unix socket.
        destination_ip: of ours that it came to, "" where that isn't known.
        sni: the server name of the TLS handshake, "" where there is none or it isn't known.

    Attributes:
        claims: of the verified token, None before there is one.
        token_principal: `<iss>/<sub>` of it, "" for none.
        reading: what its path may mean; worked out when it is asked for.
    """

    reading: PathReading

    __slots__ = (
        "claims",
        "destination_ip",
        "exact",
        "mount",
        "namespace",
        "port",
        "principal",
        "reading",
        "remote_ip",
        "seen",
        "service_account",
        "sni",
        "source_ip",
        "token_principal",
    )

    def __init__(
        self,
        method: str,
        raw_target: bytes,
        raw_headers: RawHeaders,
        *,
        seen: str,
        exact: bool = True,
        mount: str = "",
        principal: str = "",
        namespace: str = "",
        service_account: str = "",
        source_ip: str = "",
        remote_ip: str = "",
        port: int | None = None,
        destination_ip: str = "",
        sni: str = "",
    ) -> None:
        # What `super` would set: this is done for every request.
        self.method = method
        self.raw_target = raw_target
        self.host = ""
        self.raw_headers = raw_headers
        self._query = None
        self.seen = seen
        self.exact = exact
        self.mount = mount
        self.principal = principal
        self.namespace = namespace
        self.service_account = service_account
        self.source_ip = source_ip
        self.remote_ip = remote_ip or source_ip
        self.port = port
        self.destination_ip = destination_ip
        self.sni = sni
        self.claims: Claims | None = None
        self.token_principal = ""

    if not TYPE_CHECKING:  # or every name would be taken for one of its attributes

        def __getattr__(self, name: str) -> PathReading:
            # Of a slot that isn't filled yet: a property would cost each of many rules as much as its test.
            if name != "reading":
                raise AttributeError(name)
            self.reading = read_path(self.raw_target, self.seen, self.exact, self.mount)
            return self.reading

    @property
    def paths(self) -> Sequence[str]:
        """Every path that somebody may take the request's for."""
        return self.reading.forbidding or guesses(self.seen, self.mount)

    @property
    def authorities(self) -> Sequence[str]:
        """The host as it came and as it may be read."""
        return self.authority, *forbidding_hosts(host_of(self))

    def fields(self, name: str) -> Sequence[str]:
        """Every value of one of the query's fields: which of them the application takes isn't known."""
        query = self.target.partition("?")[2]
        return [value for key, value in parse_qsl(query, keep_blank_values=True) if key == name]

    def values(self, name: bytes) -> list[bytes]:
        """Every value of a header as it came; `name` is in lower case."""
        return [value for key, value in self.raw_headers if key == name]

    def view(self) -> RequestView:
        """The same for intentions."""
        return RequestView(self.method, self.seen, self._folded, self.mount)

    def _folded(self, name: str) -> str | None:
        """A header with those that differ in `_` for `-`: what reads headers as CGI does takes them for the same."""
        wanted = name.encode("latin-1", "replace").replace(b"_", b"-")
        found = [value for key, value in self.raw_headers if key.replace(b"_", b"-") == wanted]
        return b",".join(found).decode("utf-8", "replace") if found else None
