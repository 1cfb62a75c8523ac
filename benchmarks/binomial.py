"""What bounds the binomial trees: ``python -m benchmarks.binomial FILE.csv [FILE.rst]``.

The tree of :mod:`benchmarks.simulated` (eight children with a chance, or none) is run with more
subtrees at its root, with longer nodes, with victims that answer at once, and as several trees side
by side in one run.  Beside the efficiency stand what a worker had to do, what a
central queue without any cost takes for the same tree, its critical path, and what a theft
brought and cost.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from time import process_time

from benchmarks.alternatives import ideal
from benchmarks.report import list_table
from benchmarks.simulated import CHILDREN, NETWORK, NODE_SECONDS, NODES_A_WORKER, ROOTS_A_WORKER
from dtm.testing import Script, Simulation, binomial, critical_path, measure, together

SEED = 3


@dataclass(frozen=True)
class Case:
    """One tree on one machine.

    Attributes:
        roots: subtrees at the root, a worker.
        seconds: of a node.
        patience: of a victim in the middle of a task.
        trees: how many stand side by side, each with its share of the roots.
    """

    workers: int
    roots: int = ROOTS_A_WORKER
    seconds: float = NODE_SECONDS
    patience: float = 0.8e-3
    trees: int = 1
    seed: int = SEED


CASES = (
    Case(256),
    Case(256, patience=0.0),
    Case(256, seconds=10 * NODE_SECONDS),
    Case(256, roots=4 * ROOTS_A_WORKER),
    Case(64),
    Case(64, roots=4 * ROOTS_A_WORKER),
    Case(64, roots=4 * ROOTS_A_WORKER, trees=4),
)


@dataclass(frozen=True)
class Found:
    """What a case gave; thefts, refusals and milliseconds are a worker's or a theft's share."""

    workers: int
    roots: int
    node_ms: float
    patience_ms: float
    trees: int
    nodes: int
    seconds: float
    path: float
    ideal: float
    efficiency: float
    thefts: float
    refusals: float
    nodes_a_theft: float
    idle_ms_a_theft: float
    spread_ms: float
    cpu_seconds: float


def tree(case: Case) -> Script:
    """Return the tree of a case, or its trees side by side."""
    chance = (1.0 - ROOTS_A_WORKER / NODES_A_WORKER) / CHILDREN
    roots = case.roots * case.workers // case.trees
    made = [
        binomial(case.seed + place, roots, CHILDREN, chance, case.seconds)
        for place in range(case.trees)
    ]
    return made[0] if case.trees == 1 else together(made)


def run(case: Case) -> Found:
    """Run a case."""
    began = process_time()
    program = tree(case)
    nodes, seconds = measure(program)
    report = Simulation(
        case.workers, program, network=NETWORK, seed=case.seed, patience=case.patience, check=False
    ).run()
    thefts = max(report.steals_won, 1)
    return Found(
        workers=case.workers,
        roots=case.roots,
        node_ms=1e3 * case.seconds,
        patience_ms=1e3 * case.patience,
        trees=case.trees,
        nodes=round(nodes / case.workers),
        seconds=round(seconds / case.workers, 3),
        path=round(critical_path(program), 3),
        ideal=round(ideal(program, case.workers), 4),
        efficiency=round(report.efficiency, 4),
        thefts=round(thefts / case.workers, 1),
        refusals=round(report.messages.get("Refusal", 0) / case.workers, 1),
        nodes_a_theft=round(nodes / thefts, 2),
        idle_ms_a_theft=round(1e3 * sum(report.idle) / thefts, 3),
        spread_ms=round(1e3 * (report.spread or float("nan")), 2),
        cpu_seconds=round(process_time() - began, 1),
    )


def read(path: Path) -> list[Found]:
    """Read what was kept."""
    with path.open(encoding="utf-8", newline="") as lines:
        return [
            Found(**{
                each.name: (int if each.type == "int" else float)(line[each.name])
                for each in fields(Found)
            })
            for line in csv.DictReader(lines)
        ]  # fmt: skip


def table(found: Sequence[Found]) -> str:
    """Return the figures as reStructuredText."""
    head = (
        "workers", "subtrees a worker", "trees", "a node, ms", "answer within, ms",
        "nodes a worker", "seconds a worker", "critical path, s", "central queue", "dtm",
        "thefts a worker", "refusals a worker", "nodes a theft", "idle ms a theft",
        "all at work, ms",
    )  # fmt: skip
    lines = [
        [
            f"{each.workers:,}", f"{each.roots}", f"{each.trees}", f"{each.node_ms:g}",
            f"{each.patience_ms:g}", f"{each.nodes:,}", f"{each.seconds:.2f}", f"{each.path:.2f}",
            f"{each.ideal:.3f}", f"{each.efficiency:.3f}", f"{each.thefts:,.0f}",
            f"{each.refusals:,.0f}", f"{each.nodes_a_theft:.1f}", f"{each.idle_ms_a_theft:.2f}",
            f"{each.spread_ms:.1f}",
        ]
        for each in found
    ]  # fmt: skip
    return list_table(head, lines) + "\n"


def keep(path: Path, found: Iterator[Found]) -> None:
    """Write figures to a file as they come."""
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, [each.name for each in fields(Found)], lineterminator="\n")
        writer.writeheader()
        for each in found:
            print(each, flush=True)
            writer.writerow(asdict(each))
            out.flush()


def main(command_line: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.binomial", description=__doc__)
    parser.add_argument("csv", type=Path, help="where the figures are kept")
    parser.add_argument("rst", type=Path, nargs="?", help="write the table of what is kept there")
    parser.add_argument("--table-only", action="store_true", help="run nothing")
    args = parser.parse_args(command_line)
    if not args.table_only:
        keep(args.csv, map(run, CASES))
    text = table(read(args.csv))
    (args.rst.write_text(text, encoding="utf-8") if args.rst else print(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
