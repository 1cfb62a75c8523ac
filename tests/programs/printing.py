"""Tasks that print."""

from __future__ import annotations

import logging
import sys
import time
import warnings

import scenarios

from dtm import dtm


def many(item: int) -> None:
    """Print two short lines."""
    print("o", item, "o" * 60)
    print("e", item, "e" * 60, file=sys.stderr)
    time.sleep(0.0002)


def long(item: int) -> None:
    """Print two very long lines."""
    print(f"{item:03} " + "o" * 100_000)
    sys.stderr.write(f"{item:03} " + "e" * 100_000 + "\n")
    time.sleep(0.01)


def odd(item: int) -> None:
    """Print in ways that are not quite as usual."""
    time.sleep(0.01)
    sys.stdout.write("in ")
    sys.stdout.flush()
    sys.stdout.write("pieces\n")
    print("grüße, 世界")
    sys.stdout.writelines(["by sys.stdout", ".writelines\n"])
    warnings.warn(f"a warning of item {item}", stacklevel=1)
    logging.getLogger("test").warning("logged by item %d", item)
    print("no end", end="")
    if item % 2:
        print()


def order(item: int) -> None:
    """Print some lines, one after the other."""
    for line in range(50):
        print("item", item, "line", line)
        time.sleep(0.0002)


def main() -> None:
    """Print from all workers."""
    scenarios.gather(int(sys.argv[1]))
    count = {"many": 2000, "long": 30, "odd": 40, "order": 20}[sys.argv[2]]
    dtm.map(globals()[sys.argv[2]], range(count))
    if sys.argv[2] == "odd":
        print("the end of main")


if __name__ == "__main__":
    warnings.simplefilter("always")
    dtm.start(main)
