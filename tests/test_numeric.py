"""Threads of numeric libraries: one number for root and workers, whoever starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

from dtm.launch.cores import NUMERIC_THREADS, as_in_workers, thread_variables
from tests import launch

PROGRAM = """
import numpy
from dtm import dtm

def threads(_):
    from threadpoolctl import threadpool_info
    import time
    time.sleep(0.02)
    most = max(pool["num_threads"] for pool in threadpool_info())
    return dtm.getWorkerId(), most

def main():
    seen = set()
    while len({rank for rank, _ in seen}) < 2:
        seen |= set(dtm.map(threads, range(20)))
    print(sorted(seen))

before = threads(0)[1]
dtm.start(main)
print("after" if threads(0)[1] == before else "changed")
"""


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ({}, "1"),
        ({"OMP_NUM_THREADS": "8"}, "8"),
        ({"MKL_NUM_THREADS": "4"}, "4"),
        ({"OMP_NUM_THREADS": "3,2"}, "3"),
        ({"OMP_NUM_THREADS": ""}, "1"),
        ({"OMP_NUM_THREADS": "many"}, "1"),
    ],
)
def test_a_number_of_the_users_is_that_of_all_libraries(given: dict[str, str], number: str) -> None:
    wanted = thread_variables(given)
    assert set(wanted) == set(NUMERIC_THREADS)
    for name, value in wanted.items():
        assert value == (given.get(name) or number)


def test_a_root_has_the_variables_of_its_workers_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NUMERIC_THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    with suppress(ImportError):
        import_module("threadpoolctl")  # which sets a variable of its own when it is imported
    before = dict(os.environ)
    with as_in_workers():
        assert {os.environ[name] for name in NUMERIC_THREADS} == {"2"}
        os.environ["BLIS_NUM_THREADS"] = "5"  # the user's own, from here on
    assert dict(os.environ) == before | {"BLIS_NUM_THREADS": "5"}
    del os.environ["BLIS_NUM_THREADS"]


@pytest.mark.slow
@pytest.mark.parametrize("comm", ["local", "tcp"])
@pytest.mark.parametrize("number", [None, "2"])
def test_libraries_have_as_many_threads_in_the_root_as_in_a_worker(
    tmp_path: Path, comm: str, number: str | None
) -> None:
    pytest.importorskip("threadpoolctl")
    pytest.importorskip("numpy")
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = launch.environment()
    for name in NUMERIC_THREADS:
        environment.pop(name, None)
    if number:
        environment["OMP_NUM_THREADS"] = number
    command = [sys.executable, "-m", "dtm", "--comm", comm, "-n", "2", "program.py"]
    done = launch.run(command, environment, launch.DEFAULT_TIMEOUT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    count = int(number or 1)
    assert done.stdout.splitlines() == [str([(0, count), (1, count)]), "after"]


def test_without_threadpoolctl_the_root_stays_as_it_is(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    (tmp_path / "threadpoolctl.py").write_text("raise ImportError")
    text = "import numpy\nfrom dtm.launch.cores import as_in_workers\nwith as_in_workers(): pass"
    subprocess.run([sys.executable, "-c", text], check=True, cwd=tmp_path, timeout=60)
