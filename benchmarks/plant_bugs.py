"""Plant bugs in a copy of dtm, one at a time, and count the seeds until simulation finds each.

Run it as ``python -m benchmarks.plant_bugs [--rst FILE]``; it prints a table and ends with
status 1 if a bug survives.  Each bug is a replacement of text in one module of the core.

A world that takes ``HANGS_SECONDS`` of processor time hangs, if the same world without the bug
ends ``FACTOR`` times as soon; what is merely slow is not found.

Not in the list are changes that break nothing and only cost time (no random victims, all
lifelines of weight 1, theft from the newest end, results of long calls gathered for ever longer):
those are what the figures of :mod:`benchmarks.simulated` are for.

Rejected: a mutation library.  Its thousand small mutants mostly change what does not matter,
and it knows nothing of what goes wrong in protocols; these have been chosen.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import list_table

ROOT = Path(__file__).resolve().parent.parent
SEEDS = 1000
SECONDS = 120.0
HANGS_SECONDS = 10.0
FACTOR = 50.0

_SEARCH = """
import signal
from dtm.testing import random_simulation

class Hangs(Exception):
    pass

def hangs(number, frame):
    raise Hangs

signal.signal(signal.SIGVTALRM, hangs)
for seed in range({seeds}):
    signal.setitimer(signal.ITIMER_VIRTUAL, {seconds})
    try:
        random_simulation(seed).run(400_000)
    except Exception as error:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        print(seed + 1, type(error).__name__, str(error).partition(chr(10))[0][:120], sep="|")
        break
"""
_TIME = """
from time import process_time
from dtm.testing import random_simulation
began = process_time()
random_simulation({seed}).run(400_000)
print(process_time() - began)
"""


@dataclass(frozen=True)
class Bug:
    """A replacement of text in a module of the core."""

    name: str
    module: str
    old: str
    new: str


BUGS = [
    Bug("drop a refusal", "balancer", "return [(source, Refusal(request.serial))]", "return []"),
    Bug(
        "grant the same items twice",
        "balancer",
        "return oldest.take_back(count)",
        "return Range(oldest.call, oldest.hi - count, oldest.hi, oldest.born)",
    ),
    Bug(
        "answer a lifeline and keep it",
        "balancer",
        "            del self.waiting[thief]",
        "            pass",
    ),
    Bug(
        "forget a lifeline",
        "balancer",
        "        self.waiting[source] = (request.serial, request.weight, request.deal)",
        "        pass",
    ),
    Bug(
        "believe a lifeline tied that a deal made void",
        "balancer",
        "        self.patient = True\n        self.tied.clear()\n",
        "        self.patient = True\n",
    ),
    Bug(
        "answer from an empty deque",
        "balancer",
        "            if not parts:\n                break",
        "            if not parts:\n                pass",
    ),
    Bug(
        "tie lifelines to one neighbour only",
        "balancer",
        "for other in self.neighbours if other not in self.tied]",
        "for other in self.neighbours[:1] if other not in self.tied]",
    ),
    Bug(
        "believe a lifeline tied that was answered",
        "balancer",
        "        if self.tied.get(source) == serial:\n            del self.tied[source]\n\n",
        "        pass\n\n",
    ),
    Bug(
        "lose the newest report", "balancer", "sequence < load.sequence", "sequence > load.sequence"
    ),
    Bug(
        "ask without a deadline",
        "balancer",
        "            self.deadline = now + ANSWER_SECONDS\n",
        "",
    ),
    Bug(
        "go on asking when work came",
        "balancer",
        '            self._go("work came")',
        "            pass",
    ),
    Bug(
        "pass over an answer",
        "scheduler",
        "        sends = self.balancer.refused(source, message.serial, now)\n",
        "        sends = []\n",
    ),
    Bug(
        "wake nobody",
        "scheduler",
        "return [WakeAt(when)] if when < NEVER else []",
        "return []",
    ),
    Bug(
        "lose a granted range",
        "scheduler",
        "            self.deque.push(part)\n",
        "            if part.lo % 7 != 6:\n                self.deque.push(part)\n",
    ),
    Bug(
        "lose a segment of results",
        "scheduler",
        "for segment in message.segments:",
        "for segment in message.segments[:1]:",
    ),
    Bug(
        "complete without a word", "scheduler", "        return [Resume(call)]", "        return []"
    ),
    Bug(
        "tell no child to stop",
        "shutdown",
        "message) for heir in heirs)",
        "message) for heir in ())",
    ),
    Bug(
        "keep who sends work as waiting",
        "scheduler",
        "            self.balancer.tied.pop(to, None)\n",
        "",
    ),
    Bug("never close a call", "ledger", "        self._calls.pop(call.key, None)", "        pass"),
    Bug(
        "give a call a new key each time", "ledger", "        if not call.key:", "        if True:"
    ),
    Bug(
        "lose a failure",
        "ledger",
        "        if segment.failure is not None:",
        "        if False:",
    ),
    Bug(
        "drop a range that is not exhausted",
        "deque",
        "            if last.lo < last.hi and last.lo < last.call.limit:",
        "            if last.lo + 1 < last.hi and last.lo < last.call.limit:",
    ),
    Bug(
        "run what is newest on top of a waiting task",
        "wait_policy",
        "newest.call.parent is task and newest.call.owner == rank",
        "newest.left",
    ),
    Bug(
        "look for work while others are ready",
        "wait_policy",
        "return Way.LOOK if idle else Way.PARK",
        "return Way.LOOK",
    ),
    Bug(
        "ask oneself",
        "balancer",
        "if other != self.rank and other not in",
        "if other not in",
    ),
    Bug(
        "ask on for ever",
        "balancer",
        "MOST_REFUSALS = 2\n",
        "MOST_REFUSALS = 10**9\n",
    ),
    Bug(
        "say the contrary of idle",
        "scheduler",
        "idle = self.balancer.mode is not Mode.WORKING",
        "idle = self.balancer.mode is Mode.WORKING",
    ),
    Bug(
        "keep a deadline when work came",
        "balancer",
        """            self._go("work came")
            self.deadline = float("inf")
