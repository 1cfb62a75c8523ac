"""``dtm trace``: a recorded run in formats that other programs read."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from dtm.commands.completion import FILES, hint

if TYPE_CHECKING:
    from dtm.trace.recorded import RecordedRun

SUMMARY = "write a recorded run in the format of another program"
ENDINGS = {"perfetto": "pftrace", "chrome": "json", "csv": "csv", "parquet": "parquet"}


def add_arguments(parser: ArgumentParser) -> None:
    """Add what to do, with which trace."""
    words = parser.add_subparsers(dest="verb", required=True, metavar="export")
    export = words.add_parser("export", help=SUMMARY)
    export.add_argument(
        "--format", choices=tuple(ENDINGS), default="perfetto",
        help="perfetto, the default, opens in ui.perfetto.dev; chrome in chrome://tracing too; csv "
        "and parquet have a row an event",
    )  # fmt: skip
    output = export.add_argument(
        "-o", "--output", metavar="FILE", help="default: trace in this directory, and an ending"
    )
    add_directory(export)
    hint(output, FILES)


def add_directory(parser: ArgumentParser) -> None:
    """Add the directory of a trace."""
    directory = parser.add_argument("directory", metavar="DIR", help="what --trace was given")
    hint(directory, FILES)


def read(directory: str) -> RecordedRun:
    """Read a trace, or end with a sentence that says why not."""
    try:
        from dtm.trace.recorded import read_run
    except ImportError as error:
        if error.name != "numpy":
            raise
        sys.exit("dtm: traces are read with numpy: pip install 'dtm[report]'")
    from dtm.errors import TraceError

    try:
        return read_run(directory)
    except TraceError as error:
        sys.exit(f"dtm: {error}")


def execute(given: Namespace) -> int:
    """Write the file."""
    run = read(given.directory)
    from dtm.errors import TraceError
    from dtm.trace.recorded import counted

    path = given.output or f"trace.{ENDINGS[given.format]}"
    try:
        _write(run, given.format, path)
    except TraceError as error:
        sys.exit(f"dtm: {error}")
    except OSError as error:
        sys.exit(f"dtm: cannot write {path}: {error.strerror}")
    sys.stdout.write(
        f"{path}: {counted(len(run.events), 'event')} of {counted(len(run.ranks), 'worker')}\n"
    )
    return 0


def _write(run: RecordedRun, form: str, path: str) -> None:
    from dtm.trace.chrome import write_chrome
    from dtm.trace.perfetto import write_perfetto
    from dtm.trace.tables import write_csv, write_parquet

    if form in ("perfetto", "parquet"):
        with open(path, "wb") as binary:
            (write_perfetto if form == "perfetto" else write_parquet)(run, binary)
        return
    with open(path, "w", encoding="utf-8", newline="") as text:
        (write_chrome if form == "chrome" else write_csv)(run, text)
