"""The exposition says what was counted, as Prometheus' own parser reads it."""

from __future__ import annotations

import enum
from bisect import bisect_left

import pytest
from prometheus_client.parser import text_string_to_metric_families

from raftq.metrics import COUNTERS, DISTRIBUTIONS, GAUGES, SECONDS, Metrics


class Kind(enum.StrEnum):
    ODD = "odd"


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    text = metrics.render().decode()
    return {
        (sample.name, *(f"{k}={v}" for k, v in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("name", COUNTERS)
def test_each_counter_is_exposed_under_its_name(name: str) -> None:
    metrics = Metrics()
    setattr(metrics, name, getattr(metrics, name) + 3)
    assert samples(metrics)[(f"raftq_{name}_total",)] == 3


@pytest.mark.parametrize("name", GAUGES)
def test_each_gauge_is_exposed_under_its_name(name: str) -> None:
    metrics = Metrics()
    assert getattr(metrics, name) == 0
    setattr(metrics, name, 7)
    assert samples(metrics)[(f"raftq_{name}",)] == 7


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_each_distribution_is_exposed_under_its_name(name: str) -> None:
    metrics = Metrics()
    bounds = DISTRIBUTIONS[name][1]
    for value in bounds:
        getattr(metrics, name).observe(value)
    found = samples(metrics)
    assert found[(f"raftq_{name}_count",)] == len(bounds)
    assert found[(f"raftq_{name}_sum",)] == pytest.approx(sum(bounds))
    assert found[(f"raftq_{name}_bucket", f"le={bounds[0]}")] == 1


@pytest.mark.parametrize("seconds", [0.0, 0.0005, 0.00051, 0.3, 60.0, 61.0])
def test_a_request_falls_into_every_bucket_at_or_above_it(seconds: float) -> None:
    metrics = Metrics()
    metrics.observe_request("/v1/{account}", "GET", 200, seconds)
    labels = ("method=GET", "route=/v1/{account}", "status=200")
    found = samples(metrics)
    counts = [found[("raftq_request_seconds_bucket", f"le={b}", *labels)] for b in SECONDS]
    first = bisect_left(SECONDS, seconds)
    assert counts == [0.0] * first + [1.0] * (len(SECONDS) - first)
    assert found[("raftq_request_seconds_bucket", "le=+Inf", *labels)] == 1
    assert found[("raftq_request_seconds_count", *labels)] == 1


def test_requests_are_told_apart_by_route_method_and_status() -> None:
    metrics = Metrics()
    for route, method, status in [("/a", "GET", 200), ("/a", "GET", 404), ("/a", "PUT", 200)]:
        metrics.observe_request(route, method, status, 0.1)
        metrics.observe_request(route, method, status, 0.1)
    found = samples(metrics)
    counts = {key: v for key, v in found.items() if key[0] == "raftq_request_seconds_count"}
    assert len(counts) == 3
    assert set(counts.values()) == {2}


def test_deliveries_are_told_apart_by_how_they_ended() -> None:
    metrics = Metrics()
    metrics.observe_delivery(Kind.ODD, 0.1)
    metrics.observe_delivery(Kind.ODD, 0.2)
    found = samples(metrics)
    assert found[("raftq_webhook_seconds_count", "outcome=odd")] == 2


def test_interventions_are_counted_by_kind() -> None:
    metrics = Metrics()
    metrics.intervened(Kind.ODD)
    metrics.intervened(Kind.ODD, 2)
    assert metrics.interventions() == {"odd": 3}
    assert samples(metrics)[("raftq_guard_interventions_total", "kind=odd")] == 3


def test_gauges_are_set_when_they_are_asked_for() -> None:
    metrics = Metrics(node="n1", zone="a")

    def set_gauges() -> None:
        metrics.messages_by_state["ready"] += 5

    metrics.before_render(set_gauges)
    assert samples(metrics)[("raftq_messages", "state=ready")] == 5
    found = samples(metrics)
    assert found[("raftq_messages", "state=ready")] == 10
    assert found[("raftq_node_info", "node=n1", "zone=a")] == 1
    assert found[("process_resident_memory_bytes",)] > 0


def test_two_nodes_in_one_process_do_not_share_anything() -> None:
    left, right = Metrics(), Metrics()
    left.leader_changes += 1
    left.observe_request("/a", "GET", 200, 0.1)
    assert samples(right)[("raftq_leader_changes_total",)] == 0
    assert not any(key[0] == "raftq_request_seconds_count" for key in samples(right))


def test_what_crosses_is_counted_by_the_zones_of_the_configuration() -> None:
    metrics = Metrics(node="n1", zone="a", peers={"n2": "b", "n3": "b", "n4": "c"})
    metrics.of_peer("n2").frame_bytes_sent += 5
    metrics.of_peer("n3").frame_bytes_sent += 6
    metrics.of_peer("n4").frames_received += 7
    metrics.crossings.count_put(["a", "b", "made-up"], "made-up-too")
    metrics.crossings.count_claimed(["b", "b", "c"], "a")
    metrics.crossings.count_claimed([f"z{n}" for n in range(100)], "x")
    found = samples(metrics)
    assert found[("raftq_zone_frame_bytes_sent_total", "zone=b")] == 11
    assert found[("raftq_zone_frame_bytes_sent_total", "zone=c")] == 0
    assert found[("raftq_zone_frames_received_total", "zone=c")] == 7
    put = {key[1:]: n for key, n in found.items() if key[0] == "raftq_zone_messages_put_total"}
    assert put == {("client_zone=other", f"message_zone={zone}"): 1 for zone in ("a", "b", "other")}
    claimed = {k[1:]: n for k, n in found.items() if k[0] == "raftq_zone_messages_claimed_total"}
    assert claimed == {
        ("client_zone=a", "message_zone=b"): 2,
        ("client_zone=a", "message_zone=c"): 1,
        ("client_zone=other", "message_zone=other"): 100,
    }
