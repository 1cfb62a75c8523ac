"""What holds for all tests."""

import signal

from tests.fresh import FIRST_SEED, REPLAY, SEEDS

# A shell that starts the tests in the background has them ignore SIGINT, and whatever they
# start inherits that; a handler is not inherited, so programs under test take Ctrl-C again.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    return f"{SEEDS} simulations, again with: {REPLAY.format(FIRST_SEED, SEEDS)}"
