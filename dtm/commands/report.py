"""``dtm report``: a recorded run as a page to look at."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from dtm.commands.completion import FILES, hint
from dtm.commands.trace import add_directory, read

SUMMARY = "write a page that shows a recorded run, and says what to change"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the trace, the page, and the run to compare with."""
    output = parser.add_argument(
        "-o", "--output", metavar="FILE", default="report.html", help="default: report.html"
    )
    hint(output, FILES)
    against = parser.add_argument(
        "--against", metavar="DIR",
        help="the trace of the same program on fewer workers, for the scaling of computation",
    )  # fmt: skip
    hint(against, FILES)
    add_directory(parser)


def execute(given: Namespace) -> int:
    """Write the page, and print what to change."""
    run = read(given.directory)
    other = read(given.against) if given.against is not None else None
    from dtm.errors import TraceError
    from dtm.run.advice import advice
    from dtm.trace.findings import find
    from dtm.trace.page import write_report

    findings = find(run)
    try:
        with open(given.output, "w", encoding="utf-8") as file:
            write_report(findings, file, None if other is None else find(other))
    except TraceError as error:
        sys.exit(f"dtm: {error}")
    except OSError as error:
        sys.exit(f"dtm: cannot write {given.output}: {error.strerror}")
    sys.stdout.write(
        "\n".join((*advice(findings.figures), *run.gaps, f"{given.output} shows it", ""))
    )
    return 0
