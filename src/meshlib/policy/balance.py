"""Choosing an endpoint: round robin, random, least request and peak EWMA, each by weight.

A picker is immutable and never blocks. In the common case it looks at one or two endpoints, whatever the number; only
when the one it chose is ejected or was tried before does it look at all of them, and decides about panic then.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Mapping, Sequence

from meshlib.state.endpoint import EndpointState

__all__ = [
    "PANIC_THRESHOLD",
    "PICKERS",
    "FailoverPicker",
    "LeastRequest",
    "PeakEwma",
    "Picker",
    "RandomPicker",
    "RoundRobin",
]

PANIC_THRESHOLD = 50.0
"""Percent of endpoints that must be available, or health is ignored (Envoy's default; 0 turns it off)."""

Random = Callable[[], float]


class Picker:
    """The common part: health, ejection, panic, and avoiding what was tried.

    Args:
        states: every endpoint of the cluster.
        weights: of each, ≥ 1.
        healthy: of each, by the registry's word.
        random: uniform in [0, 1).
        panic: percent of available endpoints below which health is ignored; with none available it always is.
    """

    __slots__ = ("_cumulative", "_even", "_panic", "_random", "_usable", "healthy", "states", "weights")

    name = "RANDOM"

    def __init__(
        self,
        states: Sequence[EndpointState],
        weights: Sequence[int],
        healthy: Sequence[bool],
        random: Random,
        panic: float = PANIC_THRESHOLD,
    ) -> None:
        self.states = tuple(states)
        self.weights = dict(zip(states, weights, strict=True))
        self.healthy = frozenset(state for state, fit in zip(states, healthy, strict=True) if fit)
        self._random = random
        self._panic = panic
        panicking = not self.healthy or len(self.healthy) * 100.0 < panic * len(self.states)
        self._usable = self.states if panicking else tuple(state for state in self.states if state in self.healthy)
        usable_weights = [self.weights[state] for state in self._usable]
        self._even = len(set(usable_weights)) <= 1
        self._cumulative = list(itertools.accumulate(usable_weights))

    def pick(self, now: float, tried: Sequence[EndpointState], key: int | None = None) -> EndpointState | None:
        """Choose an endpoint at `now`, if possible none of `tried`; None only when the cluster has no endpoint.

        Calls of one `key` go to one endpoint where the picker hashes; other pickers don't look at it.
        """
        if not self._usable:
            return None
        state = self._choose(now)
        if state.ejected_until <= now and (not tried or state not in tried):
            return state
        return self._choose_carefully(now, tried)

    def available(self, now: float) -> list[EndpointState]:
        """The endpoints that are healthy and not ejected."""
        return [state for state in self.states if state in self.healthy and state.ejected_until <= now]

    def fit(self, now: float) -> bool:
        """Whether any endpoint is healthy and not ejected."""
        return any(state.ejected_until <= now for state in self.healthy)

    def panicking(self, now: float) -> bool:
        """Whether so few are available that health is ignored."""
        fit = len(self.available(now))
        return fit == 0 or fit * 100.0 < self._panic * len(self.states)

    def cost(self, state: EndpointState, now: float) -> float:
        """What the picker holds against an endpoint: the lower the better. For explaining."""
        return 1.0 / self.weights[state]

    def _choose(self, now: float) -> EndpointState:
        return self._draw()

    def _choose_carefully(self, now: float, tried: Sequence[EndpointState]) -> EndpointState:
        fresh = self._fresh(now, tried)
        first = self._weighted(fresh)
        second = self._weighted(fresh)
        return first if self.cost(first, now) <= self.cost(second, now) else second

    def _fresh(self, now: float, tried: Sequence[EndpointState]) -> Sequence[EndpointState]:
        """Who may be called: the available ones, in a panic all; of these, if possible, none that was tried."""
        among = self.states if self.panicking(now) else self.available(now)
        return [state for state in among if state not in tried] or among

    def _weighted(self, states: Sequence[EndpointState]) -> EndpointState:
        left = self._random() * sum(self.weights[state] for state in states)
        for state in states:
            left -= self.weights[state]
            if left < 0:
                return state
        return states[-1]

    def _draw(self) -> EndpointState:
        """One usable endpoint at random, by weight."""
        usable = self._usable
        if self._even:
            return usable[int(self._random() * len(usable))]
        return usable[bisect.bisect_right(self._cumulative, self._random() * self._cumulative[-1])]

    def _draw_two(self) -> tuple[EndpointState, EndpointState]:
        """Two usable endpoints, different where there are two; by weight where weights differ."""
        usable = self._usable
        count = len(usable)
        if count == 1:
            return usable[0], usable[0]
        if self._even:
            random = self._random
            first = int(random() * count)
            second = int(random() * (count - 1))
            return usable[first], usable[second + (second >= first)]
        one = self._draw()
        other = self._draw()
        return one, other if other is not one else self._draw()


class RandomPicker(Picker):
    """Any endpoint, in proportion to its weight."""

    __slots__ = ()

    def _choose_carefully(self, now: float, tried: Sequence[EndpointState]) -> EndpointState:
        return self._weighted(self._fresh(now, tried))


class RoundRobin(RandomPicker):
    """One after another; with unequal weights by a static stride schedule, which needs no lock (gRPC A58)."""

    __slots__ = ("_next", "_scaled", "_top")

    name = "ROUND_ROBIN"

    def __init__(
        self,
        states: Sequence[EndpointState],
        weights: Sequence[int],
        healthy: Sequence[bool],
        random: Random,
        panic: float = PANIC_THRESHOLD,
    ) -> None:
        super().__init__(states, weights, healthy, random, panic)
        self._top = max((self.weights[state] for state in self._usable), default=1)
        self._scaled = [self.weights[state] for state in self._usable]
        self._next = itertools.count(int(random() * 1000)).__next__

    def _choose(self, now: float) -> EndpointState:
        usable = self._usable
        count = len(usable)
        if self._even:
            return usable[self._next() % count]
        while True:
            turn, index = divmod(self._next(), count)
            weight = self._scaled[index]
            # Over `top` turns an endpoint is let through `weight` times, each endpoint with an offset of its own.
            if (weight * turn + index * self._top // count) % self._top >= self._top - weight:
                return usable[index]

    def _choose_carefully(self, now: float, tried: Sequence[EndpointState]) -> EndpointState:
        # In a panic the next in turn would always be the neighbour of one that is ejected: then it is drawn.
        if not self.panicking(now):
            fresh = frozenset(self._fresh(now, tried))
            for _ in range(len(self._usable) * min(self._top, 8)):
                state = self._choose(now)
                if state in fresh:
                    return state
        return super()._choose_carefully(now, tried)


class LeastRequest(Picker):
    """The less busy of two at random (P2C), busyness divided by weight. Istio's default."""

    __slots__ = ()

    name = "LEAST_REQUEST"

    def cost(self, state: EndpointState, now: float) -> float:
        """Attempts in flight, per weight."""
        return state.active / self.weights[state]

    def _choose(self, now: float) -> EndpointState:
        usable = self._usable
        count = len(usable)
        if self._even and count > 1:
            # The default balancer, inlined: this is called for every attempt there is.
            random = self._random
            one = int(random() * count)
            other = int(random() * (count - 1))
            first, second = usable[one], usable[other + (other >= one)]
            return first if first.active <= second.active else second
        first, second = self._draw_two()
        return first if self.cost(first, now) <= self.cost(second, now) else second


class PeakEwma(Picker):
    """Of two at random the one with less latency·(in flight + 1): it flees what is slow (Finagle).

    The two are drawn by weight. The cost has weight in it only where load is: an idle endpoint of half the weight is
    no slower, and would else hardly ever win.
    """

    __slots__ = ("_mean",)

    name = "PEAK_EWMA"

    def __init__(
        self,
        states: Sequence[EndpointState],
        weights: Sequence[int],
        healthy: Sequence[bool],
        random: Random,
        panic: float = PANIC_THRESHOLD,
    ) -> None:
        super().__init__(states, weights, healthy, random, panic)
        self._mean = sum(weights) / len(weights) if weights else 1.0

    def cost(self, state: EndpointState, now: float) -> float:
        """Seconds of latency times what would be in flight, the load measured by the endpoint's weight."""
        return state.latency(now) * (state.active * self._mean / self.weights[state] + 1.0)

    def _choose(self, now: float) -> EndpointState:
        first, second = self._draw_two()
        return first if self.cost(first, now) <= self.cost(second, now) else second


class FailoverPicker(Picker):
    """Pickers in tiers: the first with an available endpoint chooses, and when none has one, the first that has any.

    Args:
        tiers: by the name of the cluster whose endpoints they hold, the cluster's own first.
        random: as for `Picker`.
    """

    __slots__ = ("tiers",)

    name = "FAILOVER"

    def __init__(self, tiers: Mapping[str, Picker], random: Random) -> None:
        weights: dict[EndpointState, int] = {}
        for tier in tiers.values():
            weights |= {state: weight for state, weight in tier.weights.items() if state not in weights}
        healthy = frozenset().union(*(tier.healthy for tier in tiers.values()))
        super().__init__([*weights], [*weights.values()], [state in healthy for state in weights], random)
        self.tiers = dict(tiers)

    def pick(self, now: float, tried: Sequence[EndpointState], key: int | None = None) -> EndpointState | None:
        """As the tier in use does."""
        return self.tiers[self.in_use(now)].pick(now, tried, key)

    def in_use(self, now: float) -> str:
        """The name of the tier that chooses at `now`."""
        for name, tier in self.tiers.items():
            if tier.fit(now):
                return name
        return next((name for name, tier in self.tiers.items() if tier.states), next(iter(self.tiers)))

    def home(self, state: EndpointState) -> str:
        """The name of the first tier that holds an endpoint."""
        return next(name for name, tier in self.tiers.items() if state in tier.weights)

    def panicking(self, now: float) -> bool:
        """Whether the tier in use ignores health."""
        return self.tiers[self.in_use(now)].panicking(now)

    def cost(self, state: EndpointState, now: float) -> float:
        """As the first tier that holds the endpoint has it."""
        return self.tiers[self.home(state)].cost(state, now)


PICKERS: dict[str, type[Picker]] = {
    picker.name: picker for picker in (RoundRobin, RandomPicker, LeastRequest, PeakEwma)
}
