"""What is run again, on how many cores, and who is a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest

from dtm.errors import CommunicationError
from dtm.launch.cores import available_cores, default_workers
from dtm.launch.local_workers import INVITATION, join_run, start_workers
from tests import launch
from tests.local_programs import program

REPORT = """
from dtm.launch.command_line import command_line, why_not_again
print(command_line(), why_not_again(), sep="|")
"""

TWO_RANKS = """
import os, sys
from dtm.launch.local_workers import join_run, start_workers
manager = join_run()
if manager:
    manager.send(0, [repr(({expression})).encode()])
    manager.close(5)
    sys.exit()
{before}
manager = start_workers(2)
while not (received := manager.receive()) and not manager.lost():
    manager.wait(5)
print(bytes(received[0][1][0]).decode())
manager.close(5)
"""


def said_by_a_worker(
    tmp_path: Path,
    expression: str,
    *options: str,
    before: str = "",
    env: dict[str, str] | None = None,
) -> str:
    """Return what an expression is in a worker that a program starts."""
    path = tmp_path / "prog.py"
    path.write_text(TWO_RANKS.format(expression=expression, before=before))
    with program(*options, "prog.py", "argument", cwd=tmp_path, env=env or {}) as started:
        output, errors = started.finish()
    assert errors == ""
    return output.strip()


def reported(*arguments: object, **options: object) -> tuple[str, str]:
    with program(*arguments, **options) as started:
        output, errors = started.finish()
    assert "|" in output, errors
    command, _, reason = output.strip().rpartition("\n")[2].partition("|")
    return command, reason


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "prog.py"
    path.write_text("import sys" + REPORT)
    return path


@pytest.mark.parametrize(
    "options", [[], ["-O"], ["-uB"], ["-X", "utf8"], ["-Wignore", "-Xdev"], ["-uW", "ignore"]]
)
def test_a_file_is_run_again_with_the_options_of_the_interpreter(
    script: Path, options: list[str]
) -> None:
    command, reason = reported(*options, script, "-c", "x")
    assert command == repr([sys.executable, *options, str(script), "-c", "x"])
    assert reason == "None"


@pytest.mark.parametrize("option", ["-m", "-um"])
def test_a_module_is_run_again(script: Path, option: str) -> None:
    command, _ = reported(option, "prog", "-i", cwd=script.parent)
    assert command == repr([sys.executable, option, "prog", "-i"])


def test_an_archive_and_a_directory_are_run_again(script: Path) -> None:
    archive = script.parent / "prog.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(script, "__main__.py")
    assert reported(archive)[0] == repr([sys.executable, str(archive)])
    (script.parent / "__main__.py").write_text(script.read_text())
    assert reported(script.parent)[0] == repr([sys.executable, str(script.parent)])


def test_a_relative_path_is_found_after_a_change_of_directory(script: Path) -> None:
    script.write_text("import sys, os, dtm.launch.command_line; os.chdir('/')" + REPORT)
    command, _ = reported("prog.py", cwd=script.parent)
    assert command == repr([sys.executable, "prog.py"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["-c", "import sys" + REPORT], "the program was given with -c"),
        (["-Bc", "import sys" + REPORT], "the program was given with -c"),
        (["-i", "-c", "import sys" + REPORT], "this is an interactive session"),
    ],
)
def test_a_command_is_not_run_again(options: list[str], reason: str) -> None:
    assert reported(*options) == ("None", reason)


@pytest.mark.parametrize("options", [[], ["-"], ["-u", "-", "argument"], ["/dev/stdin"]])
def test_standard_input_is_not_read_again(script: Path, options: list[str]) -> None:
    with subprocess.Popen(["cat", script], stdout=subprocess.PIPE) as cat:
        command, reason = reported(*options, stdin=cat.stdout)
    assert command == "None"
    expected = {
        "/dev/stdin": "the program cannot be read a second time from /dev/stdin",
    }
    assert reason == expected.get("".join(options), "the program was read from standard input")


@pytest.mark.slow
def test_a_process_of_multiprocessing_is_not_started_again(tmp_path: Path) -> None:
    path = tmp_path / "prog.py"
    path.write_text(
        textwrap.dedent(
            """
            import multiprocessing
            from dtm.launch.command_line import why_not_again
            def child():
                print("|" + why_not_again())
            if __name__ == "__main__":
                process = multiprocessing.get_context("spawn").Process(target=child)
                process.start()
                process.join()
            """
        )
    )
    assert reported(path)[1] == "this process was started by multiprocessing"


def test_starting_where_nothing_can_be_run_again_says_why() -> None:
    source = "from dtm.launch.local_workers import start_workers; start_workers(2)"
    with program("-c", source) as started:
        _, errors = started.finish()
    assert "CommunicationError: no worker can be started: the program was given with -c" in errors


def test_a_run_of_one_starts_nothing() -> None:
    manager = start_workers(1)
    assert (manager.rank, manager.size, list(manager.hosts)) == (0, 1, [os.uname().nodename])
    manager.close(1)


def test_what_cannot_be_started_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-such-python"))
    monkeypatch.setattr("dtm.launch.local_workers.command_line", lambda: [sys.executable])
    sockets = tmp_path / "s"
    sockets.mkdir()
    monkeypatch.setenv("TMPDIR", str(sockets))
    with pytest.raises(CommunicationError, match="only 0 of 3 workers could be started"):
        start_workers(4)
    assert list(sockets.iterdir()) == []


def test_a_worker_has_the_arguments_and_options_of_the_root(tmp_path: Path) -> None:
    said = said_by_a_worker(tmp_path, "sys.argv, sys.flags.optimize", "-O")
    assert said == "(['prog.py', 'argument'], 1)"


def test_a_worker_starts_where_the_root_did(tmp_path: Path) -> None:
    said = said_by_a_worker(tmp_path, "os.getcwd()", before="os.chdir('/')")
    assert said == repr(str(tmp_path))


def test_a_worker_reads_nothing_from_standard_input(tmp_path: Path) -> None:
    assert said_by_a_worker(tmp_path, "sys.stdin.read()") == "''"


def test_the_invitation_is_taken_out_of_the_environment(tmp_path: Path) -> None:
    assert said_by_a_worker(tmp_path, "'DTM_WORKER' in os.environ") == "False"


def test_numeric_libraries_get_one_thread_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    expression = "os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS']"
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.pop(name, None)
    said = said_by_a_worker(tmp_path, expression, env={"OMP_NUM_THREADS": "3"})
    assert said == "('3', '3')"


def test_a_command_of_a_task_inherits_no_socket_and_no_blocked_signal(tmp_path: Path) -> None:
    code = (
        "import os, signal; print(len(os.listdir('/proc/self/fd')), "
        "signal.getsignal(signal.SIGINT) is signal.default_int_handler, "
        "signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    )
    expression = (
        "__import__('subprocess').run([sys.executable, '-c', "
        f"{code!r}], close_fds=False, capture_output=True, text=True).stdout"
    )
    # Standard input, output and error, and the descriptor that lists them.
    assert said_by_a_worker(tmp_path, expression) == repr("4 True set()\n")


def test_a_program_that_a_worker_runs_before_it_joins_is_no_worker(tmp_path: Path) -> None:
    path = tmp_path / "prog.py"
    path.write_text(
        "import os, sys\n"
        "if 'DTM_WORKER' in os.environ:\n"
        "    inner = 'from dtm.launch.local_workers import join_run; print(join_run())'\n"
        '    os.system(f\'"{sys.executable}" -c "{inner}"\')\n'
        + TWO_RANKS.format(expression="'joined'", before="")
    )
    with program(path) as started:
        output, errors = started.finish()
    assert (output, errors) == ("None\n'joined'\n", "")


def test_an_invitation_that_makes_no_sense_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INVITATION, "please")
    with pytest.raises(CommunicationError, match="'please' is not understood"):
        join_run()
    assert INVITATION not in os.environ


def test_a_worker_that_finds_its_root_dead_ends_without_a_word(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = subprocess.Popen([sys.executable, "-c", ""])
    root.wait()
    directory = tmp_path / "sockets"
    directory.mkdir()
    monkeypatch.setenv(INVITATION, f"1:2:0:0:{root.pid}:{directory}")
    with pytest.raises(SystemExit, match="1"):
        join_run()
    assert capfd.readouterr() == ("", "")
    assert not directory.exists()


def test_ctrl_c_does_not_disturb_a_worker_that_is_starting(tmp_path: Path) -> None:
    path = tmp_path / "prog.py"
    path.write_text(
        "import os, time\n"
        "if 'DTM_WORKER' in os.environ:\n"
        "    print('starting', flush=True)\n"
        "    time.sleep(1)\n"
        + TWO_RANKS.format(
            expression="'undisturbed'",
            before="import signal; signal.signal(signal.SIGINT, lambda *_: print('interrupted'))",
        )
    )
    with program(path) as started:
        assert started.wait_for_line() == "starting"
        os.killpg(started.pid, signal.SIGINT)
        output, errors = started.finish()
    assert sorted(output.split()) == ["'undisturbed'", "interrupted"]
    assert errors == ""


def test_starting_delays_an_interrupt_only_for_the_time_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "prog.py"
    path.write_text(
        "import signal, dtm.launch.local_workers\n"
        + TWO_RANKS.format(
            expression="0", before="before = signal.pthread_sigmask(signal.SIG_BLOCK, [])"
        )
        + "print(before == signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
    )
    with program(path) as started:
        assert started.finish() == ("0\nTrue\n", "")


@pytest.mark.slow
def test_sixty_workers_start_and_end(tmp_path: Path) -> None:
    path = tmp_path / "prog.py"
    path.write_text(
        textwrap.dedent(
            """
            import time
            from dtm.launch.local_workers import join_run, start_workers
            manager = join_run()
            if manager:
                time.sleep(60)
            manager = start_workers(61)
            manager.close(5)
            """
        )
    )
    began = time.monotonic()
    with program(path) as started:
        assert started.finish() == ("", "")
    assert time.monotonic() - began < 50  # they would sleep for 60


# Cores


def files(root: Path, contents: dict[str, str]) -> str:
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


SLURM = {"SLURM_JOB_ID": "5", "SLURM_JOB_NODELIST": os.uname().nodename}


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("environ", "workers"),
    [
        ({}, 8),
        ({**SLURM, "SLURM_TASKS_PER_NODE": "3"}, 3),
        ({**SLURM, "SLURM_TASKS_PER_NODE": "64"}, 8),
        ({"SGE_ROOT": "/sge", "JOB_ID": "3", "NSLOTS": "2"}, 2),
        ({"SGE_ROOT": "/sge"}, 8),  # a login node has that too
        ({"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_TASKS_PER_NODE": "2(x2)"}, 8),
    ],
)
def test_slots_that_were_granted_bound_the_workers(environ: dict[str, str], workers: int) -> None:
    assert default_workers(environ) == workers


@pytest.mark.usefixtures("eight_cores")
def test_a_grant_that_is_not_understood_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert default_workers({"SLURM_JOB_ID": "5"}) == 8
    assert "SLURM_JOB_NODELIST" in capsys.readouterr().err


@pytest.mark.parametrize("command", [(), ("-m", "dtm")])
def test_a_job_of_one_slot_is_a_run_of_one_worker(tmp_path: Path, command: tuple[str, ...]) -> None:
    text = (
        "from dtm import dtm\nfrom dtm.run import runtime\n"
        "dtm.start(lambda: print(runtime.current.comm.size))\n"
    )
    (tmp_path / "size.py").write_text(text)
    environment = launch.environment(SLURM | {"SLURM_TASKS_PER_NODE": "1"})
    words = [sys.executable, *command, "size.py"]
    for variables, size in (({}, "1\n"), ({"DTM_WORKERS": "2"}, "2\n")):
        done = launch.run(words, environment | variables, launch.DEFAULT_TIMEOUT, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, size, "")


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("contents", "cores"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "250000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/a/b/c\n", "sys/fs/cgroup/a/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "1000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/elsewhere\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        (
            {
                "proc/self/cgroup": "3:memory:/m\n2:cpu,cpuacct:/job\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "2:cpu:/job\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
        (
            {
                "proc/self/cgroup": "0::/job\n",
                "sys/fs/cgroup/job/cpu.max": "9900000 100000\n",
            },
            8,
        ),
    ],
)
def test_the_quota_of_a_control_group_limits_the_cores(
    tmp_path: Path, contents: dict[str, str], cores: int
) -> None:
    assert available_cores(files(tmp_path, contents)) == cores


def test_the_cores_of_this_machine_can_be_counted() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
