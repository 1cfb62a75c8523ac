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
import time
import tomllib
from pathlib import Path
from typing import IO

from tests.launch import ROOT

INSTALL_SECONDS = 80.0
"""For all of it, waiting for who installs already included: less than a test may take."""
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
def prepare(
    home: Path,
    interpreter: str,
    *packages: str,
    compiled: str = "",
    seconds: float = INSTALL_SECONDS,
) -> str:
    """Make an environment with what dtm needs and more; return what went wrong, if anything did.

    It may take ``seconds``, and goes on another time if it has taken longer.  ``compiled`` is a
    package that is compiled, with the header ``SECTIONS`` before its own.
    """
    built = ",".join(each for each in ARRIVES_BUILT if each != compiled)
    wanted = ("--only-binary", built, *dependencies(), *packages)
    LOCKS.mkdir(exist_ok=True)
    with (LOCKS / home.name).open("w") as lock:
        until = time.monotonic() + seconds
        while not _locked(lock):
            if time.monotonic() > until:
                return f"another process has been installing it for {seconds:g} s"
            time.sleep(0.2)
        return _prepare(home, interpreter, wanted, until)


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _prepare(home: Path, interpreter: str, wanted: tuple[str, ...], until: float) -> str:
    complete = home / "complete"
    holds = "\n".join((interpreter, *wanted))
    if complete.exists() and complete.read_text(encoding="utf-8") == holds:
        return ""
    python = str(home / "bin" / "python")
    begun = home / "begun"  # for the same packages, and not ended in time: it goes on from there
    goes_on = begun.exists() and begun.read_text(encoding="utf-8") == holds
    make = [interpreter, "-m", "venv", "--clear", str(home)]
    install = [python, "-m", "pip", "install", "-q"]
    compiler = {"CXX": f"g++ -O1 -include {shlex.quote(str(SECTIONS))}"}
    for command in [*([] if goes_on else [make]), [*install, *wanted]]:
        try:
            done = subprocess.run(
                command,
                check=False,
                timeout=max(1.0, until - time.monotonic()),
                capture_output=True,
                text=True,
                env=os.environ | compiler,
            )
        except (OSError, subprocess.SubprocessError) as error:
            return str(error)
        if done.returncode:
            return done.stderr.strip()[-500:]
        begun.write_text(holds, encoding="utf-8")
    complete.write_text(holds, encoding="utf-8")
    return ""
