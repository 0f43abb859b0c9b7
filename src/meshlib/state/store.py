"""Where observations are kept between plans."""

from __future__ import annotations

from collections.abc import Collection

from meshlib.state.cluster import ClusterState
from meshlib.state.endpoint import EndpointState
from meshlib.state.inbound import InboundState

__all__ = ["LINGER", "StateStore"]

LINGER = 60.0
"""Seconds the state of a removed endpoint lingers, so that a flapping registry can't launder an ejected one."""

EndpointKey = tuple[str, str, int]


class StateStore:
    """The states of endpoints by (cluster, host, port) and of clusters by name. Touched by the agent only."""

    __slots__ = ("_clusters", "_endpoints", "_retired", "inbound")

    def __init__(self) -> None:
        self.inbound = InboundState()
        self._clusters: dict[str, ClusterState] = {}
        self._endpoints: dict[EndpointKey, EndpointState] = {}
        self._retired: dict[EndpointKey, float] = {}

    def __len__(self) -> int:
        return len(self._endpoints)

    def cluster(self, name: str) -> ClusterState:
        """The state of a cluster, new if it is not known."""
        state = self._clusters.get(name)
        if state is None:
            state = self._clusters[name] = ClusterState(name)
        return state

    def endpoint(self, cluster: str, host: str, port: int, now: float) -> EndpointState:
        """The state of an endpoint within a cluster, new if it is not known."""
        key = (cluster, host, port)
        state = self._endpoints.get(key)
        if state is None:
            state = self._endpoints[key] = EndpointState(host, port, now)
        return state

    def retain(self, endpoints: Collection[EndpointKey], clusters: Collection[str], now: float) -> None:
        """Keep what the plan in force uses; forget the rest once it has been unused for a while and is idle.

        Args:
            endpoints: the keys in use.
            clusters: the names in use.
            now: monotonic seconds.
        """
        for key in list(self._endpoints):
            if key in endpoints:
                self._retired.pop(key, None)
            elif now - self._retired.setdefault(key, now) >= LINGER and self._endpoints[key].active == 0:
                del self._endpoints[key], self._retired[key]
        lingering = {cluster for cluster, _, _ in self._endpoints}
        for name in list(self._clusters):
            if name not in clusters and name not in lingering:
                del self._clusters[name]
