"""What two workers can say to each other through a whole communication manager, and how fast.

``what=round-trip``: 8 bytes there and back, time after time; the values are µs.
``what=bandwidth``: an array of 64 MB there, a few bytes back; the values are GB/s.
``what=join``: ``--workers`` processes join a run over TCP; the value is the seconds that takes.

``LIBRARY`` is ``dtm`` (the manager of MPI or of a local run), ``tcp`` (authenticated) or ``tls``
(encrypted).  Workers of the last two are this same program with an address to join.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from statistics import median
from time import perf_counter

from benchmarks.programs.harness import MARK, Request, Result, request_of, result
from dtm.comm.base import CommunicationManager, Frame

LARGE = 64_000_000
LAST = b"end"
PATIENCE = 60.0


def ask(manager: CommunicationManager, frames: list[Frame]) -> None:
    """Send a message to the other worker and wait for its answer."""
    manager.send(1, frames)
    while not manager.receive():
        manager.wait(PATIENCE)


def answer(manager: CommunicationManager) -> None:
    """Send back what is small, and say so of what is large, until the end."""
    while True:
        for sender, frames in manager.receive():
            manager.send(sender, [bytes(frames[0][:8])])
            if frames[0] == LAST:
                manager.close(PATIENCE)
                return
        manager.wait(PATIENCE)


def round_trip(manager: CommunicationManager, quick: bool) -> Result:
    times = []
    for _ in range(500 if quick else 10_000):
        begin = perf_counter()
        ask(manager, [b"8 bytes."])
        times.append((perf_counter() - begin) * 1e6)
    ordered = sorted(times)
    note = f"p50 {median(times):.0f} µs, p99 {ordered[len(times) * 99 // 100]:.0f} µs"
    return result([median(times)], note=note)


def bandwidth(manager: CommunicationManager, quick: bool) -> Result:
    import numpy as np

    array = np.random.default_rng(1).random(LARGE // 8)
    rates = []
    for _ in range(3 if quick else 20):
        begin = perf_counter()
        ask(manager, [array.data.cast("B")])
        rates.append(LARGE / (perf_counter() - begin) / 1e9)
    return result([median(rates)], note=f"best {max(rates):.2f} GB/s")


def joining(request: Request) -> Result:
    begin = perf_counter()
    with ExitStack() as stack:
        root = lead(request, stack)
        while root.absent():
            root.wait(1.0)
            root.receive()
        seconds = perf_counter() - begin
        for rank in range(1, root.size):
            root.send(rank, [LAST])
        root.close(PATIENCE)
    return result([seconds], note=f"{request.workers - 1} processes, their start included")


def lead(request: Request, stack: ExitStack) -> CommunicationManager:
    """Lead a run over TCP, and start the other workers."""
    from dtm.comm.tcp.credentials import Credentials
    from dtm.comm.tcp.manager import TcpManager

    credentials = Credentials.fresh(tls=request.library == "tls")
    root = TcpManager.lead(request.workers, credentials)
    command = [sys.executable, __file__, request.library, f"join={root.address}"]
    for _ in range(1, request.workers):
        worker = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))
        assert worker.stdin is not None
        worker.stdin.write(credentials.to_bytes())
        worker.stdin.close()
    return root


def join(address: str) -> CommunicationManager:
    from dtm.comm.tcp.credentials import Credentials
    from dtm.comm.tcp.manager import TcpManager

    return TcpManager.join(address, Credentials.read(sys.stdin.buffer), timeout=PATIENCE)


def own_manager(request: Request, stack: ExitStack) -> CommunicationManager:
    """Return the manager of this process, the others being on their way."""
    if "join" in request.settings:
        return join(request.settings["join"])
    if request.library in {"tcp", "tls"}:
        return lead(request, stack)
    from dtm.comm.mpi.environment import launched_by_mpi

    if launched_by_mpi(os.environ):
        from dtm.comm.mpi.manager import MpiManager

        return MpiManager()
    from dtm.launch.local_workers import join_run, start_workers

    return join_run() or start_workers(request.workers)


def main() -> None:
    request = request_of(sys.argv[1:])
    what = request.settings.get("what")
    if what == "join":
        found = joining(request)
    else:
        with ExitStack() as stack:
            manager = own_manager(request, stack)
            if manager.rank:
                answer(manager)
                return
            ask(manager, [b"are you there?"])
            measure = bandwidth if what == "bandwidth" else round_trip
            found = measure(manager, request.quick)
            ask(manager, [LAST])
            manager.close(PATIENCE)
    print(MARK + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
