"""The options of one call: checked, and made into a door.

Threads: any.

Rejected: keyword parameters of ``dtm.options`` itself.  A word that is wrong would then be
a ``TypeError`` without a hint at the right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from dtm.door import Door
from dtm.errors import OptionError
from dtm.guard import Guard
from dtm.options import initargs, initializer, unknown
from dtm.run.initializing import Initializer, fresh_name
from dtm.tolerance import Result, Tolerance, itself

NAMES = (
    "chunksize", "window", "callback", "error_callback", "timeout", "on_error", "return_exceptions",
    "progress", "initializer", "initargs",
)  # fmt: skip

_NOT_GIVEN: Any = object()


def door(given: Mapping[str, Any]) -> Door:
    """Return a door with these options; see :func:`dtm.options`.

    Raises:
        OptionError: an option is unknown, or two contradict each other.
        ValueError, TypeError: a value is impossible.
    """
    for name in given:
        if name not in NAMES:
            raise unknown(name, NAMES, "option of a call")
    rest = dict(given)
    seconds = _seconds(rest.pop("timeout", None))
    on_error = rest.pop("on_error", _NOT_GIVEN)
    returned = rest.pop("return_exceptions", False)
    for name, value in (("return_exceptions", returned), ("progress", rest.get("progress"))):
        if value is not None and not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {value!r}")
    start = _initializer(rest)
    if returned and on_error is not _NOT_GIVEN:
        raise OptionError("give on_error or return_exceptions, not both")
    if seconds is None and not returned and on_error is _NOT_GIVEN and start is None:
        return Door(**rest)
    return _guarded(rest, seconds, on_error, start, returned=bool(returned))


def _initializer(rest: dict[str, Any]) -> Any:
    """Take the options of an initializer; return it as it travels, None if there is none."""
    function = initializer(rest.pop("initializer", None))
    arguments = initargs(rest.pop("initargs", ()))
    if function is None:
        if arguments:
            raise OptionError("initargs are given, and no initializer to call with them")
        return None
    return Initializer(function, arguments, fresh_name())


def _guarded(
    rest: dict[str, Any], seconds: float | None, on_error: Any, start: Any, *, returned: bool
) -> Door:
    tolerance = None
    if returned:
        tolerance = Tolerance(itself)
    elif on_error is not _NOT_GIVEN:
        tolerance = Tolerance(on_error if callable(on_error) else Result(on_error))
    guard = partial(Guard, net=tolerance is not None, seconds=seconds, start=start)
    return Door(**rest, guard=guard, tolerance=tolerance)


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"timeout must be a number of seconds above 0, not {value!r}")
    return float(value)
