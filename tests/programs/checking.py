"""Plays the checks of a program within one run, and prints one JSON line for each.

Here too: functions for tasks that several of these programs use.
"""

import json
import sys
import time
import traceback


class Missing(Exception):
    """A library is not installed."""


def play(checks):
    """Call the functions of a namespace that are named ``check_``, or those the command names."""
    chosen = sys.argv[2:]
    for name, check in list(checks.items()):
        if name.startswith("check_") and (not chosen or name in chosen):
            began = time.perf_counter()
            try:
                check()
                verdict = "ok"
            except Missing as missing:
                verdict = f"missing: {missing}"
            except BaseException:
                verdict = traceback.format_exc()
            took = round(time.perf_counter() - began, 3)
            print(json.dumps({"check": name, "verdict": verdict, "seconds": took}), flush=True)


def raised(function, *args, **kwargs):
    """Return what a call raises; it is an error if it raises nothing."""
    try:
        function(*args, **kwargs)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def square(x):
    return x * x


def fails_at_3(x):
    if x == 3:
        raise ValueError(x)
    return x


def nap(seconds):
    time.sleep(seconds)
    return seconds
