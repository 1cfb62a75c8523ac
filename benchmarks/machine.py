"""What the figures were measured on: they mean nothing without it."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.contenders import mpi_version

PACKAGES = ("mpi4py", "dill", "numpy", "joblib", "scoop", "distributed", "ray")


def processor() -> str:
    """Return the processor's name as the kernel knows it."""
    book = Path("/proc/cpuinfo")
    if book.exists():
        for line in book.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ticks() -> tuple[int, int]:
    """Return the ticks of all cores since the start of the system: idle ones, all."""
    first, _, _ = Path("/proc/stat").read_text(encoding="ascii").partition("\n")
    fields = [int(field) for field in first.split()[1:9]]
    return fields[3] + fields[4], sum(fields)  # idle and waiting for a disk


def busy_cores(seconds: float = 0.5) -> float:
    """Return how many cores are busy while this process does nothing."""
    idle, total = ticks()
    time.sleep(seconds)
    idle_then, total_then = ticks()
    share = 1.0 - (idle_then - idle) / max(1, total_then - total)
    return share * (os.cpu_count() or 1)


def version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe() -> dict[str, str]:
    """Return the machine and the versions of what was measured, by name."""
    installed = {package: version_of(package) for package in PACKAGES}
    return {
        "processor": processor(),
        "cores": str(usable_cores()),
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "MPI": mpi_version(),
        **{package: found for package, found in installed.items() if found},
    }
