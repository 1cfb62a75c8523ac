"""Plant bugs in the shell of a copy of dtm, one at a time, and say what finds each.

Run it as ``python -m benchmarks.plant_shell_bugs [--rst FILE]``; it prints a table and ends with
status 1 if a bug survives.  Each bug is a replacement of text in a module of ``run/``, ``wire/``,
``comm/mpi/``, or of lazy maps and asynchronous results.

Most bugs have a test of the suite that must fail: one of a few milliseconds, with fakes in place of
what stands around the object that the bug is in.  Bugs that only show where threads meet at the
wrong moment are searched for in the programs of the suite (``tests/interleaved.py``), each under
one schedule after the other, with the means of :mod:`dtm.testing.interleaving`.

Rejected: real runs, repeated.  The races among these bugs show once in a hundred runs on a busy
machine, and never on the next.
"""
# ruff: noqa: E501 - lines of code are quoted as they stand

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import list_table

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 16
SHARE = 5
SECONDS = 300.0

_SEARCH = """
import sys
from dtm.testing import InterleavingError
from tests.interleaved import FOCI, PROGRAMS
for number in range({rounds}):
    depth = 16 if number // len(FOCI) % 2 else 3
    for name, program in PROGRAMS.items():
        explored = program.interleavings(FOCI[number % len(FOCI)])
        try:
            explored.random({share}, first={share} * number, depth=depth)
        except InterleavingError as error:
            print(name, error.seed, str(error).partition(chr(10))[0][:160], sep="|")
            sys.exit()
"""


@dataclass(frozen=True)
class ShellBug:
    """A replacement of text in a module.

    Attributes:
        test: the test that must fail, as pytest names it; None for any explored program.
    """

    name: str
    module: str
    old: str
    new: str
    test: str | None = None


