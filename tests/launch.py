"""Runs a program under dtm as a user would, and never for longer than was said.

Every program gets a mark in its environment, which all that it starts inherits.
So after each run it is known whether a process is left, whatever became of its
parents, its process group or its command line; if one is, the test fails, and
what is left is killed.  Likewise each run has a directory of its own for temporary
files, where no directory of dtm's may be left.

Rejected: ``subprocess.run(timeout=…)``: it kills the launcher only, and then waits
for ever on a pipe that the orphaned workers still hold open.  Files do not have that.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "tests" / "programs"
DEFAULT_TIMEOUT = 60.0
GONE_SECONDS = 15.0  # half a second is usual; a busy machine may let a process wait
MARK = "RUN_MARK"

Completed = subprocess.CompletedProcess[str]


def run_local(
    script: str | Path, workers: int, *args: object, timeout: float = DEFAULT_TIMEOUT
) -> Completed:
    """Run ``python script args`` with so many workers of this machine."""
    command = [sys.executable, str(script), *map(str, args)]
    return run(command, environment({"DTM_WORKERS": str(workers)}), timeout)


def run_mpi(
    script: str | Path, ranks: int, *args: object, timeout: float = DEFAULT_TIMEOUT
) -> Completed:
    """Run ``mpirun -n ranks python script args``."""
    command = [*mpi_prefix(ranks), sys.executable, str(script), *map(str, args)]
    return run(command, environment(), timeout)


@functools.cache
def find_mpirun() -> str | None:
    """Return the mpirun beside this Python, else the one on the path, else None."""
    beside = shutil.which("mpirun", path=str(Path(sys.executable).parent))
    return beside or shutil.which("mpirun")


@functools.cache
def is_open_mpi(mpirun: str) -> bool:
    """Tell Open MPI's mpirun, which wants to be told more, from the others."""
    version = subprocess.run(
        [mpirun, "--version"],
        capture_output=True,
        text=True,
        timeout=DEFAULT_TIMEOUT,
        env=environment(),
        check=False,
    )
    return "Open MPI" in version.stdout


def mpi_prefix(ranks: int) -> list[str]:
    """Return what goes before ``python`` on the command line of an MPI run."""
    mpirun = find_mpirun()
    if mpirun is None:
        message = "there is no mpirun"
        raise FileNotFoundError(message)
    extra = ["--oversubscribe"] if is_open_mpi(mpirun) else []  # more ranks than cores
    return [mpirun, *extra, "-n", str(ranks)]


def run_tcp(
    script: str | Path, workers: int, *args: object, timeout: float = DEFAULT_TIMEOUT
) -> Completed:
    """Run ``python -m dtm --comm tcp -n workers script args``."""
    command = [sys.executable, *tcp_options(workers), str(script), *map(str, args)]
    return run(command, environment(), timeout)


