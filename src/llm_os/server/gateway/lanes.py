"""Which revision of a deployment answers a request while a new one is tried; knows no HTTP and no clock."""

from __future__ import annotations

from llm_os.spec.routing import Route, RoutingTable


class Lanes:
    """Deals requests out by the weight of the canary: with 0.01 exactly every hundredth goes there."""

    def __init__(self) -> None:
        self._due: dict[tuple[str, int], float] = {}
        """By deployment and revision: requests that the canary should have had and has not, at most one."""

    def tries(self, route: Route, tenant: str) -> bool:
        """Whether the next request of this tenant, or its copy, goes to the revision that is tried."""
        canary = route.canary
        if canary is None or not any(one.revision == canary.revision for one in route.endpoints):
            return False
        if tenant in canary.tenants:
            return True
        weight = canary.weight
        if canary.shadow:  # one replica stands beside several: it is compared at the load that each of them has
            weight /= max(1, sum(one.revision != canary.revision for one in route.endpoints))
        due = self._due.get((route.deployment, canary.revision), 0.0) + weight
        taken = due >= 1 - 1e-9
        self._due[route.deployment, canary.revision] = due - taken
        return taken

    def forget(self, table: RoutingTable) -> None:
        """Drop what is known of rollouts that are over."""
        kept = {(route.deployment, route.canary.revision) for route in table.routes if route.canary is not None}
        for gone in self._due.keys() - kept:
            del self._due[gone]


def lane(route: Route, *, tried: bool) -> Route:
    """The route with the endpoints that may answer: those of the canary, or the others; all, if there are no others."""
    canary = route.canary
    if canary is None:
        return route
    mine = tuple(one for one in route.endpoints if (one.revision == canary.revision) is tried)
    return route.model_copy(update={"endpoints": mine}) if mine else route
