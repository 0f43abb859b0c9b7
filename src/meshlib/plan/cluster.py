"""A cluster as the plan holds it: a named set of interchangeable endpoints plus policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from meshlib.plan.affinity import HashKey
from meshlib.plan.peers import PeerTls
from meshlib.policy.balance import Picker
from meshlib.state.breaker import BreakerPolicy
from meshlib.state.budget import BudgetPolicy
from meshlib.state.cluster import ClusterState
from meshlib.state.endpoint import EndpointState
from meshlib.state.outlier import OutlierPolicy

__all__ = ["Cluster", "HedgePolicy", "Limits"]


class Limits(NamedTuple):
    """`connectionPool`, as far as a library has use for it.

    Attributes:
        requests: attempts in flight in the whole cluster; None: no bound.
        retries: retries in flight in the whole cluster; None: no bound.
        connect_timeout: seconds; Istio's default is 10.
        idle_timeout: seconds a connection may lie idle; Istio's default is one hour.
        requests_per_connection: 0: no bound.
    """

    requests: int | None = None
    retries: int | None = None
    connect_timeout: float = 10.0
    idle_timeout: float = 3600.0
    requests_per_connection: int = 0


class HedgePolicy(NamedTuple):
    """When to send a second attempt beside the first (Finagle's BackupRequestFilter).

    Attributes:
        delay: seconds; None: the measured percentile of latency.
        percentile: of good attempts.
        min_delay: seconds, the least a measured delay can be.
        budget: hedges as a share of calls; they are charged to the retry budget too.
    """

    delay: float | None = None
    percentile: float = 99.0
    min_delay: float = 0.001
    budget: BudgetPolicy = BudgetPolicy(percent=1.0, min_per_second=0.0)


class Cluster:
    """Immutable. What was observed is in `state` and in the endpoints' states, which outlive the plan.

    Attributes:
        name: `host` or `host|subset`; `host|subset|port` where the host has several ports.
        host: the fully qualified host.
        subset: the subset's name, "" for all endpoints.
        labels: what an endpoint must wear to be in.
        picker: chooses an endpoint.
        hash_key: what consistent hashing hashes of a request; None: the balancer doesn't hash.
        peers: TLS towards endpoints, by (host, port); who is missing is spoken to in the clear.
        total: the endpoints of the host before the subset's labels were asked for.
    """

    __slots__ = (
        "breaker",
        "budget",
        "deadline",
        "hash_key",
        "hedge",
        "host",
        "labels",
        "limits",
        "name",
        "outlier",
        "peers",
        "picker",
        "state",
        "subset",
        "total",
    )

    def __init__(
        self,
        name: str,
        host: str,
        subset: str,
        labels: Mapping[str, str],
        picker: Picker,
        state: ClusterState,
        *,
        total: int = 0,
        limits: Limits = Limits(),  # noqa: B008 - an immutable tuple
        budget: BudgetPolicy = BudgetPolicy(),  # noqa: B008 - an immutable tuple
        outlier: OutlierPolicy | None = None,
        breaker: BreakerPolicy | None = None,
        hedge: HedgePolicy | None = None,
        deadline: float | None = None,
        peers: Mapping[tuple[str, int], PeerTls] = {},
        hash_key: HashKey | None = None,
    ) -> None:
        self.name = name
        self.host = host
        self.subset = subset
        self.labels = labels
        self.picker = picker
        self.state = state
        self.total = total
        self.limits = limits
        self.budget = budget
        self.outlier = outlier
        self.breaker = breaker
        self.hedge = hedge
        self.deadline = deadline
        self.peers = peers
        self.hash_key = hash_key

    def __repr__(self) -> str:
        return f"<Cluster {self.name}: {len(self.endpoints)} endpoints>"

    @property
    def endpoints(self) -> tuple[EndpointState, ...]:
        """Every endpoint of the cluster."""
        return self.picker.states
