"""Quantities that people give: numbers and counts, read with an error that names the argument.

An error says which argument it is, what was given, and what is allowed.  What is no number at
all is a ``TypeError``, a number that is not allowed a ``ValueError``; a truth value is no number.

Threads: any.
"""

from __future__ import annotations

from math import inf, isfinite, isnan
from numbers import Integral, Real


def number(
    name: str,
    value: object,
    *,
    least: float = 0.0,
    most: float = inf,
    positive: bool = False,
    endless: bool = False,
) -> float:
    """Return a number as a float.

    Args:
        name: of the argument.
        value: what was given.
        least: the smallest that is allowed.
        most: the largest.
        positive: whether 0 is refused too.
        endless: whether infinity is allowed.
    """
    allowed = "a number above 0" if positive else f"a number of at least {least:g}"
    if most < inf:
        allowed += f" and at most {most:g}"
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be {allowed}, not {value!r}")
    read = float(value)
    refused = isnan(read) or not least <= read <= most or (positive and read <= 0.0)
    if refused or not (endless or isfinite(read)):
        raise ValueError(f"{name} must be {allowed}, not {value!r}")
    return read


def count(name: str, value: object, *, least: int = 0, most: int | None = None) -> int:
    """Return a whole number."""
    allowed = f"a whole number of at least {least}"
    if most is not None:
        allowed += f" and at most {most}"
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be {allowed}, not {value!r}")
    read = int(value)
    if read < least or (most is not None and read > most):
        raise ValueError(f"{name} must be {allowed}, not {value!r}")
    return read
