"""Says where it runs and what it was given; with a number, ends with that status at once."""

from __future__ import annotations

import json
import os
import sys

print(
    json.dumps(
        {
            "arguments": sys.argv[1:],
            "directory": os.getcwd(),
            "strange": os.environ.get("STRANGE"),
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "own": sorted(name for name in os.environ if name.startswith("SSH_CONN")),
            "module": __name__,
        }
    )
)
if sys.argv[1:2] and sys.argv[1].isdigit():
    sys.exit(int(sys.argv[1]))
