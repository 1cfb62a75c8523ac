"""A module beside the programs under test."""

import time

from dtm import dtm


def triple(item: int) -> tuple[int, int]:
    """Return three times the item, and the worker."""
    time.sleep(0.005)
    return 3 * item, dtm.getWorkerId()
