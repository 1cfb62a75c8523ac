"""What Flux has granted, which only its own command can tell.

The environment of a job names the job, that of a batch script not even this; the
hosts and cores stand in the resource set (R, version 1) that ``flux`` prints as
JSON, the same for both::

    {"version": 1, "execution": {"nodelist": ["n[0-1]"],
     "R_lite": [{"rank": "0-1", "children": {"core": "0-7"}}]}}

Any thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dtm.errors import OptionError
from dtm.launch.hostlist import expand

ASK_SECONDS = 10.0


def command(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the command that prints the resources of this job, or of this instance."""
    job = environ.get("FLUX_JOB_ID")
    return ("flux", "job", "info", job, "R") if job else ("flux", "resource", "R")


def starter(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return what starts a process on the host with a number."""
    job = environ.get("FLUX_JOB_ID")
    return ("flux", "exec", *((f"--jobid={job}",) if job else ()), "--rank={index}")


def granted(text: str) -> list[tuple[str, int]]:
    """Return the hosts in a resource set, in the order of their ranks, with their cores.

    Raises:
        OptionError: it is none of version 1.
    """
    try:
        resources: Any = json.loads(text)
        if resources["version"] != 1:
            raise OptionError(f"its version is {resources['version']!r}, not 1")
        execution = resources["execution"]
        hosts = expand(",".join(execution["nodelist"]))
        cores: dict[int, int] = {}
        for part in execution["R_lite"]:
            for rank in _numbers(part["rank"]):
                cores[rank] = cores.get(rank, 0) + len(_numbers(part["children"]["core"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise OptionError(f"it is no resource set: {error!r}") from error
    except json.JSONDecodeError as error:
        raise OptionError(f"it is no JSON: {error}") from error
    if len(cores) != len(hosts):
        raise OptionError(f"it has {len(hosts)} hosts and {len(cores)} ranks")
    return [(host, cores[rank]) for host, rank in zip(hosts, sorted(cores))]


def ask(asked: tuple[str, ...]) -> str:
    """Return what a command prints.

    Raises:
        OptionError: it is not there, fails, or takes longer than ten seconds.
    """
    from subprocess import DEVNULL, SubprocessError, run

    try:
        done = run(  # noqa: S603 - a command of Flux's, with a job's number in it
            asked, stdin=DEVNULL, capture_output=True, text=True, timeout=ASK_SECONDS, check=True
        )
    except (OSError, SubprocessError, UnicodeDecodeError) as error:
        raise OptionError(str(error)) from error
    return done.stdout


def _numbers(text: str) -> list[int]:
    return [int(number) for number in expand(f"[{text}]")]
