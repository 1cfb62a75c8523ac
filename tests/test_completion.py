"""Completion in real shells: what the line is after the key has been pressed."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import launch

LIMIT = 30.0
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], b'eval "$(cat script)"\n'),
    "zsh": (
        ["zsh", "-f", "-i"],
        b'autoload -Uz compinit; compinit -u -D; eval "$(cat script)"\n',
    ),
}
_UNSEEN = dict.fromkeys(map(ord, "\r\a"))
FILES = ("prog.py", "hf.sig", "wr.secret")


def shells() -> list[object]:
    found = {shell: shutil.which(shell) for shell in SHELLS}
    return [
        pytest.param(
            shell, marks=pytest.mark.skipif(path is None, reason=f"there is no {shell} to try")
        )
        for shell, path in found.items()
    ]


@contextmanager
def terminal(shell: str, directory: Path) -> Iterator[int]:
    """Start a shell at a terminal of its own."""
    command, setting = SHELLS[shell]
    ours, theirs = pty.openpty()
    env = launch.environment({"PS1": "$ ", "TERM": "dumb", "HOME": str(directory)})
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=directory,
        start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        try:
            os.write(ours, setting + b"echo re''ady\n")
            read_until(ours, "\nready")
            yield ours
        finally:
            process.kill()
            os.close(ours)


def read_until(descriptor: int, text: str) -> None:
    """Read what a shell writes until it has written something, an answer to a key, say."""
    seen = ""
    deadline = time.monotonic() + LIMIT
    while text not in seen:
        left = deadline - time.monotonic()
        assert left > 0 and select.select([descriptor], [], [], left)[0], (text, seen)
        seen += os.read(descriptor, 1 << 16).decode(errors="replace").translate(_UNSEEN)


@pytest.mark.parametrize("shell", shells())
def test_the_key_completes(tmp_path: Path, shell: str) -> None:
    words = [sys.executable, "-m", "dtm", "completion", shell]
    script = launch.run(words, launch.environment(), LIMIT).stdout
    (tmp_path / "script").write_text(script)
    for name in FILES:
        (tmp_path / name).touch()
    cases = {
        "dtm prog.": "dtm prog.py ",
        "dtm --ho": "dtm --hosts ",
        "dtm --hosts hf.s": "dtm --hosts hf.sig ",
        "dtm run --hosts hf.s": "dtm run --hosts hf.sig ",
        "dtm --comm t": "dtm --comm tcp ",
        "dtm --comm tcp -n 4 pro": "dtm --comm tcp -n 4 prog.py ",
        "dtm doctor --hosts hf.s": "dtm doctor --hosts hf.sig ",
        "dtm doctor --comm m": "dtm doctor --comm mpi ",
        "dtm prog.py wr": "dtm prog.py wr.secret ",
        "dtm joi": "dtm join ",
        "dtm completion z": "dtm completion zsh ",
    }
    if shell == "bash":
        cases["dtm --hosts=hf"] = "dtm --hosts=hf.sig "
        cases["dtm join tcp://a:1 pro"] = "dtm join tcp://a:1 prog.py "
    with terminal(shell, tmp_path) as typed:
        for line, wanted in cases.items():
            os.write(typed, b"\x15" + line.encode() + b"\t")
            read_until(typed, wanted)


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_there_is_a_script_for_each_shell(shell: str) -> None:
    words = [sys.executable, "-m", "dtm", "completion", shell]
    done = launch.run(words, launch.environment(), LIMIT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tag-output" in done.stdout
    assert "@words@" not in done.stdout
