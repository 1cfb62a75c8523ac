"""Large data in real runs: arrives as it was, through shared memory, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dtm.comm import segments
from tests.launch import Launcher, environment, launchers, run

PROGRAM = Path(__file__).parent / "programs" / "large_data.py"
BOTH = {"closure", "partial"}

pytestmark = pytest.mark.skipif(not segments.available(), reason="this system has no such memory")
pytest.importorskip("numpy")


def _places(output: str) -> dict[str, set[tuple[bool, bool]]]:
    """Return who ran something (not the root, in shared memory), by what it was."""
    lines = dict(line.split(" ", 1) for line in output.splitlines())
    return {name: eval(places, {}) for name, places in lines.items()}


@pytest.mark.parametrize("launcher", launchers("local-2", "mpi-4", "tcp-3"))
def test_what_comes_from_others_lies_in_shared_memory(launcher: Launcher) -> None:
    done = launcher.run(PROGRAM, "places", timeout=110)
    assert done.returncode == 0, done.stderr
    places = _places(done.stdout)
    assert places.keys() == {"items", "results", *BOTH}
    for name, found in places.items():
        assert (True, True) in found, (name, found)
        if name in BOTH:  # items may be stolen by the root from those that it has sent them to
            assert found <= {(True, True), (False, False)}, (name, found)


@pytest.mark.parametrize("launcher", launchers("local-2", "mpi-2", "tcp-2"))
def test_large_things_of_every_kind_arrive_as_they_are(launcher: Launcher) -> None:
    done = launcher.run(PROGRAM, "kinds", timeout=110)
    assert done.returncode == 0, done.stderr
    outcomes = [line.rpartition(" ") for line in done.stdout.splitlines()]
    assert len(outcomes) == 60
    assert {outcome for _, _, outcome in outcomes} == {"True"}, done.stdout


@pytest.mark.parametrize("launcher", launchers("local-2", "mpi-2"))
def test_where_there_is_no_such_memory_the_socket_carries_all(launcher: Launcher) -> None:
    done = launcher.run(PROGRAM, "places", "small", timeout=110)
    assert done.returncode == 0, done.stderr
    for name, found in _places(done.stdout).items():
        assert found == {(True, False), (False, False)}, (name, found)


def _mounts() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/dev/shm"]
    return subprocess.run(command, capture_output=True, timeout=60).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not _mounts(), reason="nothing can be mounted")
def test_a_small_dev_shm_does_not_matter() -> None:
    mount = "mount -t tmpfs -o size=64k none /dev/shm && exec"
    command = Launcher("local", 2).command(PROGRAM, "places")
    whole = ["unshare", "-m", "sh", "-c", f'{mount} "$@"', "sh", *command]
    done = run(whole, environment({"DTM_WORKERS": "2"}), 110)
    assert done.returncode == 0, done.stderr
    assert (True, True) in _places(done.stdout)["items"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", launchers("local-3", "mpi-2"))
def test_a_thousand_maps_leave_nothing_open(launcher: Launcher) -> None:
    done = launcher.run(PROGRAM, "growth", 1000, timeout=115)
    assert (done.returncode, done.stdout) == (0, "grown False\n"), done.stderr


@pytest.mark.parametrize("launcher", launchers("local-3", "tcp-2"))
def test_a_killed_worker_leaves_no_memory_behind(launcher: Launcher) -> None:
    before = set(os.listdir("/dev/shm"))
    done = launcher.run(PROGRAM, "killed", timeout=110)
    assert done.returncode
    assert "WorkerLostError" in done.stderr
    mine = {name for name in set(os.listdir("/dev/shm")) - before if "dtm" in name}
    assert not mine