BUGS = [
    ShellBug(
        "the load-balancer thread swallows a wake",
        "run/worker.py",
        "            if came and self.runner.resting:  # what came may have been meant for the other thread\n                self.nudge()\n            return\n",
        "            return\n",
        "tests/test_workers.py",
    ),
    ShellBug(
        "the load-balancer thread does not nudge a resting main thread",
        "run/worker.py",
        "        self.service()\n        if self.runner.resting:  # it has not seen what has just been read here\n            self.nudge()\n",
        "        self.service()\n",
        "tests/test_workers.py",
    ),
    ShellBug(
        "the outbox is emptied twice",
        "run/outbox.py",
        "        results, self._results = self._results, {}\n",
        "        results = self._results\n",
        "tests/test_workers.py",
    ),
    ShellBug(
        "a listener stays after a withdrawal",
        "run/stacks.py",
        "                    if call.listeners and me.resume in call.listeners:\n                        call.listeners.remove(me.resume)\n",
        "                    pass\n",
        "tests/test_stacks.py",
    ),
    ShellBug(
        "a stack parks without a last look",
        "run/stacks.py",
        "            for call in calls:\n                if call.missing == 0:\n                    return\n            for call",
        "            for call",
        "tests/test_stacks.py",
    ),
    ShellBug(
        "a stack that may go on wakes nobody",
        "run/stacks.py",
        "                self.ready.append(stack)\n            self._nudge()\n",
        "                self.ready.append(stack)\n",
        "tests/test_stacks.py",
    ),
    ShellBug(
        "the least recently used function is not moved",
        "wire/functions.py",
        "            self._entries.move_to_end(key)\n",
        "",
        "tests/test_travels_once.py",
    ),
    ShellBug(
        "keys that are not held any more are not told",
        "wire/functions.py",
        "        for rank in entry.holders:\n            self.dropped.setdefault(rank, []).append(key)\n",
        "",
        "tests/test_travels_once.py",
    ),
    ShellBug(
        "results stay here when a worker turns idle",
        "run/runner.py",
        "        world = self.world\n        world.flush()\n        world.idle()\n",
        "        world = self.world\n        world.idle()\n",
    ),
    ShellBug(
        "results stay here when a stack parks",
        "run/waiting.py",
        "            else:\n                runner.world.flush()\n                stacks.park(calls)\n",
        "            else:\n                stacks.park(calls)\n",
        "tests/test_workers.py",
    ),
    ShellBug(
        "nobody looks again before a rest",
        "run/runner.py",
        "            if nothing:\n                world.rest(timeout)\n",
        "            if True:\n                world.rest(timeout)\n",
    ),
    ShellBug(
        "two threads claim the same items",
        "run/runner.py",
        "                counters.items += ran\n                lo, hi = work.claim(length)\n",
        "                counters.items += ran\n            lo = work.lo\n            hi = min(lo + length, work.hi, call.limit)\n            if hi > lo:\n                work.lo = hi\n",
    ),
    ShellBug(
        "a single item is run without being claimed",
        "run/runner.py",
        "            if work.lo >= work.hi or work.lo >= call.limit:\n                return\n            work.lo = work.hi\n",
        "            if work.lo >= work.hi or work.lo >= call.limit:\n                return\n",
    ),
    ShellBug(
        "a call that is complete resumes nobody",
        "run/runner.py",
        "            self.world.perform(self.scheduler.completed(call))\n\n    def _leave_fork",
        "            self.scheduler.completed(call)\n\n    def _leave_fork",
    ),
    ShellBug(
        "the limit of a remote failure is not set here",
        "run/runner.py",
        "                if failure is not None:\n                    call.limit = min(call.limit, start + count)\n                segment",
        "                segment",
        "tests/test_workers.py",
    ),
    ShellBug(
        "a listener is added without the lock, and without a last look",
        "run/runner.py",
        "        with self._lock:\n            if not call.missing:\n                return False\n            call.listeners = [*(call.listeners or ()), listener]\n            return True\n",
        "        before = [*(call.listeners or ()), listener]\n        call.listeners = before\n        return True\n",
    ),
    ShellBug(
        "a stack that may go on is not queued",
        "run/stacks.py",
        '                stack.go("may go on")\n                self.ready.append(stack)\n            self._nudge()\n',
        '                stack.go("may go on")\n            self._nudge()\n',
        "tests/test_stacks.py",
    ),
    ShellBug(
        "a thread of the user's never runs its own children",
        "run/waiting.py",
        "            if in_vain or (context.depth and not is_deep()):\n",
        "            if False:\n",
    ),
    ShellBug(
        "a thread of the user's sleeps without a last look",
        "run/waiting.py",
        "                if not call.missing:\n                    return\n                call.listeners = [*(call.listeners or ()), event.set]\n",
        "                call.listeners = [*(call.listeners or ()), event.set]\n",
    ),
    ShellBug(
        "one message is read at a time",
        "run/worker.py",
        "        for source, frames in self.comm.receive():\n            self._take(source, frames)\n",
        "        for source, frames in self.comm.receive()[:1]:\n            self._take(source, frames)\n",
    ),
    ShellBug(
        "results are gathered without the lock",
        "run/worker.py",
        "        with self.lock:\n            for owner, segments in self._outbox.take_results().items():\n",
        "        results = self._outbox.take_results()\n        with self.lock:\n            for owner, segments in results.items():\n",
    ),
    ShellBug(
        "only results of the last owner are kept",
        "run/outbox.py",
        "        kept = self._results.setdefault(owner, [])\n",
        "        kept = self._results[owner] = []\n",
        "tests/test_workers.py",
    ),
    ShellBug(
        "lines of output stay here at the end",
        "run/worker.py",
        "                self.output.finish()\n            self._flush_lines()\n            self.flush()\n",
        "                self.output.finish()\n            self.flush()\n",
        "tests/test_workers.py",
    ),
    ShellBug(
        "lines of output are sent twice",
        "run/outbox.py",
        "        lines, self._lines = self._lines, []\n",
        "        lines = list(self._lines)\n",
        "tests/test_workers.py",
    ),
    ShellBug(
        "the loss of a worker is not told",
        "run/worker.py",
        "                for peer in self.comm.lost():\n                    self._note_loss(peer)\n",
        "                self.comm.lost()\n",
        "tests/test_interleavings.py -k lost_at_each_point",
    ),
    ShellBug(
        "a worker does not end with the run",
        "run/runtime.py",
        "        if self.comm.rank:\n            self._part(1 if reason else 0)\n",
        "        if self.comm.rank:\n            pass\n",
    ),
    ShellBug(
        "the switch interval is not put back",
        "run/runtime.py",
        "            sys.setswitchinterval(self._interval)\n            sys.setrecursionlimit(self._depth)\n",
        "            sys.setrecursionlimit(self._depth)\n",
        "tests/test_run_object.py",
    ),
    ShellBug(
        "the recursion limit is not put back",
        "run/runtime.py",
        "            sys.setswitchinterval(self._interval)\n            sys.setrecursionlimit(self._depth)\n",
        "            sys.setswitchinterval(self._interval)\n",
        "tests/test_run_object.py",
    ),
    ShellBug(
        "whole lines are written twice",
        "run/output.py",
        '        whole = self._partial.pop(thread, "") + text\n',
        '        whole = self._partial.get(thread, "") + text\n',
        "tests/test_output.py",
    ),
    ShellBug(
        "two passes over what is in flight",
        "lazy.py",
        "        for call in self._flying:  # once, for a call may be completed at any moment\n            (flying if call.missing else ended).append(call)\n",
        "        ended = [call for call in self._flying if not call.missing]\n        flying = deque(call for call in self._flying if call.missing)\n",
    ),
    ShellBug(
        "mail is looked at without the lock",
        "comm/mpi/manager.py",
        "            with self._lock:\n                pause = self._look(deadline)\n",
        "            if True:\n                pause = self._look(deadline)\n",
    ),
    ShellBug(
        "mail is sent without the lock",
        "comm/mpi/manager.py",
        "        with self._lock:\n            if rank in self._gone:\n                return\n",
        "        if True:\n            if rank in self._gone:\n                return\n",
    ),
    ShellBug(
        "who leads the waiting wakes nobody",
        "comm/mpi/manager.py",
        "                self._led = False\n                self._turn.notify_all()\n",
        "                self._led = False\n",
    ),
    ShellBug(
        "segments come without their failures",
        "wire/codec.py",
        "        failure = unpack_failure(next(rest)) if failed else None\n",
        "        failure = None\n",
        "tests/test_wire.py",
    ),
    ShellBug(
        "a deadline never ends a wait",
        "run/waiting.py",
        "        until = FOREVER if deadline is None else deadline\n",
        "        until = FOREVER\n",
        "tests/test_workers.py",
    ),
    ShellBug(
        "a deadline never ends a wait of a thread of the user's",
        "run/waiting.py",
        "            if now >= deadline:\n                return\n            work = None\n",
        "            work = None\n",
        "tests/test_workers.py",
    ),
    ShellBug(
        "a parked stack does not go on when its time is up",
        "run/stacks.py",
        "            if stack.place is READY or (stack.place is PARKED and stack.until <= now):\n",
        "            if stack.place is READY:\n",
        "tests/test_stacks.py",
    ),
    ShellBug(
        "a prompt wait lets nothing else run",
        "run/waiting.py",
        "                if self.something_to_do():\n",
        "                if False:\n",
        "tests/test_workers.py",
    ),
    ShellBug(
        "ready stacks never get a turn between strips",
        "run/runner.py",
        "                if self._others_first():\n                    # Nobody",
        "                if False:\n                    # Nobody",
        "tests/test_workers.py",
    ),
    ShellBug(
        "the task of a stack is lost when it gives way",
        "run/runner.py",
        "        self.stacks.give_way()\n        self.thread.context = context\n",
        "        self.stacks.give_way()\n",
        "tests/test_workers.py",
    ),
    ShellBug(
        "streaming results wait for a second",
        "run/runner.py",
        "(STREAM_SECONDS if call.streaming else FLUSH_SECONDS)",
        "FLUSH_SECONDS",
        "tests/test_workers.py",
    ),
    ShellBug(
        "who asks for what cannot be sent gets no answer",
        "run/worker.py",
        "                message = message._replace(parts=()) if unasked else Refusal(message.serial)\n",
        "                return\n",
        "tests/test_workers.py",
    ),
    ShellBug(
        "the root waits at the end for workers that are gone",
        "run/worker.py",
        "                self.perform(self.scheduler.excuse(absent))\n",
        "",
        "tests/test_workers.py",
    ),
    ShellBug(
        "parts that cannot be sent are dropped",
        "run/shipping.py",
        "        self._put_back(part, problem.index)\n",
        "",
        "tests/test_shipping.py",
    ),
    ShellBug(
        "a function that cannot be sent is told of each time",
        "run/shipping.py",
        "        if (call.name, is_function) in self._told:\n            return\n",
        "",
        "tests/test_shipping.py",
    ),
    ShellBug(
        "two threads take leave at once",
        "run/runtime.py",
        "        if not self._leaving.acquire(blocking=False):\n            return\n",
        "        self._leaving.acquire(blocking=False)\n",
        "tests/test_run_object.py",
    ),
    ShellBug(
        "signals stay caught after the run",
        "run/runtime.py",
        "            sys.setrecursionlimit(self._depth)\n            self._give_signals_back()\n",
        "            sys.setrecursionlimit(self._depth)\n",
        "tests/test_run_object.py",
    ),
    ShellBug(
        "threads share a line of output",
        "run/output.py",
        "        thread = threading.get_ident()\n        whole",
        "        thread = 0\n        whole",
        "tests/test_output.py",
    ),
    ShellBug(
        "keys are not taken back when a grant is not sent",
        "wire/codec.py",
        "                parcel.keys.append(key)\n",
        "                self._functions_out.sent(parcel.to, [key])\n",
        "tests/test_wire.py",
    ),
    ShellBug(
        "the window of a lazy map has no bound",
        "lazy.py",
        "        while self._broken is None and len(self._flying) < self._batches:\n",
        "        while self._broken is None:\n",
        "tests/test_lazy_maps.py",
    ),
    ShellBug(
        "a lazy map holds more items than it may",
        "lazy.py",
        "                length = min(length, room)\n",
        "",
        "tests/test_lazy_maps.py",
    ),
    ShellBug(
        "a lazy map that ends early goes on in flight",
        "lazy.py",
        "            self._runner.abandon(self._flying.popleft())\n",
        "            self._flying.popleft()\n",
        "tests/test_lazy_maps.py",
    ),
    ShellBug(
        "an error of the iterable comes before the results in front of it",
        "lazy.py",
        "        if self._broken is not None and not self._flying:\n",
        "        if self._broken is not None:\n",
        "tests/test_lazy_maps.py",
    ),
    ShellBug(
        "a callback is not called if its call has ended before",
        "future.py",
        "        if not runner.listen(call, lambda: runner.callbacks.call_later(tell)):\n            tell()\n",
        "        runner.listen(call, lambda: runner.callbacks.call_later(tell))\n",
        "tests/test_lazy_maps.py",
    ),
    ShellBug(
        "a callback that fails leaves who waits for it",
        "future.py",
        "            try:\n                pass_on()\n            finally:\n                runner.ring(told)\n",
        "            pass_on()\n            runner.ring(told)\n",
        "tests/test_lazy_maps.py",
    ),
    ShellBug(
        "who is sent to is not rung",
        "comm/mpi/manager.py",
        "        self._bell.ring(rank)\n        if leader_is_needed:\n",
        "        if leader_is_needed:\n",
        "tests/test_mpi_mail.py",
    ),
    ShellBug(
        "nobody asks for bells",
        "comm/mpi/manager.py",
        "            self._bell.ask_for_bells()\n",
        "",
        "tests/test_mpi_mail.py",
    ),
    ShellBug(
        "nobody looks again after asking for bells",
        "comm/mpi/manager.py",
        "            self._bell.ask_for_bells()\n            return self._look(deadline)\n",
        "            self._bell.ask_for_bells()\n",
        "tests/test_mpi_mail.py",
    ),
    ShellBug(
        "who leads the waiting sleeps while a message is under way",
        "comm/mpi/manager.py",
        "        self._bell.ring(rank)\n        if leader_is_needed:\n            self.wake()\n",
        "        self._bell.ring(rank)\n",
        "tests/test_mpi_mail.py",
    ),
    ShellBug(
        "who sleeps is not rung",
        "comm/mpi/doorbell.py",
        "or not self._flags[_TOKEN + rank] or",
        "or self._flags[_TOKEN + rank] or",
        "tests/test_mpi_mail.py",
    ),
    ShellBug(
        "one bell is read at a time",
        "comm/mpi/doorbell.py",
        "        while self._socket is not None:\n            try:\n                self._socket.recv(1)\n",
        "        if self._socket is not None:\n            try:\n                self._socket.recv(1)\n",
        "tests/test_mpi_mail.py",
    ),
    ShellBug(
        "a message is there before its bodies are",
        "comm/mpi/messages.py",
        "        while requests and requests[0].Test():\n",
        "        while requests:\n",
        "tests/test_mpi_mail.py",
    ),
    ShellBug(
        "a later message overtakes an earlier one",
        "comm/mpi/messages.py",
        "        if not request.Test() or sender in self._lanes:\n",
        "        if not request.Test():\n",
        "tests/test_mpi_mail.py",
    ),
    ShellBug(
        "a message that is not out at once is forgotten",
        "comm/mpi/messages.py",
        "            self._outgoing.append((request, rank, content))\n            self.load += len(content)\n",
        "            pass\n",
        "tests/test_mpi_mail.py",
    ),
    ShellBug(
        "nobody is rung for a message that went out late",
        "comm/mpi/messages.py",
        "                self._late(entry[1])\n",
        "",
        "tests/test_mpi_mail.py",
    ),
    ShellBug(
        "a rank waits for messages to the dead",
        "comm/mpi/messages.py",
        "        self._outgoing = deque(entry for entry in self._outgoing if entry[1] != rank)\n",
        "",
        "tests/test_mpi_mail.py",
    ),
    ShellBug(
        "memory that MPI may use is freed",
        "comm/mpi/messages.py",
        "        self._abandoned += [entry for entry in self._outgoing if entry[1] == rank]\n",
        "",
        "tests/test_mpi_mail.py",
    ),
]


