"""Runs one measurement under the library that the command line names.

``python NAME.py LIBRARY [--workers=N] [--quick] [NAME=VALUE …]``; the result is
printed as one line of JSON.  The command line is read by hand, and nothing here is a
dataclass: ``argparse`` and ``inspect`` take longer to import than some of what is measured
takes to run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.programs.libraries import Library, opened

MARK = "RESULT "


class Request(NamedTuple):
    """What the command line asked for."""

    library: str
    workers: int
    quick: bool
    settings: dict[str, str]


Result = dict[str, Any]
Measure = Callable[[Library, Request], Result]


def result(values: Sequence[float], judged: Sequence[float] = (), note: str = "") -> Result:
    """Make a result: the values, what is held against the bar if not they, and a remark."""
    return {"values": list(values), "judged": list(judged or values), "note": note}


def request_of(arguments: Sequence[str]) -> Request:
    pairs = (argument.lstrip("-").partition("=") for argument in arguments[1:])
    settings = {name: value for name, _, value in pairs}
    workers = int(settings.pop("workers", "2"))
    quick = settings.pop("quick", None) is not None
    return Request(arguments[0], workers, quick, settings)


def measured(measure: Measure, request: Request) -> Result:
    with opened(request.library, request.workers) as library:
        return measure(library, request)


def play(measure: Measure) -> None:
    """Measure under the library of the command line, and print the result."""
    request = request_of(sys.argv[1:])
    if request.library == "dtm":
        from dtm import dtm

        found = dtm.start(measured, measure, request)
    else:
        found = measured(measure, request)
    import json

    print(MARK + json.dumps(found), flush=True)


def seconds_of(function: Callable[..., Any], *arguments: Any) -> float:
    begin = perf_counter()
    function(*arguments)
    return perf_counter() - begin
