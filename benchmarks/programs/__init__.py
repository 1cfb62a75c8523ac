"""The programs that are measured: ``python benchmarks/programs/NAME.py LIBRARY``."""
