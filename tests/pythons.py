"""The other Pythons of this machine: those on the PATH, of pyenv and of uv."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ASK = (
    "import json, sys, sysconfig; print(json.dumps(["
    "'%d.%d' % sys.version_info[:2], bool(sysconfig.get_config_var('Py_GIL_DISABLED')), "
    "sys.implementation.name]))"
)
ANSWER_SECONDS = 20.0
NEWEST = 20  # no Python 3.20 for years


class Found(NamedTuple):
    """An interpreter: its version, as ``3.12``, and whether it was built without the GIL."""

    path: str
    version: str
    free_threaded: bool


def _candidates() -> Iterator[str]:
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT", home / ".pyenv"))
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", home / ".local" / "share" / "uv" / "python"))
    for folder in (pyenv / "versions", uv):
        yield from (str(each) for each in sorted(folder.glob("*/bin/python3"), reverse=True))
    for minor in range(NEWEST):
        yield from filter(None, (shutil.which(f"python3.{minor}{kind}") for kind in ("", "t")))


def examine(path: str) -> Found | None:
    """Ask an interpreter what it is; None if it does not answer or is no CPython."""
    try:
        done = subprocess.run(
            [path, "-c", ASK], capture_output=True, timeout=ANSWER_SECONDS, check=True
        )
        version, free_threaded, name = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None  # pyenv's stand-in for a version that is not chosen, for example
    return Found(path, version, free_threaded) if name == "cpython" else None


@functools.cache
def all_found() -> tuple[Found, ...]:
    """Return the interpreters of this machine, without the one that runs the tests."""
    asked = map(examine, dict.fromkeys(_candidates()))
    here = os.path.realpath(sys.executable)
    return tuple(each for each in asked if each and os.path.realpath(each.path) != here)


def of_version(version: str) -> Found | None:
    """Return an interpreter of a version, with the GIL."""
    fitting = (each for each in all_found() if each.version == version and not each.free_threaded)
    return next(fitting, None)


def free_threaded() -> Found | None:
    """Return the interpreter that ``DTM_FREE_THREADED`` names, else one that is found."""
    given = os.environ.get("DTM_FREE_THREADED")
    if given:
        return examine(given)
    return next((each for each in all_found() if each.free_threaded), None)
