"""What an idle worker costs while another is busy: the share of a core that it uses."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.programs.harness import Request, Result, play, result
from benchmarks.programs.libraries import Library
from benchmarks.programs.work import process_ids

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def processor_seconds(process: int) -> float:
    """Return the processor time of a process so far, from the kernel's own books."""
    text = Path(f"/proc/{process}/stat").read_text(encoding="ascii")
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND  # utime, stime


def busy(request: tuple[float, list[int]]) -> list[float]:
    """Keep this worker busy for so long; return how busy the others were meanwhile."""
    seconds, processes = request
    others = [process for process in processes if process != os.getpid()]
    before = [processor_seconds(process) for process in others]
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        pass
    taken = time.perf_counter() - begin
    after = [processor_seconds(process) for process in others]
    return [(late - soon) / taken for soon, late in zip(before, after, strict=True)]


def measure(library: Library, request: Request) -> Result:
    processes = sorted(process_ids(library, request.workers))
    time.sleep(0.2)
    seconds = 1.0 if request.quick else 10.0
    (shares,) = library.collect([library.submit(busy, (seconds, processes))])
    return result([share * 100 for share in shares])


if __name__ == "__main__":
    play(measure)
