"""Ideal figures beside measured costs: ``python -m benchmarks.costs FILE.csv [FILE.rst]``.

The machine is that of :mod:`benchmarks.simulated`, then the same with what was measured on real
ones: messages of 50 us of processor time at each end that have to wake who sleeps, items that are
individuals of DEAP.  *Generations* are maps with a barrier after each, 2.5 items a worker.
The ratio is the time of a greedy central queue without any cost over ours.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from time import strftime

from benchmarks.report import list_table
from benchmarks.simulated import NETWORK
from dtm.testing import Network, Script, Simulation, exponential, greedy_makespan

INDIVIDUALS = replace(
    NETWORK, item_send=3.9e-6, item_receive=2.8e-6, result_send=0.1e-6, result_receive=0.13e-6
)
MESSAGES = replace(NETWORK, message_send=50e-6, message_receive=50e-6, wake=40e-6)
BOTH = replace(
    INDIVIDUALS, message_send=MESSAGES.sending, message_receive=MESSAGES.receiving, wake=40e-6
)
MACHINES = {
    "ideal": NETWORK,
    "individuals of 10 numbers": INDIVIDUALS,
    "messages as measured": MESSAGES,
    "both": BOTH,
}
SEED = 1


@dataclass(frozen=True)
class Row:
    """A program: so many maps, with so many items a worker, that take so many seconds each."""

    name: str
    workers: int
    maps: int
    items: float
    seconds: float

    def program(self) -> Script:
        """Return its maps."""
        random, law = Random(SEED), exponential(self.seconds)
        size = int(self.items * self.workers)
        return Script(*([law(random) for _ in range(size)] for _ in range(self.maps)))


ROWS = (
    Row("map of 1 ms", 1024, 1, 100, 1e-3),
    Row("map of 10 ms", 1024, 1, 100, 10e-3),
    Row("generations of 5 ms", 128, 20, 2.5, 5e-3),
    Row("generations of 5 ms", 1024, 20, 2.5, 5e-3),
)


def bound(row: Row, network: Network) -> float:
    """Return the most workers' worth of capacity that the root can feed, a worker."""
    cost = network.item_send + network.result_receive
    return min(1.0, row.seconds / cost / row.workers) if cost else 1.0


def run(row: Row, name: str) -> dict[str, str]:
    """Run a row on a machine and return a line of figures."""
    program, network = row.program(), MACHINES[name]
    report = Simulation(
        row.workers, program, network=network, seed=SEED, known=row.seconds, check=False
    ).run()
    best = sum(greedy_makespan(list(step), [1.0] * row.workers) for step in _maps(program))
    return {
        "program": row.name,
        "workers": str(row.workers),
        "machine": name,
        "ratio": f"{best / report.makespan:.3f}",
        "bound": f"{bound(row, network):.2f}",
        "messages": f"{report.total_messages / row.workers / row.maps:.1f}",
        "measured": strftime("%Y-%m-%d"),
    }


def _maps(program: Script) -> list[Sequence[float]]:
    return [step for step in program.steps() if isinstance(step, Sequence)]


def read(path: Path) -> list[dict[str, str]]:
    """Read what was kept."""
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def table(found: Sequence[dict[str, str]]) -> str:
    """Return the figures as reStructuredText."""
    head = (
        "program", "workers", "costs", "ratio", "bound by the root's pickling",
        "messages a worker and map", "measured",
    )  # fmt: skip
    lines = [[f"{int(cell):,}" if name == "workers" else cell for name, cell in line.items()]
             for line in found]  # fmt: skip
    return list_table(head, lines) + "\n"


def main(command_line: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description=__doc__)
    parser.add_argument("csv", type=Path, help="where the figures are kept")
    parser.add_argument("rst", type=Path, nargs="?", help="write the table of what is kept there")
    args = parser.parse_args(command_line)
    with args.csv.open("w", encoding="utf-8", newline="") as out:
        writer: csv.DictWriter[str] | None = None
        for row in ROWS:
            for name in MACHINES:
                found = run(row, name)
                print(found, flush=True)
                if writer is None:
                    writer = csv.DictWriter(out, list(found), lineterminator="\n")
                    writer.writeheader()
                writer.writerow(found)
                out.flush()
    text = table(read(args.csv))
    (args.rst.write_text(text, encoding="utf-8") if args.rst else print(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
