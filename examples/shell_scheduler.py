"""Run the shell commands of a file, one a line, on all the workers there are.

::

    python examples/shell_scheduler.py examples/shell_tasks.txt
    mpirun -n 4 python examples/shell_scheduler.py my_commands.txt

For each command it reports the exit code and what the command printed, in the
order of the file and as soon as they are known.  The exit status of the whole is
0 if every command succeeded, else 1.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from dtm import dtm


class Report(NamedTuple):
    """How one command ended, and where it ran."""

    command: str
    code: int
    output: str
    worker: int


def run(command: str) -> Report:
    """Run one command; its output is caught, so that those of two commands do not mix."""
    done = subprocess.run(
        command,
        shell=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        errors="replace",
        check=False,
    )
    # A negative code is a signal: say it as a shell does.
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode
    return Report(command, code, done.stdout, dtm.getWorkerId())


def commands_of(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def main(path: Path) -> int:
    commands = commands_of(path)
    failed = 0
    # imap yields in order and while later commands still run.
    for number, report in enumerate(dtm.imap(run, commands), start=1):
        print(f"[{number}/{len(commands)}] exit {report.code}: {report.command}")
        for line in report.output.splitlines():
            print(f"    {line}")
        failed += report.code != 0
    print(f"{len(commands)} commands, {failed} failed")
    return 1 if failed else 0


parser = argparse.ArgumentParser(description="run the commands of a file, one a line")
parser.add_argument(
    "file", type=Path, nargs="?", default=Path(__file__).with_name("shell_tasks.txt")
)
sys.exit(dtm.start(main, parser.parse_args().file))
