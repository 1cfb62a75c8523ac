"""Another name for :mod:`dtm.testing.conformance`, what a communication manager owes."""

from dtm.testing.conformance import Factory, Scenario, Verdict, check_communication_manager

__all__ = ["Factory", "Scenario", "Verdict", "check_communication_manager"]
