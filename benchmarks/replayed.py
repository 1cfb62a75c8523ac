"""What ``dtm predict`` says beside what runs took: ``python -m benchmarks.replayed``.

Each program runs once, recorded, on workers of this machine; predicted is the time on as many
workers.  Its bodies sleep, so there may be more workers than cores.  The time is that of the whole
of ``main``, without what the late start of workers cost, as ``dtm predict`` tells both.  *Ideal* is
the time if the workers shared all recorded work evenly and nothing cost anything.

``--csv`` adds the figures to a file, ``--rst`` writes the table of the medians of all its lines.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from time import strftime

from benchmarks.predicted import LONGEST_SECONDS, ROOT, Compared, compare_all
from benchmarks.programs.steps import KINDS
from dtm.trace.prediction import measured, predict
from dtm.trace.recorded import read_run

SIZES = (1, 2, 4, 8)
SLEEPING = tuple(kind for kind in KINDS if not kind.startswith("computing"))


def compare(kind: str, workers: int, seed: int) -> Compared:
    """Record a run of a program, and predict it."""
    command = [sys.executable, "-m", "benchmarks.programs.steps", kind, str(seed)]
    with TemporaryDirectory() as directory:
        local = {"DTM_COMM": "local", "DTM_WORKERS": str(workers), "DTM_TRACE": directory}
        subprocess.run(
            command, cwd=ROOT, env={**os.environ, **local}, capture_output=True, text=True,
            check=True, timeout=LONGEST_SECONDS,
        )  # fmt: skip
        run = read_run(directory)
    (predicted,) = predict(run, [workers])
    real = measured(run).seconds
    return Compared(
        kind, workers, seed, round(real, 5), round(predicted.seconds, 5),
        round(predicted.efficiency * predicted.seconds, 5), round(os.getloadavg()[0], 1),
        strftime("%Y-%m-%d"),
    )  # fmt: skip


def main(command_line: Sequence[str] | None = None) -> int:
    return compare_all("benchmarks.replayed", __doc__, compare, SLEEPING, SIZES, command_line)


if __name__ == "__main__":
    sys.exit(main())
