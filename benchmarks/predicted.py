"""What the simulator predicts beside what happens: ``python -m benchmarks.predicted``.

Each program runs for real on workers of this machine, and then in virtual time with the costs that
:meth:`dtm.testing.Network.measured` finds right before.  The simulated bodies take what the real
ones took, which each of them measures: what is compared is dtm's part.  (So a body that is late
because its core was taken counts as a longer body on both sides.)

``--csv`` adds the figures to a file, ``--rst`` writes the table of the medians of all its lines.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from time import strftime

from benchmarks.programs.steps import KINDS, SECONDS, recorded
from benchmarks.report import list_table
from dtm.testing import Network, Simulation

SIZES = (2, 4, 8, 16)
ROOT = Path(__file__).resolve().parent.parent
LONGEST_SECONDS = 120.0
BAR = 0.05


@dataclass(frozen=True)
class Compared:
    """One run: seconds that it took, that were predicted, and that it takes without any cost.

    Attributes:
        load: of the machine, on the average of a minute.
    """

    program: str
    workers: int
    seed: int
    real: float
    predicted: float
    ideal: float
    load: float
    measured: str

    @property
    def error(self) -> float:
        """By what part the prediction is off."""
        return self.predicted / self.real - 1.0


def compare(kind: str, workers: int, seed: int) -> Compared:
    """Run a program for real and in virtual time."""
    network = Network.measured([0.5] * 8, [0.5] * 8)
    command = [sys.executable, "-m", "benchmarks.programs.steps", kind, str(seed)]
    environment = {**os.environ, "DTM_COMM": "local", "DTM_WORKERS": str(workers)}
    ran = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
        timeout=LONGEST_SECONDS,
    )  # fmt: skip
    found = json.loads(ran.stdout.splitlines()[-1])
    program = recorded(found["steps"])
    asleep = not kind.startswith("computing")
    times = [
        Simulation(
            workers, program, network=each, seed=seed, known=SECONDS, sleeping=asleep, check=False
        ).run().makespan
        for each in (network, Network())
    ]  # fmt: skip
    return Compared(
        kind, workers, seed, round(found["seconds"], 5), round(times[0], 5), round(times[1], 5),
        round(os.getloadavg()[0], 1), strftime("%Y-%m-%d"),
    )  # fmt: skip


def read(path: Path) -> list[Compared]:
    """Read what was kept."""
    kinds = {"str": str, "int": int, "float": float}
    with path.open(encoding="utf-8", newline="") as lines:
        return [
            Compared(**{each.name: kinds[str(each.type)](line[each.name])
                        for each in fields(Compared)})
            for line in csv.DictReader(lines)
        ]  # fmt: skip


def add(path: Path, found: Compared) -> None:
    """Add a line to a file of figures."""
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(
            lines, [each.name for each in fields(Compared)], lineterminator="\n"
        )
        if new:
            writer.writeheader()
        writer.writerow(asdict(found))


def table(found: Sequence[Compared], sizes: Sequence[int] = SIZES) -> str:
    """Return medians of the figures, and of the errors, as reStructuredText."""
    head = (
        "program", "workers", "runs", "real, s", "predicted, s", "ideal, s", "error", "load",
        "measured",
    )  # fmt: skip
    lines = []
    for kind in KINDS:
        for size in sizes:
            those = [each for each in found if (each.program, each.workers) == (kind, size)]
            if those:
                lines.append(_line(kind, size, those))
    errors = [abs(each.error) for each in found]
    lines.append(
        ["median of all", "", str(len(found)), "", "", "", f"{median(errors):.1%}", "", ""]
    )
    return list_table(head, lines) + "\n"


def _line(kind: str, size: int, those: Sequence[Compared]) -> list[str]:
    times = [f"{median(getattr(each, name) for each in those):.3f}"
             for name in ("real", "predicted", "ideal")]  # fmt: skip
    days = ", ".join(sorted({each.measured for each in those}))
    error = f"{median(each.error for each in those):+.1%}"
    load = f"{median(each.load for each in those):.0f}"
    return [kind, str(size), str(len(those)), *times, error, load, days]


def compare_all(
    module: str,
    text: str | None,
    compare: Callable[[str, int, int], Compared],
    kinds: Sequence[str],
    sizes: Sequence[int],
    command_line: Sequence[str] | None,
) -> int:
    """Be the command that compares the programs that it is told, and keeps and tells the figures.

    Args:
        module: its name.
        text: what its help says.
        compare: runs and predicts a program, on so many workers, with a seed.
        kinds: the programs to choose from.
        sizes: the numbers of workers to choose from.
        command_line: what it is told; that of this process if None.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=text)
    parser.add_argument("--kinds", nargs="*", choices=kinds, default=kinds)
    parser.add_argument("--sizes", nargs="+", type=int, choices=sizes, default=sizes)
    parser.add_argument("--seeds", nargs="+", type=int, default=range(1, 4))
    parser.add_argument("--csv", type=Path, help="add a line for each run to this file")
    parser.add_argument("--rst", type=Path, help="write the table of all lines of --csv there")
    args = parser.parse_args(command_line)
    found = []
    for seed in args.seeds:
        for kind in args.kinds:
            for size in args.sizes:
                found.append(compare(kind, size, seed))
                print(found[-1], f"{found[-1].error:+.1%}", flush=True)
                if args.csv:
                    add(args.csv, found[-1])
    lines = read(args.csv) if args.csv and args.csv.exists() else found
    if lines:
        said = table(lines, sizes)
        (args.rst.write_text(said, encoding="utf-8") if args.rst else print(said))
    return 0


def main(command_line: Sequence[str] | None = None) -> int:
    return compare_all("benchmarks.predicted", __doc__, compare, KINDS, SIZES, command_line)


if __name__ == "__main__":
    sys.exit(main())
