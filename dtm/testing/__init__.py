"""Public means of testing: runs in virtual time, explored interleavings, conformance of managers.

The parts stand in the modules of this folder; all that is public has its name here.
"""

from dtm.testing.conformance import Factory, Scenario, check_communication_manager
from dtm.testing.faults import Crawl, Death, Delay, Echo, Fault, Freeze, Suspicion
from dtm.testing.held_locks import UnlockedAccessError, locks_checked
from dtm.testing.interleaving import Check, Explored, InterleavingError, Interleavings, Outcome
from dtm.testing.network import Network
from dtm.testing.programs import (
    Calls,
    Caught,
    Inner,
    Script,
    binomial,
    constant,
    critical_path,
    exponential,
    flat,
    geometric,
    measure,
    nested,
    random_tree,
    recorded,
    together,
    total_work,
)
from dtm.testing.report import Report
from dtm.testing.simulation import Simulation, check_invariants, greedy_makespan, random_simulation
from dtm.testing.virtual_time import compute

__all__ = [
    "Calls",
    "Caught",
    "Check",
    "Crawl",
    "Death",
    "Delay",
    "Echo",
    "Explored",
    "Factory",
    "Fault",
    "Freeze",
    "Inner",
    "InterleavingError",
    "Interleavings",
    "Network",
    "Outcome",
    "Report",
    "Scenario",
    "Script",
    "Simulation",
    "Suspicion",
    "UnlockedAccessError",
    "binomial",
    "check_communication_manager",
    "check_invariants",
    "compute",
    "constant",
    "critical_path",
    "exponential",
    "flat",
    "geometric",
    "greedy_makespan",
    "locks_checked",
    "measure",
    "nested",
    "random_simulation",
    "random_tree",
    "recorded",
    "together",
    "total_work",
]
