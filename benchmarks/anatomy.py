"""Where the time of a generation goes: ``python -m benchmarks.anatomy``.

Maps of 2.5 sleeps of 5 ms a worker, with a barrier after each, are run with the trace on.  For each
number of workers and each communication manager the table says, a worker and generation: the
messages of each kind, and the processor time beside the evaluations; and how long a worker is
without work, by why: until its first item begins, between two of its items, and from its last item
to the beginning of the last item of all (so there was work that it did not have).  *Gather* is the
time from the end of the last item to the return of the map, at the root.

``--rst`` writes the table for the docs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import strftime
from typing import Any

from benchmarks.programs.generations import greedy
from benchmarks.report import list_table
from dtm.run.recording import IDLE_FLAG, SEND
from dtm.trace.recorded import read_run

ROOT = Path(__file__).resolve().parent.parent
SIZES = (2, 4, 16)
LONGEST_SECONDS = 120.0
KINDS = ("StealRequest", "Refusal", "Grant", "Results")


@dataclass(frozen=True)
class Anatomy:
    """A worker's generation: messages sent by kind, and seconds.

    Attributes:
        ratio: the time of a greedy schedule over the real one.
        used: processor time beside the evaluations, of a run without the trace.
        start, between, lacking, gather: see the module.
    """

    comm: str
    workers: int
    ratio: float
    messages: dict[str, float]
    used: float
    start: float
    between: float
    lacking: float
    gather: float


def dissect(comm: str, workers: int) -> Anatomy:
    """Run the program without the trace for its times, and with it for its messages."""
    generations = _run(comm, workers, {})
    with tempfile.TemporaryDirectory() as directory:
        traced = _run(comm, workers, {"DTM_TRACE": directory})
        run = read_run(directory)
    sent = run.of_kind(SEND)
    names = Counter(run.message_names[flag & ~IDLE_FLAG] for flag in sent["flag"].tolist())
    share = workers * len(traced)
    start = between = lacking = gather = real = ideal = 0.0
    for began, returned, items in generations:
        real += returned - began
        ideal += greedy([end - begin for begin, end, *_ in items], workers)
        last_begin = max(begin for begin, *_ in items)
        gather += returned - max(end for _, end, *_ in items)
        by_process: dict[int, list[tuple[float, float]]] = {}
        for begin, end, process, _ in items:
            by_process.setdefault(process, []).append((begin, end))
        lacking += (workers - len(by_process)) * (last_begin - began)
        for each in by_process.values():
            each.sort()
            start += each[0][0] - began
            between += sum(after[0] - before[1] for before, after in pairwise(each))
            lacking += max(0.0, last_begin - each[-1][1])
    count = len(generations)
    return Anatomy(
        comm, workers, ideal / real,
        {kind: names[kind] / share for kind in KINDS}, _used(generations) / count,
        start / count / workers, between / count / workers, lacking / count / workers,
        gather / count,
    )  # fmt: skip


def _used(generations: list[Any]) -> float:
    """Return the processor time of all generations but the last, a worker."""
    first: dict[int, tuple[int, float]] = {}
    last: dict[int, tuple[int, float]] = {}
    for number, (_, _, items) in enumerate(generations):
        for _, _, process, used in items:
            first.setdefault(process, (number, used))
            last[process] = number, used
    passed = sum(last[each][0] - first[each][0] for each in first) or 1
    return len(generations) * sum(last[each][1] - first[each][1] for each in first) / passed


def _run(comm: str, workers: int, environment: dict[str, str]) -> list[Any]:
    command = [sys.executable, "-m", "benchmarks.programs.stamped_generations"]
    if comm == "mpi":
        mpirun = [str(Path(sys.executable).with_name("mpirun")), "--oversubscribe"]
        mpirun += ["--allow-run-as-root"] if os.geteuid() == 0 else []
        command = [*mpirun, "-n", str(workers), *command]
    settings = {"DTM_WORKERS": str(workers)} if comm == "local" else {}
    ran = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **settings, **environment}, capture_output=True,
        text=True, check=True, timeout=LONGEST_SECONDS,
    )  # fmt: skip
    found: list[Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def table(found: Sequence[Anatomy]) -> str:
    """Return the figures as reStructuredText."""
    head = (
        "workers", "of a greedy schedule", "requests", "refusals", "grants", "results",
        "processor time, ms", "until the first item, ms", "between items, ms",
        "without work though there was some, ms", "gather, ms", "measured",
    )  # fmt: skip
    lines = [
        [
            f"{each.workers}, {each.comm}", f"{each.ratio:.2f}",
            *(f"{each.messages[kind]:.1f}" for kind in KINDS),
            *(f"{seconds * 1e3:.2f}" for seconds in
              (each.used, each.start, each.between, each.lacking, each.gather)),
            strftime("%Y-%m-%d"),
        ]
        for each in found
    ]  # fmt: skip
    return list_table(head, lines) + "\n"


def main(command_line: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.anatomy", description=__doc__)
    parser.add_argument("--comm", nargs="+", choices=("local", "mpi"), default=("local", "mpi"))
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--rst", type=Path, help="write the table there")
    args = parser.parse_args(command_line)
    found = []
    for comm in args.comm:
        for size in args.sizes:
            found.append(dissect(comm, size))
            print(found[-1], flush=True)
    text = table(found)
    (args.rst.write_text(text, encoding="utf-8") if args.rst else print(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