def tcp_options(workers: int) -> list[str]:
    """Return what goes before the program for so many workers, joined by TCP on this machine."""
    return ["-m", "dtm", "--comm", "tcp", "-n", str(workers)]


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a program under test: this checkout, no options left over."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("DTM_")}
    paths = [str(ROOT), *env.get("PYTHONPATH", "").split(os.pathsep)]
    env["PYTHONPATH"] = os.pathsep.join(filter(None, dict.fromkeys(paths)))
    if os.geteuid() == 0:
        env["OMPI_ALLOW_RUN_AS_ROOT"] = env["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return env | (extra or {})


@dataclass
class Started:
    """A program that runs: its process, and what it has written so far."""

    process: subprocess.Popen[bytes]
    mark: str
    directory: Path

    @property
    def stdout(self) -> str:
        """What it has written to its standard output."""
        return (self.directory / "stdout").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has written to its standard error."""
        return (self.directory / "stderr").read_text(errors="replace")

    def wait(self, timeout: float = DEFAULT_TIMEOUT) -> int:
        """Wait for the end of the process, and return how it ended."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            text = f"{self.process.args!r} took more than {timeout} s\n{self.stdout}\n{self.stderr}"
            raise AssertionError(text) from None

    def wait_for(self, pattern: str, count: int = 1, timeout: float = DEFAULT_TIMEOUT) -> list[str]:
        """Wait until the pattern is that often in the standard output; return what matched."""
        return self._wait_for(lambda: self.stdout, pattern, count, timeout)

    def wait_for_error(self, pattern: str, timeout: float = DEFAULT_TIMEOUT) -> list[str]:
        """Wait until the pattern is in the standard error; return what matched."""
        return self._wait_for(lambda: self.stderr, pattern, 1, timeout)

    def _wait_for(
        self, text: Callable[[], str], pattern: str, count: int, timeout: float
    ) -> list[str]:
        deadline = time.monotonic() + timeout
        while len(found := re.findall(pattern, text())) < count:
            over = self.process.poll() is not None or time.monotonic() > deadline
            assert not over, f"{pattern!r} is missing\n{self.stdout}\n{self.stderr}"
            time.sleep(0.01)
        return found

    def processes(self) -> list[int]:
        """Return all the processes that belong to this program and live."""
        everybody = map(int, filter(str.isdigit, os.listdir("/proc")))
        return [pid for pid in everybody if self._owns(pid)]

    def _owns(self, pid: int) -> bool:
        try:
            return f"{MARK}={self.mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:  # it has ended, or belongs to somebody else
            return False

    def assert_nothing_is_left(self, timeout: float = GONE_SECONDS) -> None:
        """Fail, after killing them, if processes or directories of the program are left."""
        deadline = time.monotonic() + timeout
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        names = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ") for pid in left]
        self.kill()
        assert not left, f"left after {timeout} s: {names}\n{self.stdout}\n{self.stderr}"
        directories = [name for name in os.listdir(self.directory) if name.startswith("dtm-")]
        assert not directories, directories

    def kill(self) -> None:
        """Kill what is left of the program."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(DEFAULT_TIMEOUT)


@contextmanager
def started(
    command: Sequence[str], env: dict[str, str], *, cwd: Path = ROOT, stdin: str = ""
) -> Iterator[Started]:
    """Start a command in a process group of its own; nothing of it may be left afterwards."""
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="t-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        (directory / "stdin").write_text(stdin)
        with (
            (directory / "stdin").open("rb") as standard_input,
            (directory / "stdout").open("ab") as output,
            (directory / "stderr").open("ab") as errors,
        ):
            process = subprocess.Popen(
                command,
                env={**env, MARK: mark, "TMPDIR": name},
                cwd=cwd,
                stdin=standard_input if stdin else subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        program = Started(process, mark, directory)
        try:
            yield program
            program.assert_nothing_is_left()
        finally:
            program.kill()


def run(
    command: Sequence[str],
    env: dict[str, str],
    timeout: float,
    *,
    cwd: Path = ROOT,
    stdin: str = "",
) -> Completed:
    """Run a command to its end, which has to come in time and to leave nothing behind."""
    with started(command, env, cwd=cwd, stdin=stdin) as program:
        status = program.wait(timeout)
        program.assert_nothing_is_left()
        return subprocess.CompletedProcess(list(command), status, program.stdout, program.stderr)


@dataclass(frozen=True)
class Launcher:
    """A way of running a program, with so many workers."""

    kind: str
    workers: int

    def __str__(self) -> str:
        return f"{self.kind}-{self.workers}"

    def command(self, *arguments: object) -> list[str]:
        """Return the command that runs Python with these arguments."""
        before = mpi_prefix(self.workers) if self.kind == "mpi" else []
        options = tcp_options(self.workers) if self.kind == "tcp" else []
        return [*before, sys.executable, *options, *map(str, arguments)]

    def environment(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        """Return the environment for that command."""
        count = {"DTM_WORKERS": str(self.workers)} if self.kind == "local" else {}
        return environment(count | (extra or {}))

    def run(
        self,
        *arguments: object,
        env: dict[str, str] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        cwd: Path = ROOT,
    ) -> Completed:
        """Run Python with these arguments to its end."""
        return run(self.command(*arguments), self.environment(env), timeout, cwd=cwd)

    @contextmanager
    def started(self, *arguments: object, env: dict[str, str] | None = None) -> Iterator[Started]:
        """Start Python with these arguments."""
        with started(self.command(*arguments), self.environment(env)) as program:
            yield program


def launchers(*wanted: str) -> list[Any]:
    """Return parameters of a fixture, as in ``launchers("local-2", "mpi-3")``.

    Those after the first are variants, which a fast run of the tests leaves out.
    """
    import pytest

    made = []
    for name in wanted:
        kind, _, workers = name.partition("-")
        missing = kind == "mpi" and find_mpirun() is None
        marks = [pytest.mark.skipif(missing, reason="there is no mpirun")]
        if made:
            marks.append(pytest.mark.slow)
        made.append(pytest.param(Launcher(kind, int(workers)), id=name, marks=marks))
    return made
