"""A visit to a host: the same look as here, taken there, and the time on its clock.

One login does it all.  A line of Python, small enough for a command line, says its
version, then runs the text that it is sent: the module :mod:`dtm.doctor.machine`,
which needs nothing that might be missing there.  Then the time is asked for a few
times; the quickest answer is the one to believe.  The lines that are ours begin
with a mark, so that what a login shell prints by itself is told apart.

Each visit has a thread of its own, and ends by a set time.

Rejected: a login for each question.  On many clusters each takes seconds.
"""

from __future__ import annotations

import inspect
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import perf_counter, time
from typing import Any

from dtm.doctor import machine
from dtm.doctor.conversation import Answer, Conversation
from dtm.doctor.machine import Machine
from dtm.launch.allocation import Allocation
from dtm.launch.hosts import Host
from dtm.launch.plan import EXACT, ssh_command

NO_DIRECTORY = 96  # exit statuses of our own, which no shell uses
_MARK = "dtm-doctor:"
_ASKED = 5
_TOLD = ("PYTHONPATH", "TMPDIR")  # that workers there get from here, and that matter to the look
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
for _ in range({_ASKED}):
    sys.stdin.readline()
    _tell(_time.time())
"""
# The directory first, since only a shell can say that it is the directory which is missing.
_ENTER = f'cd "$1" || exit {NO_DIRECTORY}; shift; exec "$@"'


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of a visit.

    Attributes:
        host: who was visited.
        answer: what became of the command.
        python: the version of the Python there; None if it never spoke.
        machine: the look taken there; None if it came to none.
        offset: by how many seconds the clock there is ahead of the one here.
        round_trip: the seconds of the quickest question and answer.
        noise: what else was written there before it, as a shell's start-up files may do.
    """

    host: Host
    answer: Answer
    python: tuple[int, ...] | None = None
    machine: Machine | None = None
    offset: float = 0.0
    round_trip: float = 0.0
    noise: str = ""


Enter = Callable[[Host, Sequence[str]], Sequence[str]]


def visit_all(hosts: Sequence[Host], enter: Enter, seconds: float) -> list[Visit]:
    """Visit hosts, many at once, each for so long at most.

    ``enter`` makes the command that runs some words on a host.
    """
    with ThreadPoolExecutor(min(_AT_ONCE, len(hosts) or 1)) as pool:
        return list(pool.map(lambda host: visit(host, enter, seconds), hosts))


def visit(host: Host, enter: Enter, seconds: float) -> Visit:
    """Visit a host."""
    text = inspect.getsource(machine) + _LAST
    try:
        with Conversation(enter(host, _words(host, len(text))), seconds) as talk:
            seen = _listen(Visit(host, Answer(None, "", "")), talk, text)
            return replace(seen, answer=talk.end())
    except OSError as error:
        return Visit(host, Answer(None, "", str(error)))


def _words(host: Host, length: int) -> list[str]:
    python = host.python or sys.executable
    told = {name: os.environ.get(name) for name in _TOLD}
    variables = [f"{name}={value}" for name, value in told.items() if value]
    command = [python, "-c", _FIRST.format(length=length)]
    return ["sh", "-c", _ENTER, "sh", os.getcwd(), "env", *variables, *command]


def _listen(seen: Visit, talk: Conversation, text: str) -> Visit:
    """Hear what the host has to say, as far as it comes."""
    noise: list[str] = []
    python = _hear(talk, noise)
    said = "\n".join(line for line in noise if line)[:_MOST_NOISE]
    if python is None:
        return replace(seen, noise=said)
    seen = replace(seen, python=tuple(python), noise=said)
    looked = _hear(talk, noise) if talk.say(text) else None
    if looked is None:
        return seen
    seen = replace(seen, machine=machine.read(looked))
    times = [answer for _ in range(_ASKED) if (answer := _time(talk)) is not None]
    if not times:
        return seen
    round_trip, offset = min(times)
    return replace(seen, round_trip=round_trip, offset=offset)


def _time(talk: Conversation) -> tuple[float, float] | None:
    """Ask what time it is; return how long that took and how far the clock there is ahead."""
    wall, before = time(), perf_counter()
    if not talk.say("\n"):
        return None
    theirs = _hear(talk, [])
    took = perf_counter() - before
    return None if theirs is None else (took, theirs - (wall + took / 2))


def _hear(talk: Conversation, noise: list[str]) -> Any:
    """Return what the next line of ours says, None if none comes; other lines are noise."""
    while (line := talk.hear()) is not None:
        if line.startswith(_MARK):
            return json.loads(line.removeprefix(_MARK))
        noise.append(line)
    return None


def by_ssh(ssh: str, seconds: float) -> Enter:
    """Return what enters hosts by ssh, as a run does, and this machine without."""

    def enter(host: Host, words: Sequence[str]) -> Sequence[str]:
        return words if host.is_local else ssh_command(host, words, ssh=ssh, timeout=seconds)

    return enter


def by_batch_system(granted: Allocation) -> Enter:
    """Return what enters hosts by the command that the batch system has for it."""

    def enter(host: Host, words: Sequence[str]) -> Sequence[str]:
        starter = granted.starter(host)
        assert starter is not None
        exact = starter[0] in EXACT
        return [*starter, *(words if exact else map(shlex.quote, words))]

    return enter
