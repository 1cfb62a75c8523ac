"""Programs that tests of the local manager run, and what has to be true after each of them.

Run as a program, this file is one rank of a conformance scenario.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dtm.comm.base import CommunicationManager
    from dtm.testing.conformance import Scenario

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 60.0


class Program(subprocess.Popen[str]):
    """A started program, the leader of a process group, with a directory for its sockets."""

    sockets: Path

    def finish(self, timeout: float = LIMIT) -> tuple[str, str]:
        """Wait for the end of the program; return what it wrote to stdout and stderr."""
        return self.communicate(timeout=timeout)

    def wait_for_line(self) -> str:
        """Return the next line of stdout."""
        assert self.stdout is not None
        return self.stdout.readline().strip()


@contextmanager
def program(*arguments: object, **options: Any) -> Iterator[Program]:
    """Run Python with these arguments; afterwards no process and no socket may be left."""
    with tempfile.TemporaryDirectory(prefix="dtm-test-") as sockets:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TMPDIR": sockets,
            **options.pop("env", {}),
        }
        with Program(
            [sys.executable, *map(str, arguments)],
            env=environment,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        ) as started:
            started.sockets = Path(sockets)
            try:
                yield started
                started.finish()
                await_end_of_group(started.pid)
                assert os.listdir(sockets) == []
            finally:
                end_group(started.pid)


def await_end_of_group(group: int, timeout: float = 5.0) -> None:
    """Wait until no process of a group is left."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    message = f"processes of group {group} are left after {timeout} s"
    raise AssertionError(message)


def end_group(group: int) -> None:
    """Kill what is left of a group of processes."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def local_factory(scenario: Scenario, size: int) -> None:
    """Run a scenario in the ranks of a local run."""
    with tempfile.TemporaryDirectory() as outcomes:
        Path(outcomes, "scenario").write_bytes(pickle.dumps(scenario))
        with program(__file__, outcomes, size) as started:
            _, errors = started.finish()
            last = size - 1 if "vanish" in getattr(scenario, "keywords", {}) else size
            files = {rank: Path(outcomes, str(rank)) for rank in range(last)}
            said = {rank: file.read_text() for rank, file in files.items() if file.exists()}
            broken = [
                f"rank {rank}: {said.get(rank)}" for rank in files if said.get(rank) != "kept"
            ]
            assert not broken, "\n".join((*broken, errors))


def vanish(_: CommunicationManager) -> None:
    """Die without closing."""
    os.kill(os.getpid(), signal.SIGKILL)


local_factory.vanish = vanish  # type: ignore[attr-defined]


def main() -> None:
    """Be one rank of a scenario."""
    from dtm.launch.local_workers import join_run, start_workers

    outcomes = Path(sys.argv[1])
    manager = join_run() or start_workers(int(sys.argv[2]))
    outcome = "kept"
    try:
        pickle.loads((outcomes / "scenario").read_bytes())(manager)
    except BaseException:
        outcome = traceback.format_exc()
    (outcomes / str(manager.rank)).write_text(outcome)


if __name__ == "__main__":
    main()
