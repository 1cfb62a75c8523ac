"""What holds for all tests: which of them run together, and in which order."""

from __future__ import annotations

import os
import signal

import pytest

pytest.register_assert_rewrite("tests.checks", "tests.launch")  # they assert for the tests

from tests.fresh import FIRST_SEED, REPLAY, SEEDS  # noqa: E402 - after what has to come first

# A shell that starts the tests in the background has them ignore SIGINT, and whatever they
# start inherits that; a handler is not inherited, so programs under test take Ctrl-C again.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What changes where programs import from, what they check or what they print.  Programs under test
# inherit all else, PYTHONDONTWRITEBYTECODE and PYTHONUNBUFFERED for example.
for variable in (
    "PYTHONDEVMODE",
    "PYTHONINSPECT",
    "PYTHONOPTIMIZE",
    "PYTHONPROFILEIMPORTTIME",
    "PYTHONSAFEPATH",
    "PYTHONSTARTUP",
    "PYTHONTRACEMALLOC",
    "PYTHONVERBOSE",
    "PYTHONWARNINGS",
):
    os.environ.pop(variable, None)


def pytest_report_header() -> str:
    return f"{SEEDS} simulations, again with: {REPLAY.format(FIRST_SEED, SEEDS)}"


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in a hook of the same name
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let tests that share a fixture run in one process, and the slow ones begin.

    With ``-n 4`` a fixture of a module would be set up in each process that gets one of its
    tests.  Without it the order stays that of the files.
    """
    for item in items:
        shared = _shared_fixtures(item)
        if shared and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(shared))
    if config.getoption("tx", None) or hasattr(config, "workerinput"):
        slow = {_group(item) for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: _group(item) not in slow)


def _shared_fixtures(item: pytest.Item) -> str:
    """Return what is the same for all tests that share fixtures with this one, else nothing."""
    definitions = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009 - pytest has no other way
    of_modules = {
        name
        for name, (*_, last) in definitions.items()
        if last.scope != "function" and last.baseid.startswith("tests")
    }
    call = getattr(item, "callspec", None)
    params = call.params if call else {}
    of_modules |= {"place"} & params.keys()  # one run for all the checks made in it
    if not of_modules:
        return ""
    chosen = [str(value) for name, value in sorted(params.items()) if name in of_modules]
    return " ".join([item.location[0], *chosen])


def _group(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    return str(mark.args[0]) if mark else item.nodeid
