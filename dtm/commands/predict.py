"""``dtm predict``: what a recorded run would take on other numbers of workers."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace

from dtm.commands.completion import FILES, hint
from dtm.commands.trace import add_directory, read

SUMMARY = "predict what a recorded run would take on other numbers of workers"
MOST_WORKERS = 65_536


def add_arguments(parser: ArgumentParser) -> None:
    """Add the numbers of workers, the plot, and the trace."""
    parser.add_argument(
        "--workers", type=numbers, metavar="N,N...", default=[1, 2, 4, 8, 16, 64, 256],
        help="default: 1,2,4,8,16,64,256",
    )  # fmt: skip
    plot = parser.add_argument("--plot", metavar="FILE", help="draw it too, as a page")
    hint(plot, FILES)
    add_directory(parser)


def numbers(text: str) -> list[int]:
    """Read numbers of workers."""
    try:
        found = [int(each) for each in text.split(",")]
    except ValueError:
        raise ArgumentTypeError(f"{text!r} are no whole numbers with commas between") from None
    if not all(1 <= each <= MOST_WORKERS for each in found):
        raise ArgumentTypeError(f"numbers of workers are from 1 to {MOST_WORKERS}, not {text}")
    return found


def execute(given: Namespace) -> int:
    """Print a line for each number of workers, as soon as it is known."""
    run = read(given.directory)
    from dtm.errors import TraceError
    from dtm.run.advice import seconds
    from dtm.trace.prediction import measured, predict
    from dtm.trace.recorded import counted

    was = measured(run)
    wanted = sorted({was.workers, *given.workers})
    out = sys.stdout
    out.write(f"{'workers':>8} {'time':>10} {'speed-up':>9} {'efficiency':>11}\n")
    found = []
    try:
        for each in predict(run, wanted):
            found.append(each)
            gain = was.seconds / each.seconds if each.seconds else 0.0
            took = seconds(each.seconds)
            line = f"{each.workers:>8} {took:>10} {gain:>9.2f} {each.efficiency:>11.0%}"
            if each.workers == was.workers:
                line += f"   recorded: {seconds(was.seconds)}"
                if was.starting > was.seconds / 100:
                    line += f", and {seconds(was.starting)} until all workers were there"
            out.write(f"{line}\n")
            out.flush()
        if given.plot is not None:
            from dtm.trace.page import write_prediction

            with open(given.plot, "w", encoding="utf-8") as file:
                write_prediction(found, was, file)
            out.write(f"{given.plot} shows it\n")
    except TraceError as error:
        sys.exit(f"dtm: {error}")
    except OSError as error:
        sys.exit(f"dtm: cannot write {given.plot}: {error.strerror}")
    on = counted(was.workers, "worker")
    out.write(f"speed-up is that over the recorded run, on {on}\n")
    out.writelines(f"{gap}; what is not recorded takes no time here\n" for gap in run.gaps)
    return 0
