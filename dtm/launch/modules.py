"""Whether a module is there, without running anything of it.

Only the first part of a dotted name is looked for: where the rest is may be decided by the
code of the package.

Read-only; any thread.

Rejected: ``importlib.util.find_spec``.  It imports the packages above a module, so the user's
code would run in the launcher and in every agent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.machinery import PathFinder


def is_there(module: str, directory: str, environ: Mapping[str, str]) -> bool:
    """Whether this interpreter, started in a directory with an environment, finds a module."""
    name = module.partition(".")[0]
    given = filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))
    first = [directory, *(os.path.join(directory, path) for path in given)]
    if PathFinder.find_spec(name, first) is not None:
        return True
    finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
    return any(find is not None and find(name, None) is not None for find in finders)
