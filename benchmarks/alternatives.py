"""The balancer beside what else it could do: ``python -m benchmarks.alternatives FOLDER``.

Each alternative changes one decision.  All run the same programs in virtual time, on the machine of
:mod:`benchmarks.simulated`.  The figures are kept in the folder; ``--plots`` draws them for the
page "why the balancer is as it is"; drawing needs matplotlib (``pip install --group plots``).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.report import list_table
from benchmarks.simulated import CHILDREN, NETWORK, NODE_SECONDS, run
from dtm.core.balancer import Balancer
from dtm.core.deque import Deque
from dtm.core.topology import neighbours
from dtm.task import Range
from dtm.testing import Report, Script, Simulation, binomial, geometric, measure
from dtm.testing.programs import Inner, Task

MAPS = 1024
TREES = 64
NODES_A_WORKER = 1000
SLACK = (4, 8, 16, 32, 64)


class OneRange(Balancer):
    """Gives of the oldest range alone."""

    def _offer(self, work: Deque, now: float) -> list[tuple[Range, float]]:
        return super()._offer(work, now)[:1]


class Most(Balancer):
    """Gives three times as much as it keeps."""

    def _portion(self, work: Deque, weight: int, shares: int, now: float) -> list[Range]:
        return super()._portion(work, 3 * weight, shares + 2 * weight, now)


class Little(Balancer):
    """Gives a quarter."""

    def _portion(self, work: Deque, weight: int, shares: int, now: float) -> list[Range]:
        return super()._portion(work, weight, 2 * shares, now)


class Best(Balancer):
    """Asks whoever seems to have most."""

    def _choose(self, now: float) -> int | None:
        known = [each for each in self.reports if each not in self._tried | self.tied.keys()]
        best = max(known, key=lambda each: self._seconds(each, now), default=None)
        if best is not None and self._seconds(best, now):
            return best
        return super()._choose(now)


class Unweighted(Balancer):
    """Gives a neighbour with a thousand idle workers behind it as much as any other."""

    def _weight(self, other: int) -> int:
        return 1


def cyclic(rank: int, size: int) -> tuple[int, ...]:
    """Return lifelines along the cyclic digits in base 4 besides the tree."""
    powers = (4**digit for digit in range(20) if 4**digit < size)
    others = dict.fromkeys((*neighbours(rank, size), *((rank + each) % size for each in powers)))
    return tuple(other for other in others if other != rank)


def long_links(rank: int, size: int) -> tuple[int, ...]:
    """Return lifelines to two far workers besides the tree."""
    far = ((rank + size // 2) % size, (rank + size // 3) % size)
    return tuple(dict.fromkeys((*neighbours(rank, size), *far)))


@dataclass(frozen=True)
class Alternative:
    """One decision taken otherwise.

    Attributes:
        set: constants of modules to set, by dotted name.
        options: of the simulation.
    """

    name: str
    set: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def _constant(name: str, constant: str, value: object) -> Alternative:
    return Alternative(name, {f"dtm.core.balancer.{constant}": value})


def _arity(base: int) -> Alternative:
    places = ("topology", "scheduler")
    return Alternative(f"tree of {base}", {f"dtm.core.{each}.BASE": base for each in places})


ALTERNATIVES = (
    Alternative("as it is"),
    Alternative("amount: of one range alone", options={"balancer": OneRange}),
    Alternative("amount: three quarters", options={"balancer": Most}),
    Alternative("amount: a quarter", options={"balancer": Little}),
    _constant("asked at once: 1", "ASKED_AT_ONCE", 1),
    _constant("asked at once: 3", "ASKED_AT_ONCE", 3),
    _constant("refusals: 1", "MOST_REFUSALS", 1),
    _constant("victim: at random alone", "FRESH_SECONDS", 0.0),
    Alternative("victim: the apparent best", options={"balancer": Best}),
    _constant("lifelines: cyclic digits too", "neighbours", cyclic),
    _constant("lifelines: two long links too", "neighbours", long_links),
    Alternative("first wave: shares without weights", options={"balancer": Unweighted}),
    _arity(2),
    _arity(8),
    Alternative("results: directly home", options={"relay_from": 1 << 30}),
)


Run = Callable[[dict[str, Any]], tuple[Report, float]]


def _tree(program: Script) -> Run:
    def one(options: dict[str, Any]) -> tuple[Report, float]:
        simulation = Simulation(TREES, program, network=NETWORK, seed=1, check=False, **options)
        report = simulation.run()
        return report, report.efficiency

    return one


def _map(row: str) -> Run:
    return lambda options: run(row, MAPS, 1, **options)[1:]


def programs() -> dict[str, Run]:
    """Return what is run, by name: two maps and two trees."""
    branch = (0.75 * NODES_A_WORKER * TREES) ** (1 / 8)
    trees = (geometric(seed, 8, branch, NODE_SECONDS) for seed in count(1))
    return {
        "flat 1 ms": _map("flat 1 ms"),
        "half speed": _map("half speed"),
        "geometric tree": _tree(_first_even(trees)),
        "binomial tree": _tree(even_tree(8)),
    }


def compare(alternative: Alternative, kept: dict[str, Run]) -> Iterator[dict[str, Any]]:
    """Run all programs with an alternative; yield a line of figures for each."""
    for program, one in kept.items():
        with ExitStack() as stack:
            for name, value in alternative.set.items():
                stack.enter_context(patch(name, value))
            report, ratio = one(alternative.options)
        yield {
            "alternative": alternative.name,
            "program": program,
            "ratio": round(ratio, 4),
            "steals": round(report.steals_won / report.workers, 2),
            "messages": round(report.total_messages / report.workers, 2),
            "root_messages": round(report.root_messages / report.workers, 3),
            "idle_messages": round(report.settling / report.workers, 2),
        }


# How much stands ready, and what that means.


def ideal(program: Inner, size: int) -> float:
    """Return the efficiency of a central queue without any cost, on a tree."""
    pool: deque[Task] = deque([program])
    running: list[tuple[float, int, list[Task]]] = []
    now, work, made = 0.0, 0.0, 0
    while pool or running:
        while pool and len(running) < size:
            seconds, children = _steps(pool.popleft())
            work += seconds
            made += 1
            heappush(running, (now + seconds, made, children))
        now, _, children = heappop(running)
        pool.extend(children)
    return work / (size * now)


def _steps(task: Task) -> tuple[float, list[Task]]:
    if isinstance(task, float):
        return task, []
    seconds, children = 0.0, []
    for step in task.steps():
        if isinstance(step, float):
            seconds += step
        elif not isinstance(step, BaseException):
            children += step
    return seconds, children


def even_tree(roots: int) -> Script:
    """Return a binomial tree with so many subtrees a worker at its root."""
    chance = (1.0 - roots / NODES_A_WORKER) / CHILDREN
    return _first_even(
        binomial(seed, roots * TREES, CHILDREN, chance, NODE_SECONDS) for seed in count(1)
    )


def _first_even(trees: Iterator[Script]) -> Script:
    """Return the first tree with about ``NODES_A_WORKER`` nodes a worker."""
    wanted = NODES_A_WORKER * TREES
    return next(tree for tree in trees if abs(measure(tree)[0] / wanted - 1.0) < 0.1)


def slack() -> Iterator[dict[str, Any]]:
    """Run binomial trees of one size that differ in how much stands ready at once."""
    for roots in SLACK:
        tree = even_tree(roots)
        one = _tree(tree)
        yield {
            "roots": roots,
            "ideal": round(ideal(tree, TREES), 4),
            "at_once": round(one({"patience": 0.0})[1], 4),
            "ours": round(one({})[1], 4),
        }


# What becomes of the figures.


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def keep(path: Path, lines: Iterator[dict[str, Any]]) -> None:
    """Write lines to a file as they come."""
    with path.open("w", encoding="utf-8", newline="") as out:
        writer: csv.DictWriter[str] | None = None
        for line in lines:
            print(line, flush=True)
            if writer is None:
                writer = csv.DictWriter(out, list(line))
                writer.writeheader()
            writer.writerow(line)
            out.flush()


def table(lines: Sequence[dict[str, str]]) -> str:
    """Return the comparison as reStructuredText: ratios, then what a flat map cost."""
    names = list(dict.fromkeys(line["alternative"] for line in lines))
    of = list(dict.fromkeys(line["program"] for line in lines))
    found = {(line["alternative"], line["program"]): line for line in lines}
    head = [
        "alternative", *of,
        "thefts", "messages", "the root's", "until silence",
    ]  # fmt: skip
    rows = []
    for name in names:
        of_map = found[name, of[0]]
        ratios = [f"{float(found[name, program]['ratio']):.3f}" for program in of]
        costs = ("steals", "messages", "root_messages", "idle_messages")
        rows.append([name, *ratios, *(f"{float(of_map[cost]):.1f}" for cost in costs)])
    return list_table(head, rows) + "\n"


def _figure(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "dtm", "font.size": 9})
    from matplotlib import pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None})


def plot_alternatives(lines: Sequence[dict[str, str]], path: Path) -> None:
    """Draw the ratio of every alternative, a mark a program."""
    names = list(dict.fromkeys(line["alternative"] for line in lines))
    figure, axes = _figure(7.5, 0.27 * len(names) + 1.2)
    programs = dict.fromkeys(line["program"] for line in lines)
    for program, mark in zip(programs, "o^sD", strict=True):
        those = {
            line["alternative"]: float(line["ratio"])
            for line in lines
            if line["program"] == program
        }
        axes.plot([those[name] for name in names], range(len(names)), mark, label=program)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("best possible time over ours")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", fontsize=8)
    _save(figure, path)


def plot_slack(lines: Sequence[dict[str, str]], path: Path) -> None:
    """Draw efficiency against what stands ready."""
    figure, axes = _figure(6.0, 3.2)
    labels = {
        "ideal": "central queue without any cost",
        "at_once": "ours, victims answer at once",
        "ours": "ours, victims answer after 0 to 0.8 ms",
    }
    for (column, label), mark in zip(labels.items(), "sDo", strict=True):
        axes.plot(
            [int(line["roots"]) for line in lines],
            [float(line[column]) for line in lines],
            f"{mark}-",
            label=label,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(SLACK, [str(each) for each in SLACK])
    axes.set_xlabel(f"subtrees at the root, a worker ({NODES_A_WORKER:,} nodes a worker in all)")
    axes.set_ylabel("efficiency")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    _save(figure, path)


PLOTS: dict[str, Callable[[Sequence[dict[str, str]], Path], None]] = {
    "alternatives": plot_alternatives,
    "slack": plot_slack,
}


def main(command_line: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alternatives", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the figures are kept (docs/balancing)")
    parser.add_argument("--plots", action="store_true", help="draw what is kept; run nothing")
    args = parser.parse_args(command_line)
    folder = args.folder
    if not args.plots:
        folder.mkdir(exist_ok=True)
        keep(folder / "slack.csv", slack())
        kept = programs()
        every = (line for each in ALTERNATIVES for line in compare(each, kept))
        keep(folder / "alternatives.csv", every)
        lines = read(folder / "alternatives.csv")
        (folder / "alternatives.rst").write_text(table(lines), encoding="utf-8")
        return 0
    for name, draw in PLOTS.items():
        draw(read(folder / f"{name}.csv"), folder / f"{name}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
