"""Environments of other Pythons or other libraries, made beside the checkout's own.

Each is made once, with pip, and made again when what it is to hold has changed.  Tests in several
processes may ask for one at the same time: one makes it, the others wait.

Rejected: an environment in the user's cache, for all checkouts: two of them may want other things.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shlex
import subprocess
import tomllib
from pathlib import Path

from tests.launch import ROOT

INSTALL_SECONDS = 100.0
LOCKS = ROOT / ".venv-locks"
SECTIONS = ROOT / "tools" / "critical_sections.h"
ARRIVES_BUILT = ("greenlet", "mpi4py", "numpy")
"""Never compiled here: an older release as a wheel, rather than minutes and a compiler."""


@functools.cache
def dependencies() -> tuple[str, ...]:
    """Return what dtm needs, as pyproject.toml has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return tuple(project["project"]["dependencies"])


@functools.cache
def prepare(home: Path, interpreter: str, *packages: str, compiled: str = "") -> str:
    """Make an environment with what dtm needs and more; return what went wrong, if anything did.

    ``compiled`` is a package that is compiled, with the header ``SECTIONS`` before its own.
    """
    built = ",".join(each for each in ARRIVES_BUILT if each != compiled)
    wanted = ("--only-binary", built, *dependencies(), *packages)
    LOCKS.mkdir(exist_ok=True)
    with (LOCKS / home.name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # its holder is bounded by INSTALL_SECONDS
        return _prepare(home, interpreter, wanted)


def _prepare(home: Path, interpreter: str, wanted: tuple[str, ...]) -> str:
    complete = home / "complete"
    holds = "\n".join((interpreter, *wanted))
    if complete.exists() and complete.read_text(encoding="utf-8") == holds:
        return ""
    python = str(home / "bin" / "python")
    install = [python, "-m", "pip", "install", "-q"]
    compiler = {"CXX": f"g++ -O1 -include {shlex.quote(str(SECTIONS))}"}
    for command in ([interpreter, "-m", "venv", "--clear", str(home)], [*install, *wanted]):
        try:
            done = subprocess.run(
                command,
                check=False,
                timeout=INSTALL_SECONDS,
                capture_output=True,
                text=True,
                env=os.environ | compiler,
            )
        except (OSError, subprocess.SubprocessError) as error:
            return str(error)
        if done.returncode:
            return done.stderr.strip()[-500:]
    complete.write_text(holds, encoding="utf-8")
    return ""
