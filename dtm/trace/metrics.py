"""What Prometheus is told of a run under way, by its client library.

What only grows is a counter, as that of the summary; what goes up and down is a gauge.

Threads: whoever holds the lock of the view.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dtm.trace.history import History

_LABELS = ("worker", "host")
_COUNTERS = (
    ("items", "dtm_items", "Items of calls that have run."),
    ("steals_asked", "dtm_steal_requests", "Requests for work that were sent."),
    ("steals_won", "dtm_steals", "Requests for work that were granted."),
    ("grants", "dtm_grants", "Requests of others that were granted."),
    ("items_given", "dtm_items_given", "Items given to others."),
    ("parked", "dtm_parked_tasks", "Times a task was put aside to wait."),
    ("messages", "dtm_messages", "Messages that were sent."),
    ("bytes", "dtm_sent_bytes", "Bytes of messages that were sent."),
    ("idle", "dtm_idle_seconds", "Seconds with nothing to run."),
    ("cpu", "dtm_cpu_seconds", "Seconds of processor time of the process."),
)
_GAUGES = (
    ("memory", "dtm_resident_memory_bytes", "Memory of the process."),
    ("queued", "dtm_queued_items", "Items that nobody has started."),
    ("aside", "dtm_waiting_stacks", "Tasks that are put aside."),
)


def exposition(history: History) -> tuple[bytes, str]:
    """Return what Prometheus reads, and its type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Found(list(_families(history))))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Found(Collector):
    """What was found, for a registry."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Return it."""
        return iter(self._families)


def _families(history: History) -> Iterator[Metric]:
    now = perf_counter()
    yield _gauge("dtm_workers", "Workers of the run.", len(history.hosts))
    yield _gauge("dtm_run_seconds", "Seconds since the run began.", now - history.began)
    for name, metric, said in _COUNTERS:
        yield _by_worker(history, CounterMetricFamily(metric, said, labels=_LABELS), name)
    for name, metric, said in _GAUGES:
        yield _by_worker(history, GaugeMetricFamily(metric, said, labels=_LABELS), name)
    busy = GaugeMetricFamily("dtm_busy_ratio", "Part of the last second with work.", labels=_LABELS)
    age = GaugeMetricFamily("dtm_status_age_seconds", "Age of what is told.", labels=_LABELS)
    for rank, known in history.known.items():
        busy.add_metric(_labels(history, rank), known.busy)
        age.add_metric(_labels(history, rank), now - known.at)
    yield busy
    yield age
    labels = ("call", "depth")
    items = GaugeMetricFamily("dtm_call_items", "Items of calls under way.", labels=labels)
    done = GaugeMetricFamily("dtm_call_items_done", "Those that are done.", labels=labels)
    for each in history.calls():
        place = (each["name"], str(each["depth"]))
        items.add_metric(place, each["items"])
        done.add_metric(place, each["done"])
    yield items
    yield done


def _gauge(name: str, said: str, value: float) -> Metric:
    return GaugeMetricFamily(name, said, value=value)


def _by_worker(history: History, family: Any, name: str) -> Metric:
    for rank, known in sorted(history.known.items()):
        family.add_metric(_labels(history, rank), known.values[name])
    metric: Metric = family
    return metric


def _labels(history: History, rank: int) -> tuple[str, str]:
    return str(rank), history.hosts[rank]
