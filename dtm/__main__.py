"""The command ``python -m dtm``, installed as ``dtm`` too: run a program with options.

``python -m dtm -n 4 prog.py --args`` runs ``prog.py`` as ``python prog.py --args`` would, with four
workers.  The options go into the environment of this process, where
``start`` finds them; the workers run this same command line again.
"""

from __future__ import annotations

import os
import sys
from argparse import REMAINDER, ArgumentParser, Namespace
from collections.abc import Sequence


def parser() -> ArgumentParser:
    """Return the parser of the command line."""
    made = ArgumentParser(
        prog="dtm",
        usage="dtm [-n WORKERS] [--comm NAME] [--seed SEED] (PROGRAM | -m MODULE) [ARGUMENT ...]",
        description="Run a Python program that calls dtm.start(main).",
    )
    made.add_argument("-n", "--workers", type=_workers, help="how many workers a local run has")
    made.add_argument("--comm", help="the communication manager: mpi, local, serial, a.path.Class")
    made.add_argument("--seed", type=int, help="make the random numbers of the run repeatable")
    made.add_argument("-m", dest="module", action="store_true", help="PROGRAM is a module's name")
    made.add_argument("program", metavar="PROGRAM", help="a file, a directory or zip, or a module")
    made.add_argument("arguments", metavar="ARGUMENT", nargs=REMAINDER, help="go to the program")
    return made


def _workers(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def run(given: Namespace) -> None:
    """Run the program in this process, as ``__main__``."""
    import runpy

    for variable, value in (
        ("DTM_WORKERS", given.workers),
        ("DTM_COMM", given.comm),
        ("DTM_SEED", given.seed),
    ):
        if value is not None:
            os.environ[variable] = str(value)
    sys.argv = [given.program, *given.arguments]
    if given.module:
        runpy.run_module(given.program, run_name="__main__", alter_sys=True)
        return
    if not os.path.exists(given.program):
        sys.exit(f"dtm: there is no program {given.program!r}")
    if os.path.isfile(given.program) and given.program.endswith(".py"):
        sys.path[0] = os.path.dirname(os.path.abspath(given.program))
    runpy.run_path(given.program, run_name="__main__")


def console(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    run(parser().parse_args(arguments))


if __name__ == "__main__":
    console()
