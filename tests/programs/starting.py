"""Prints as JSON how it was started and what its workers see."""

import json
import os
import sys
import time

from dtm import dtm

if "--chdir" in sys.argv:
    os.chdir("/")


def look(_):
    """Say what this worker sees."""
    time.sleep(0.01)
    return {
        "worker": dtm.getWorkerId(),
        "arguments": sys.argv[1:],
        "directory": os.getcwd(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "module": __name__,
        "optimized": sys.flags.optimize,
        "variables": sorted(name for name in os.environ if name.startswith("DTM_WORKER")),
        "stdin": sys.stdin.read() if dtm.getWorkerId() else "",
    }


def main():
    """Return what each worker sees, once all of them have been seen or after a while."""
    wanted = int(os.environ["WANTED"])
    deadline = time.monotonic() + 30
    found = {}
    while len(found) < wanted and time.monotonic() < deadline:
        found |= {seen["worker"]: seen for seen in dtm.map(look, range(20))}
    return [found[worker] for worker in sorted(found)]


if "--no-guard" in sys.argv or __name__ == "__main__":
    print(json.dumps(dtm.start(main)))
