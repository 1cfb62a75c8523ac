"""The bars of the balancer, measured in virtual time: ``python -m benchmarks.simulated``.

Each row is a program on the standard machine: hosts of 64 workers, 2 us one way inside of a
host and 50 us between hosts, 5 us of processor time at each end of a message, an answer in the
middle of a task after 0 to 0.8 ms.  The function of a flat map is known, as it is from the
second generation on; of a tree search nothing is known.

Flat maps are measured against a greedy central queue without any cost on the same list and the
same machines; trees against all workers busy all the time.

``--csv`` adds a line for each run to a file, ``--rst`` writes the table of the means of all its
lines, for the docs.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import count, islice
from pathlib import Path
from statistics import fmean
from time import process_time, strftime
from typing import Any

from benchmarks.report import list_table
from dtm.testing import (
    Network,
    Report,
    Script,
    Simulation,
    binomial,
    constant,
    exponential,
    flat,
    geometric,
    greedy_makespan,
    measure,
)

SIZES = (256, 1024, 16_384)
SEEDS = 5
NETWORK = Network(seconds_a_byte=0.0)
ITEMS_A_WORKER = 100
NODES_A_WORKER = 3000
NODE_SECONDS = 1e-3
HEIGHTS = {256: 10, 1024: 11, 16_384: 13}
SAMPLED_HEIGHT = 6
ROOTS_A_WORKER = 8
CHILDREN = 8

# Bars: row or figure -> what 256, 1,024 and 16,384 workers must reach.
AT_LEAST = {
    "flat 10 ms": (0.98, 0.98, 0.97),
    "flat 1 ms": (0.97, 0.96, 0.96),
    "half speed": (0.96, 0.96, 0.94),
    "geometric tree": (0.95, 0.94, 0.90),
    "binomial tree": (0.95, 0.94, 0.90),
}
AT_MOST = {
    "spread_ms": (0.3, 0.4, 0.6),
    "messages": (40.0, 40.0, 50.0),
    "root_messages": (8.0, 3.0, 0.5),
    "idle_messages": (16.0, 18.0, 22.0),
}
ROWS = tuple(AT_LEAST)


@dataclass(frozen=True)
class Measured:
    """What one run gave; messages are a worker's share of them."""

    row: str
    workers: int
    seed: int
    ratio: float
    spread_ms: float
    messages: float
    root_messages: float
    idle_messages: float
    shutdown: int
    state: int
    tasks: int
    steals: float
    cpu_seconds: float
    measured: str  # the day, which tells the code


def geometric_tree(size: int, seed: int) -> Script:
    """Return the geometric tree of the X10 papers, of about ``NODES_A_WORKER`` nodes a worker."""
    height = HEIGHTS[size]
    branch = (0.75 * NODES_A_WORKER * size) ** (1 / height)
    wanted = branch**SAMPLED_HEIGHT * 1.36
    seeds = (each for each in count(1) if _near(_sample(each, branch), wanted))
    return geometric(next(islice(seeds, seed - 1, None)), height, branch, NODE_SECONDS)


def _sample(seed: int, branch: float) -> int:
    """Return the size of the top of a tree, which tells how large the whole is."""
    return measure(geometric(seed, SAMPLED_HEIGHT, branch, NODE_SECONDS))[0]


def _near(found: float, wanted: float) -> bool:
    return abs(found / wanted - 1.0) < 0.2


def binomial_tree(size: int, seed: int, roots: int = ROOTS_A_WORKER) -> Script:
    """Return a binomial tree of about ``NODES_A_WORKER`` nodes a worker, give or take half."""
    chance = (1.0 - roots / NODES_A_WORKER) / CHILDREN
    return binomial(seed, roots * size, CHILDREN, chance, NODE_SECONDS)


def run(row: str, size: int, seed: int, **options: object) -> tuple[Simulation, Report, float]:
    """Run a row once; return the ratio to the best possible too."""
    speeds = [0.5 if row == "half speed" and rank % 2 else 1.0 for rank in range(size)]
    mean = 1e-3 if row == "flat 1 ms" else 10e-3
    if row.endswith("tree"):
        tree = geometric_tree if row == "geometric tree" else binomial_tree
        program = tree(size, seed)
    else:
        law = constant(mean) if row == "half speed" else exponential(mean)
        program = flat(ITEMS_A_WORKER * size, law, seed)
        options["known"] = mean
    simulation = Simulation(
        size, program, network=NETWORK, speeds=speeds, seed=seed, check=False, **options
    )
    report = simulation.run()
    if row.endswith("tree"):
        return simulation, report, report.efficiency
    durations = next(program.steps())
    assert isinstance(durations, list)
    return simulation, report, greedy_makespan(durations, speeds) / report.makespan


