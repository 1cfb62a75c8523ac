"""What module functions need, they need without dill: it is not even imported."""

from __future__ import annotations

import sys

import helper_module
import scenarios

from dtm import dtm


class Box:
    """A class of the main module."""

    def __init__(self, item: int) -> None:
        self.item = item


def look(box: Box) -> tuple[int, bool, Box]:
    """Say whether dill has been imported on this worker."""
    helper_module.triple(box.item)
    return dtm.getWorkerId(), "dill" in sys.modules, box


def main() -> None:
    """Print which workers have dill."""
    scenarios.gather(int(sys.argv[1]))
    found = dtm.map(look, [Box(item) for item in range(60)])
    print(sorted({(worker, dill) for worker, dill, _ in found}))
    assert all(type(box) is Box and box.item == i for i, (_, _, box) in enumerate(found))


if __name__ == "__main__":
    dtm.start(main)
