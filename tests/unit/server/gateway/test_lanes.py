"""Which requests a version gets that is being tried."""

import pytest

from llm_os.server.gateway.lanes import Lanes, lane
from llm_os.server.gateway.routes import pinned
from llm_os.spec.routing import Canary, Endpoint, Route, RoutingTable

OLD, NEW = Endpoint(attempt="a", url="unix:a", revision=1), Endpoint(attempt="b", url="unix:b", revision=2)


def route(canary: Canary | None, *endpoints: Endpoint) -> Route:
    return Route(
        deployment="chat", version="m@1", task="t", engine="e", endpoints=endpoints, canary=canary, created_at=0
    )


@pytest.mark.parametrize(("weight", "every"), [(0.01, 100), (0.25, 4), (1.0, 1)])
def test_a_canary_gets_exactly_its_share(weight: float, every: int) -> None:
    lanes, tried = Lanes(), route(Canary(revision=2, weight=weight), OLD, NEW)
    taken = [lanes.tries(tried, "anna") for _ in range(3 * every)]
    assert taken == ([False] * (every - 1) + [True]) * 3


def test_a_tenant_of_the_canary_always_tries_it_and_its_requests_are_not_the_shares() -> None:
    lanes, tried = Lanes(), route(Canary(revision=2, weight=0.5, tenants=("lab",)), OLD, NEW)
    assert [lanes.tries(tried, who) for who in ("lab", "anna", "lab", "anna")] == [True, False, True, True]


def test_a_shadow_is_copied_what_one_replica_gets() -> None:
    lanes, canary = Lanes(), Canary(revision=2, weight=1.0, shadow=True)
    several = route(canary, OLD, OLD.model_copy(update={"attempt": "c"}), NEW)
    assert [lanes.tries(several, "anna") for _ in range(4)] == [False, True, False, True]


def test_a_request_that_names_a_version_is_answered_by_that_one() -> None:
    both = route(Canary(revision=2, weight=1.0), OLD, NEW.model_copy(update={"version": "m@2"}))
    assert pinned(both, "chat") is both
    assert [one.attempt for one in pinned(both, "m@1").endpoints] == ["a"]
    assert [one.attempt for one in pinned(both, "m@2").endpoints] == ["b"]
    assert pinned(both, "m@1").canary is None


def test_nobody_is_sent_to_a_canary_that_is_not_there() -> None:
    canary = Canary(revision=2, weight=1.0, tenants=("lab",))
    assert not Lanes().tries(route(canary, OLD), "lab")
    assert not Lanes().tries(route(None, OLD, NEW), "lab")


def test_each_lane_has_its_replicas_and_one_without_any_has_the_others() -> None:
    canary = Canary(revision=2, weight=0.5)
    assert lane(route(canary, OLD, NEW), tried=True).endpoints == (NEW,)
    assert lane(route(canary, OLD, NEW), tried=False).endpoints == (OLD,)
    assert lane(route(canary, NEW), tried=False).endpoints == (NEW,)
    assert lane(route(None, OLD, NEW), tried=False).endpoints == (OLD, NEW)


def test_a_rollout_that_is_over_leaves_nothing_behind() -> None:
    lanes, tried = Lanes(), route(Canary(revision=2, weight=0.75), OLD, NEW)
    assert not lanes.tries(tried, "anna")
    lanes.forget(RoutingTable(version=2, routes=(tried,)))
    assert lanes.tries(tried, "anna")
    lanes.forget(RoutingTable(version=3))
    assert [lanes.tries(tried, "anna") for _ in range(2)] == [False, True]