def plant(bug: ShellBug, folder: Path) -> None:
    """Copy dtm and its tests into a folder, with a bug in it.

    Raises:
        ValueError: the text to replace is not there once.
    """
    for name in ("dtm", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    module = folder / "dtm" / bug.module
    text = module.read_text(encoding="utf-8")
    if text.count(bug.old) != 1:
        raise ValueError(f"{bug.name}: {bug.module} has {text.count(bug.old)} times {bug.old!r}")
    module.write_text(text.replace(bug.old, bug.new), encoding="utf-8")


def search(bug: ShellBug, rounds: int = ROUNDS) -> tuple[str | None, str]:
    """Return what found a bug, None if it survived, and how it showed."""
    with tempfile.TemporaryDirectory(prefix="dtm-bug-") as name:
        folder = Path(name)
        plant(bug, folder)
        if bug.test is not None:
            return _test(bug.test, folder)
        command = [sys.executable, "-c", _SEARCH.format(rounds=rounds, share=SHARE)]
        status, output = _run(command, folder)
    if status:
        return None, f"the search itself failed: {output[-400:]}"
    if not output:
        return None, "nothing was wrong"
    program, seed, how = output.split("|", 2)
    return program, f"{seed}: {how}"


def _test(test: str, folder: Path) -> tuple[str | None, str]:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-n", "0"]
    status, output = _run([*command, *test.partition(" -k ")[0].split(), *_only(test)], folder)
    failed = [line for line in output.splitlines() if line.startswith("FAILED")]
    if status == 1 and failed:
        return "a test", failed[0].removeprefix("FAILED ")
    return None, output[-200:]


def _only(test: str) -> list[str]:
    return ["-k", test.partition(" -k ")[2]] if " -k " in test else []


def _run(command: Sequence[str], folder: Path) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    try:
        run = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 2, f"no end after {SECONDS:g} s"
    return run.returncode, (run.stdout if not run.returncode else run.stdout + run.stderr).strip()


def _short(how: str) -> str:
    """Return how a bug showed without what is of one run only: the seed, values, objects."""
    if how.startswith("tests/"):
        return f"``{how.partition(' - ')[0].removeprefix('tests/')}``"
    return how.partition(": ")[2].partition(" (")[0]


def main(command_line: Sequence[str] | None = None) -> int:
    """Print the table, or write it; return how many bugs survived."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plant_shell_bugs")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="schedules of each program")
    parser.add_argument("--rst", type=Path, help="write the table to this file, for the docs")
    parser.add_argument("--only", help="bugs whose name has this text")
    args = parser.parse_args(command_line)
    lines = []
    for bug in BUGS:
        if args.only and args.only not in bug.name:
            continue
        found, how = search(bug, args.rounds)
        lines.append((bug.name, bug.module, found or "survived", how))
        print("{:58s} {:22s} {:>14s}  {}".format(*lines[-1]), flush=True)
    if args.rst:
        head = ("bug", "planted in", "found by", "how it showed")
        shown = [(*line[:3], _short(line[3])) for line in lines]
        args.rst.write_text(list_table(head, shown) + "\n", encoding="utf-8")
    return sum(line[2] == "survived" for line in lines)


if __name__ == "__main__":
    sys.exit(main() and 1)