""",
        """            self._go("work came")
""",
    ),
    Bug(
        "look again ever later",
        "scheduler",
        "min(2 * self._pause, TICK_SECONDS)",
        "2 * self._pause",
    ),
    Bug(
        "tell nobody of a failure",
        "scheduler",
        "return [*self._cancel(call), Resume(call)]",
        "return [Resume(call)]",
    ),
    Bug(
        "pass no cancellation on",
        "scheduler",
        "return self._forward(message)",
        "return []",
    ),
    Bug(
        "ignore a cancellation",
        "scheduler",
        "                call.limit = min(call.limit, message.limit)\n",
        "                pass\n",
    ),
    Bug(
        "forget a cancellation when a part comes later",
        "scheduler",
        "                call.limit = min(call.limit, known)\n",
        "",
    ),
    Bug(
        "take the larger failing index",
        "../task",
        "if self.failure is not None and self.failure[0] <= index:",
        "if self.failure is not None and self.failure[0] >= index:",
    ),
    Bug(
        "count what lies above the limit",
        "../task",
        "stop = min(lo + count, self.limit)",
        "stop = lo + count",
    ),
    Bug(
        "accept results twice",
        "../task",
        "            if before + len(self.segments[before]) > lo:\n",
        "            if False:\n",
    ),
    Bug(
        "keep what is ready at the end",
        "scheduler",
        "        self.deque.clear()\n",
        "",
    ),
    Bug(
        "answer thieves at the end",
        "scheduler",
        "        if self.stopping:\n            return []\n        answers",
        "        answers",
    ),
    Bug(
        "ask for work at the end",
        "scheduler",
        "        if self.stopping:\n            return []\n        return [self._send(to, message) for",
        "        return [self._send(to, message) for",
    ),
    Bug(
        "begin with what comes after the end",
        "scheduler",
        "        if self.stopping:  # main has returned: nobody needs it\n            return []\n",
        "",
    ),
    Bug(
        "wait for answers at the end",
        "scheduler",
        "        self.balancer.end()\n",
        "",
    ),
    Bug(
        "stop before the heirs have",
        "shutdown",
        "if self._awaited or self.stage is Stage.STOPPED:",
        "if self.stage is Stage.STOPPED:",
    ),
    Bug(
        "send on and keep",
        "relay",
        "                passing.segments.clear()\n",
        "",
    ),
    Bug(
        "lose what passes",
        "relay",
        "        passing.segments += segments\n",
        "",
    ),
    Bug(
        "send results to the wrong owner",
        "relay",
        "return to, (Results",
        "return owner * 0, (Results",
    ),
    Bug(
        "count a segment twice",
        "../task",
        "            self.missing -= stop - lo\n",
        "            self.missing -= 2 * (stop - lo)\n",
    ),
    Bug(
        "run an item twice",
        "../task",
        "        self.lo = hi\n        return lo, hi",
        "        self.lo = hi - (lo % 11 == 10)\n        return lo, hi",
    ),
]


def plant(bug: Bug, folder: Path) -> None:
    """Copy dtm into a folder, with a bug in it.

    Raises:
        ValueError: the text to replace is not there, or not once.
    """
    shutil.copytree(ROOT / "dtm", folder / "dtm", ignore=shutil.ignore_patterns("__pycache__"))
    module = (folder / "dtm" / "core" / f"{bug.module}.py").resolve()
    text = module.read_text(encoding="utf-8")
    if bug.old not in text:
        raise ValueError(f"{bug.name}: {bug.module} has no {bug.old!r}")
    module.write_text(text.replace(bug.old, bug.new, 1), encoding="utf-8")


def search(bug: Bug, seeds: int = SEEDS) -> tuple[int | None, str]:
    """Return how many seeds it took to find a bug, None if it survived, and how it showed."""
    with tempfile.TemporaryDirectory(prefix="dtm-bug-") as folder:
        plant(bug, Path(folder))
        found = _python(_SEARCH.format(seeds=seeds, seconds=HANGS_SECONDS), Path(folder))
    if found is None:
        return None, f"Slow: {seeds} seeds take more than {SECONDS:g} s, and nothing is broken"
    if not found:
        return None, "survived: nothing"
    count, kind, text = found.split("|", 2)
    return _hangs(int(count)) if kind == "Hangs" else (int(count), f"{kind}: {text}")


def _hangs(count: int) -> tuple[int | None, str]:
    """Judge a world that did not end in time by how long it takes without the bug."""
    found = _python(_TIME.format(seed=count - 1), ROOT)
    seconds = SECONDS if found is None else float(found)
    if seconds * FACTOR > HANGS_SECONDS:
        return None, f"Slow: {HANGS_SECONDS:g} s, without the bug {seconds:.2f} s"
    return count, f"Hangs: no end after {HANGS_SECONDS:g} s, without the bug {seconds:.2f} s"


def _python(code: str, folder: Path) -> str | None:
    """Run code with the dtm of a folder; return what it prints, None if it takes too long.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-c", code]
    try:
        run = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    if run.returncode:
        raise RuntimeError(f"the search itself failed\n{run.stderr}")
    return run.stdout.strip()


def main(command_line: Sequence[str] | None = None) -> int:
    """Print the table, or write it; return how many bugs survived."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plant_bugs", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many to try for each bug")
    parser.add_argument("--rst", type=Path, help="write the table to this file, for the docs")
    args = parser.parse_args(command_line)
    lines = []
    for bug in BUGS:
        count, how = search(bug, args.seeds)
        lines.append((bug.name, bug.module.lstrip("./"), str(count or "survived"), how))
        print("{:44s} {:10s} {:>8s}  {}".format(*lines[-1]), flush=True)
    if args.rst:
        head = ("bug", "planted in", "seeds", "what was broken")
        shown = [(*line[:3], line[3].split(": ")[1]) for line in lines]
        args.rst.write_text(list_table(head, shown) + "\n", encoding="utf-8")
    return sum(line[2] == "survived" for line in lines)


if __name__ == "__main__":
    sys.exit(main() and 1)
