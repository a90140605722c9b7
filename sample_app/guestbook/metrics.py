"""Prometheus metrics, right across all workers where PROMETHEUS_MULTIPROC_DIR is set."""

import asyncio
import os
from pathlib import Path

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

LAG_SECONDS = 0.25

REQUESTS = Counter("http_requests", "Requests answered.", ["method", "route", "status"])
LATENCY = Histogram("http_request_seconds", "Time to answer a request.", ["method", "route"])
VISITORS = Gauge("websockets_open", "Open WebSockets.", multiprocess_mode="livesum")
LAG = Histogram(
    "event_loop_lag_seconds",
    "How late the event loop ran a task that was due.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)


async def measure_lag() -> None:
    """Observe the event loop's lag for ever."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        LAG.observe(max(0.0, loop.time() - due))


def _forget_dead_workers(directory: str) -> None:
    # A killed worker's gauges would be counted for ever, and not every server reports the death.
    for file in Path(directory).glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, PermissionError):  # Gone, or another user's by now.
            mark_process_dead(pid, directory)  # type: ignore[no-untyped-call]


def exposition() -> bytes:
    """Return the metrics of all workers in Prometheus' text format."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if directory is None:
        return generate_latest(REGISTRY)
    _forget_dead_workers(directory)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
