"""The seeds of this run's simulations: fresh ones each time, or those that are asked for.

``DTM_SIMULATION_FIRST_SEED`` and ``DTM_SIMULATION_SEEDS`` say which.
"""

from __future__ import annotations

import os
import secrets

SEEDS = int(os.environ.get("DTM_SIMULATION_SEEDS", "1000"))
FIRST_SEED = int(os.environ.get("DTM_SIMULATION_FIRST_SEED", secrets.randbelow(1 << 40)))
REPLAY = (
    "DTM_SIMULATION_FIRST_SEED={} DTM_SIMULATION_SEEDS={} "
    "python -m pytest tests/test_simulation.py -k every_law"
)
