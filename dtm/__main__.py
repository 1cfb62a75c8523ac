"""The command ``python -m dtm``, installed as ``dtm`` too: run a program with options.

``python -m dtm -n 4 prog.py --args`` runs ``prog.py`` as ``python prog.py --args`` would, with four
workers; ``python -m dtm --hosts FILE prog.py`` runs it on other machines.  What there is
besides stands in :mod:`dtm.commands`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dtm.commands import execute


def console(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    status = execute(sys.argv[1:] if arguments is None else arguments)
    if status:
        sys.exit(status)


if __name__ == "__main__":
    console()
