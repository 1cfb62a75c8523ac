"""Maps to be watched: 500 items, then four that wait for a file; its name is the first argument."""

import os
import socket
import sys
import time

if "without" in sys.argv:
    sys.modules["prometheus_client"] = None

from dtm import dtm

PATIENCE_SECONDS = 100.0
NASTY = "<img src=x onerror=\"document.body.dataset.bad='yes'\">"


def step(number):
    time.sleep(0.002)
    return number


def hold(path):
    until = time.monotonic() + PATIENCE_SECONDS
    while not os.path.exists(path) and time.monotonic() < until:
        time.sleep(0.02)
    return len(path)


hold.__qualname__ = NASTY


def listening():
    """Return how many ports this process listens at."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as each:
                inet = each.family == socket.AF_INET
                found += inet and each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError:
            continue
    return found


def fork(_):
    child = os.fork()
    if not child:
        os._exit(listening())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main():
    if "fork" in sys.argv:
        print("ports", listening(), dtm.apply(fork, 0), flush=True)
        return
    dtm.map(step, range(500))
    print("counted", flush=True)
    print("sum", sum(dtm.map(hold, [sys.argv[1]] * 4)), flush=True)


dtm.start(main)
