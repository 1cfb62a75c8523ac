"""One rank of a conformance scenario: ``mpirun -n SIZE python mpi_rank.py SCENARIO REPORT``.

SCENARIO is a pickle in hexadecimal digits.  A rank that has come to the end appends a line to the
file REPORT, one that has not what went wrong, for launchers lose output.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import sys
import traceback

from dtm.comm.mpi.manager import MpiManager

PATIENCE = 75.0

if __name__ == "__main__":
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    try:
        pickle.loads(bytes.fromhex(sys.argv[1]))(MpiManager())
        said = "kept"
    except BaseException:
        said = traceback.format_exc()
    with open(sys.argv[2], "ab", buffering=0) as report:
        report.write(f"{said}\n".encode())
    if said != "kept":
        os._exit(1)
