"""The processor cores that this process may use.

The smallest of what the machine has, what the affinity mask leaves, and what the
quota of any control group above this process comes to (containers and batch
systems set one).  A fraction counts as a whole core: a worker on it still helps.

Read-only; any thread.
"""

# pathlib takes longer to import than all of dtm.

from __future__ import annotations

import os
from contextlib import suppress
from math import ceil


def available_cores(root: str = "/") -> int:
    """Return how many cores this process may use, at least 1.

    ``root`` is where ``proc`` and ``sys`` are found.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    for quota in _quotas(root):
        cores = min(cores, ceil(quota))
    return max(cores, 1)


def _quotas(root: str) -> list[float]:
    """Return the quotas of all control groups that hold this process, in cores."""
    quotas: list[float] = []
    for line in _read(root, "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for group in _ancestry(path):
            if not controllers:
                quotas += _quota_2(root, f"sys/fs/cgroup{group}")
            elif "cpu" in controllers.split(","):
                quotas += _quota_1(root, f"sys/fs/cgroup/{controllers}{group}")
                quotas += _quota_1(root, f"sys/fs/cgroup/cpu{group}")
    return quotas


def _ancestry(path: str) -> list[str]:
    """Return a group and those above it; in a container only some of them are visible."""
    parts = path.strip("/").split("/")
    return ["".join(f"/{part}" for part in parts[:length]) for length in range(len(parts) + 1)]


def _quota_2(root: str, group: str) -> list[float]:
    limit, _, period = _read(root, f"{group}/cpu.max").partition(" ")
    return [int(limit) / int(period)] if limit.isdigit() else []


def _quota_1(root: str, group: str) -> list[float]:
    limit = _read(root, f"{group}/cpu.cfs_quota_us").strip()
    period = _read(root, f"{group}/cpu.cfs_period_us").strip()
    return [int(limit) / int(period)] if limit.isdigit() and period.isdigit() else []


def _read(root: str, path: str) -> str:
    """Return what a file says, nothing if it is not there."""
    with suppress(OSError), open(os.path.join(root, path), encoding="ascii") as file:
        return file.read()
    return ""
