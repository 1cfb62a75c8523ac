"""What the workers of a run inside a program run in the place of the program.

The root starts ``python -c "...; serve()"`` (:mod:`dtm.launch.local_workers`), so ``__main__`` is
empty here; what the root's holds comes by value.

Called once, in the main thread.
"""

from __future__ import annotations

from dtm.launch.local_workers import joined_server
from dtm.run.inside import obey


def serve() -> None:
    """Join the run that this process was started for, and work until it is over."""
    obey(*joined_server())
