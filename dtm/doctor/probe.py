"""Commands that end in time, and the look at other hosts that is taken by one.

Invariant: no command is waited for longer than was said.  One that has not ended by
then is ended with its whole process group, whatever its children do.  What it writes to
standard error goes to a file, so that it never blocks because nobody reads there.

One login serves the whole look at a host.  A line of Python, short enough for a command
line, tells its version, then runs the text that it is sent: the module
:mod:`dtm.doctor.machine`.  Then the time is asked for a few times; the quickest answer
counts.  Lines of the doctor begin with a mark, which tells them from those of a login shell.

Called in the main thread, where no event loop runs.

Rejected: ``subprocess.run(timeout=…)``.  It kills the command alone, then waits for ever on
the pipes that the command's children hold open.  And a login for each question: on many
clusters each takes seconds.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import shlex
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from time import perf_counter, time
from typing import Any, TypeVar

from dtm.doctor import machine
from dtm.doctor.checks import too_old
from dtm.doctor.machine import OLDEST, Machine
from dtm.doctor.report import Finding, fine, problem
from dtm.launch.allocation import Allocation
from dtm.launch.hosts import Host
from dtm.launch.plan import EXACT, ssh_command

_MOST_ERROR = 4000
_REAP_SECONDS = 1.0  # after each signal
_LONGEST_LINE = 1 << 20

NO_DIRECTORY = 96  # an exit status that no shell uses
_MARK = "dtm-doctor:"
_TIMES_ASKED = 5
_PASSED_ON = ("PYTHONPATH", "TMPDIR")  # variables that workers there get, and the look needs
_AT_ONCE = 64
_MOST_NOISE = 200
_FIRST = (
    f"import sys; print('\\n{_MARK}[%d, %d, %d]' % tuple(sys.version_info[:3])); "
    "sys.stdout.flush(); exec(sys.stdin.read({length}))"
)
_LAST = f"""
import json as _json, time as _time
from dataclasses import asdict as _asdict
def _tell(what):
    print({_MARK!r} + _json.dumps(what))
    sys.stdout.flush()
_tell(_asdict(look()))
for _ in range({_TIMES_ASKED}):
    sys.stdin.readline()
    _tell(_time.time())
"""
# The directory first, since only a shell can say that it is the directory which is missing.
_ENTER = f'cd "$1" || exit {NO_DIRECTORY}; shift; exec "$@"'


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended.

    Attributes:
        status: its exit status, None if it could not be started or did not end in time.
        output: what it wrote, or what of that was not read line by line.
        error: what it wrote to standard error, or why it could not be started.
        late: whether it did not end in time.
    """

    status: int | None
    output: str
    error: str
    late: bool = False

    def failure(self, seconds: float) -> str:
        """Say how it failed within the seconds that it had."""
        if self.late:
            return f"took more than {seconds:g} s"
        said = self.error.splitlines()[-1] if "Traceback" in self.error else self.error[-300:]
        return f"ended with status {self.status}: {said or 'it said nothing'}"


Result = TypeVar("Result")
Dialogue = Callable[[asyncio.subprocess.Process], Awaitable[None]]


def run_command(
    words: Sequence[str],
    seconds: float,
    environ: Mapping[str, str] | None = None,
    keep_files: bool = False,
) -> Outcome:
    """Run a command to its end, for so long at most.

    ``keep_files`` passes on the files that this process was started with, which a rank of
    MPI needs.
    """
    return _run(_command(words, seconds, environ, keep_files))


def _run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine; a signal that ends the doctor cancels it, so that it cleans up first.

    A handler that raises would do so anywhere, between the start of a process and the
    place that is to end it too.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    came: list[int] = []

    async def cancelled_by_signals() -> Result:
        task = asyncio.ensure_future(main)

        def end(number: int) -> None:
            if not came:  # cleaning up is not cancelled again
                task.cancel()
            came.append(number)

        for number in handlers:
            asyncio.get_running_loop().add_signal_handler(number, end, number)
        return await task

    try:
        return asyncio.run(cancelled_by_signals())
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


