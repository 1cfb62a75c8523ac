"""Many workers in one process, in virtual time; :mod:`dtm.testing` is the door."""
