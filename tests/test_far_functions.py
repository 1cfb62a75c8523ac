"""Functions with much data go once to each host, and stay in no worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.launch import Launcher, launchers

PROGRAM = Path(__file__).parent / "programs" / "pretended_hosts.py"


@pytest.mark.parametrize("launcher", launchers("local-6", "local-3"))
def test_on_pretended_hosts(launcher: Launcher) -> None:
    done = launcher.run(PROGRAM, timeout=100)
    assert done.returncode == 0, (done.stdout, done.stderr)
    verdicts = dict(line.split() for line in done.stdout.splitlines())
    assert len(verdicts) == 10
    assert set(verdicts.values()) == {"True"}, (done.stdout, done.stderr)
    assert "at_home): the function cannot be read on worker" in done.stderr
    assert "ValueError('not here')" in done.stderr