async def _command(
    words: Sequence[str],
    seconds: float,
    environ: Mapping[str, str] | None = None,
    keep_files: bool = False,
    dialogue: Dialogue | None = None,
) -> Outcome:
    """Run a command, with a dialogue before its input is closed and the rest is read."""
    output, status = bytearray(), None
    with TemporaryFile() as errors:
        starting = asyncio.create_subprocess_exec(
            *words, env=environ, stdin=PIPE, stdout=PIPE, stderr=errors, limit=_LONGEST_LINE,
            start_new_session=True, close_fds=not keep_files,
        )  # fmt: skip
        start = asyncio.ensure_future(starting)
        try:
            process = await asyncio.shield(start)
        except OSError as error:
            return Outcome(None, "", str(error))
        except asyncio.CancelledError:
            with suppress(OSError):
                await _end(await start)
            raise
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                if dialogue is not None:
                    await dialogue(process)
                process.stdin.close()
                while got := await process.stdout.read(1 << 16):
                    output += got
                status = await process.wait()
        except TimeoutError:
            pass
        finally:
            await _end(process)
        errors.seek(0)
        said = errors.read()[-_MOST_ERROR:].decode(errors="replace").strip()
    return Outcome(status, output.decode(errors="replace"), said, status is None)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End what still runs of a process and its group, and let go of its pipes."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:  # its number may be another's by now
            break
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _REAP_SECONDS)
    # Nothing public closes pipes that a process outside of the group still holds open.
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001


@dataclass(slots=True)
class Probe:
    """What came of the look at a host.

    Attributes:
        host: the host.
        outcome: how the command ended that was run there.
        python: the version of the Python there; None if it told none.
        machine: what was seen there; None if it did not come to that.
        offset: by how many seconds the clock there is ahead of the one here.
        round_trip: the seconds of the quickest question and answer.
        noise: what else was printed there first, as a shell's start-up files may do.
    """

    host: Host
    outcome: Outcome = Outcome(None, "", "")
    python: tuple[int, ...] | None = None
    machine: Machine | None = None
    offset: float = 0.0
    round_trip: float = 0.0
    noise: list[str] = field(default_factory=list)


Enter = Callable[[Host, Sequence[str]], Sequence[str]]


def by_ssh(host: Host, words: Sequence[str], *, ssh: str, seconds: float) -> Sequence[str]:
    """Return the command that runs words on a host by ssh, as a run does, and here without."""
    return words if host.is_local else ssh_command(host, words, ssh=ssh, timeout=seconds)


def by_batch_system(host: Host, words: Sequence[str], *, granted: Allocation) -> Sequence[str]:
    """Return the command that runs words on a host by the batch system's own command."""
    starter = granted.starter(host)
    assert starter is not None
    return [*starter, *(words if starter[0] in EXACT else map(shlex.quote, words))]


def probe_all(hosts: Sequence[Host], enter: Enter, seconds: float) -> list[Probe]:
    """Look at hosts, many at once, each for so long at most; ``enter`` makes the commands."""

    async def all_of_them() -> list[Probe]:
        places = asyncio.Semaphore(_AT_ONCE)
        return await asyncio.gather(*(_probe(host, enter, seconds, places) for host in hosts))

    return _run(all_of_them())


async def _probe(host: Host, enter: Enter, seconds: float, places: asyncio.Semaphore) -> Probe:
    text = inspect.getsource(machine) + _LAST
    seen = Probe(host)

    async def dialogue(process: asyncio.subprocess.Process) -> None:
        """Read what the host has to tell, as far as it comes."""
        with suppress(ConnectionError, EOFError, ValueError):
            seen.python = tuple(await _told(process, "", seen.noise))
            seen.machine = machine.read(await _told(process, text, []))
            seen.round_trip, seen.offset = min([await _time(process) for _ in range(_TIMES_ASKED)])

    words = enter(host, _words(host, len(text)))
    async with places:
        seen.outcome = await _command(words, seconds, dialogue=dialogue)
    return seen


def _words(host: Host, length: int) -> list[str]:
    python = host.python or sys.executable
    given = {name: os.environ.get(name) for name in _PASSED_ON}
    variables = [f"{name}={value}" for name, value in given.items() if value]
    first = [python, "-c", _FIRST.format(length=length)]
    return ["sh", "-c", _ENTER, "sh", os.getcwd(), "env", *variables, *first]