def measured(row: str, size: int, seed: int) -> Measured:
    """Run a row once and return its figures."""
    began = process_time()
    _, report, ratio = run(row, size, seed)
    return Measured(
        row=row,
        workers=size,
        seed=seed,
        ratio=round(ratio, 5),
        spread_ms=round(1e3 * (report.spread or float("nan")), 4),
        messages=round(report.total_messages / size, 3),
        root_messages=round(report.root_messages / size, 3),
        idle_messages=round(report.settling / size, 3),
        shutdown=report.shutdown,
        state=report.neighbourhood,
        tasks=report.executed,
        steals=round(report.steals_won / size, 3),
        cpu_seconds=round(process_time() - began, 1),
        measured=strftime("%Y-%m-%d"),
    )


def read(path: Path) -> list[Measured]:
    """Read the lines of a file of figures."""
    with path.open(encoding="utf-8", newline="") as lines:
        return [
            Measured(**{name: _KINDS[kind](line[name]) for name, kind in _columns().items()})
            for line in csv.DictReader(lines)
        ]


_KINDS: dict[str, Callable[[str], Any]] = {"str": str, "int": int, "float": float}


def _columns() -> dict[str, str]:
    return {field.name: str(field.type) for field in fields(Measured)}


def add(path: Path, found: Measured) -> None:
    """Put a line into a file of figures, in place of that of the same run if there is one."""
    kept = read(path) if path.exists() else []
    run = (found.row, found.workers, found.seed)
    others = [each for each in kept if (each.row, each.workers, each.seed) != run]
    place = next((i for i, each in enumerate(kept) if each not in others), len(kept))
    others.insert(place, found)
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, list(_columns()), lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, others))


def means(found: Iterable[Measured]) -> Iterator[tuple[str, int, list[Measured]]]:
    """Group figures by row and size, in the order of the table."""
    kept = list(found)
    for row in ROWS:
        for size in SIZES:
            those = [each for each in kept if (each.row, each.workers) == (row, size)]
            if those:
                yield row, size, those


def table(found: Iterable[Measured]) -> str:
    """Return the table of means beside their bars, in reStructuredText."""
    head = (
        "row", "workers", "runs", "ratio", "bar", "all at work, ms", "messages a worker",
        "the root's, a worker", "until silence, a worker", "shutdown", "state", "met", "measured",
    )  # fmt: skip
    lines = [_line(row, size, those) for row, size, those in means(found)]
    return list_table(head, lines) + "\n"


def _line(row: str, size: int, those: Sequence[Measured]) -> list[str]:
    place = SIZES.index(size)
    ratio, bar = fmean(each.ratio for each in those), AT_LEAST[row][place]
    met = ratio >= bar
    cells = [row, f"{size:,}", str(len(those)), f"{ratio:.3f}", f"{bar:.2f}"]
    for name, bars in AT_MOST.items():
        mean = fmean(getattr(each, name) for each in those)
        if row == "flat 10 ms" or name == "idle_messages":
            met &= mean <= bars[place]
            cells.append(f"{mean:.2f} (≤ {bars[place]:g})")
        else:
            cells.append(f"{mean:.2f}")
    met &= {each.shutdown for each in those} == {2 * (size - 1)}
    days = ", ".join(sorted({each.measured for each in those}))
    state = str(max(each.state for each in those))
    return [*cells, f"{those[0].shutdown:,}", state, "yes" if met else "**no**", days]


def main(command_line: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulated", description=__doc__)
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=ROWS)
    parser.add_argument("--sizes", nargs="+", type=int, choices=SIZES, default=SIZES[:2])
    parser.add_argument("--seeds", nargs="+", type=int, default=range(1, SEEDS + 1))
    parser.add_argument("--csv", type=Path, help="add a line for each run to this file")
    parser.add_argument("--rst", type=Path, help="write the table of all lines of --csv there")
    args = parser.parse_args(command_line)
    found = []
    for row in args.rows:
        for size in args.sizes:
            for seed in args.seeds:
                found.append(measured(row, size, seed))
                print(found[-1], flush=True)
                if args.csv:
                    add(args.csv, found[-1])
    lines = read(args.csv) if args.csv else found
    (args.rst.write_text(table(lines), encoding="utf-8") if args.rst else print(table(lines)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