async def _time(process: asyncio.subprocess.Process) -> tuple[float, float]:
    """Ask what time it is; return how long that took and how far the clock there is ahead."""
    wall, before = time(), perf_counter()
    theirs = await _told(process, "\n", [])
    took = perf_counter() - before
    return took, theirs - (wall + took / 2)


async def _told(process: asyncio.subprocess.Process, text: str, noise: list[str]) -> Any:
    """Write a text, and return what the next line with the mark says; others are noise.

    Raises:
        EOFError: the command has ended.
        ConnectionError: the command does not read.
        ValueError: a line is not understood, or endless.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    if text:  # to drain alone fails where the command has ended, though its lines are still there
        process.stdin.write(text.encode())
        await process.stdin.drain()
    while raw := await process.stdout.readline():
        line = raw.decode(errors="replace").strip()
        if line.startswith(_MARK):
            return json.loads(line.removeprefix(_MARK))
        noise += [line] if line else []
    raise EOFError


_SSH_FAILED = 255
_NOT_FOUND = (126, 127)  # by a shell, by env
# What OpenSSH writes when it fails, what that means, and what to do.
_SSH_SAYS = (
    ("permission denied", "the login is refused without a password",
     ("give the host your public key (ssh-copy-id {host}) and load the private one (ssh-agent, "
      "ssh-add), or name the user by user=")),
    ("host key verification failed", "its host key is not known, or not the one known",
     ("log in once by hand, ssh {host}, and compare the fingerprint with the one that the host's "
      "keeper gives you; the check itself should stay")),
    ("remote host identification has changed", "its host key is not the one known",
     ("ask the host's keeper whether it was installed anew; only then remove the old key with "
      "ssh-keygen -R {host}")),
    ("could not resolve", "there is no host of that name",
     "correct the name, or give its address"),
    ("connection refused", "no ssh server listens there",
     "have sshd started, or name its port by port="),
    ("no route to host", "the network has no way to it",
     "ask for the name that hosts of this cluster use among themselves"),
    ("timed out", "nobody answers there",
     "look whether it is up, and whether a firewall lets ssh through"),
)  # fmt: skip


def entry(probe: Probe, by: str) -> Finding:
    """Judge whether a host can be entered; ``by`` is how it was tried, as in "ssh"."""
    if probe.machine is None:
        return problem("entry", *_no_entry(probe, by))
    greeting = probe.noise[0][:_MOST_NOISE] if probe.noise else ""
    also = f"; its login prints {greeting!r} first, which dtm passes over" if greeting else ""
    return fine("entry", f"{by} works, {probe.round_trip * 1e3:.2f} ms there and back{also}")


def _no_entry(probe: Probe, by: str) -> tuple[str, str]:
    """Return why a host cannot be entered, and what to do."""
    outcome, name, python = probe.outcome, probe.host.name, probe.host.python
    said = outcome.error.splitlines()[-1].strip() if outcome.error else ""
    by_hand = f"try `{by} {name} true` by hand"
    if probe.python is not None:
        if probe.python[:2] < OLDEST:
            return too_old(probe.python, python or "that Python")
        why = "in time" if outcome.late else f"({said})"
        return f"Python started there, but told nothing {why}", "try it by hand"
    if outcome.late:
        advice = f"{by_hand}; a larger --connect-timeout gives it longer"
        return f"{by} did not come to an end in time", advice
    if outcome.status == NO_DIRECTORY:
        found = "the directory of this program is not there"
        return found, "start in a directory that all hosts share"
    if outcome.status in _NOT_FOUND:
        if python is not None:
            return f"there is no {python} there", "correct python= in the file of hosts"
        advice = "install it at the same path, share it, or name another by python="
        return f"this Python is not there: {said}", advice
    if outcome.status is None:
        advice = "install it (OpenSSH's client), or name what is there instead by --ssh"
        return f"{by} cannot be run: {outcome.error}", advice
    if outcome.status == _SSH_FAILED:
        lower = outcome.error.lower()
        known = (row for row in _SSH_SAYS if row[0] in lower)
        _, found, advice = next(known, ("", f"{by} says", by_hand))
        return f"{found} ({said or 'nothing'})", advice.replace("{host}", name)
    what = said or "nothing was said"
    return f"{by} ended with status {outcome.status}: {what}", f"try `{by} {name}`"
