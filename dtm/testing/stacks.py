"""Where threads stand, as text: their stacks without the frames of those who control them.

Threads: any.
"""

from __future__ import annotations

import gc
import sys
import traceback
from types import FrameType
from typing import Any

_OWN = "dtm.testing."


def _outside(frame: FrameType | None) -> FrameType | None:
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_OWN):
        frame = frame.f_back
    return frame


def where() -> str:
    """Return the line of the calling thread that is not of the controlling code."""
    frame = _outside(sys._getframe(1))  # noqa: SLF001 - there is no other way
    if frame is None:
        return "its end"
    return f"{frame.f_globals.get('__name__', '?')}:{frame.f_lineno} {frame.f_code.co_name}"


def stack_of(ident: int) -> str:
    """Return the stack of a thread."""
    frame = _outside(sys._current_frames().get(ident))  # noqa: SLF001 - the one way
    return "".join(traceback.format_stack(frame)) if frame is not None else "  has ended\n"


def suspended_stacks() -> list[str]:
    """Return the stacks of all greenlets that are suspended, if greenlets are in use."""
    module: Any = sys.modules.get("greenlet")
    if module is None:
        return []
    found = []
    for thing in gc.get_objects():
        if isinstance(thing, module.greenlet):
            frame = _outside(thing.gr_frame)
            if frame is not None:
                found.append(f"{thing!r}:\n" + "".join(traceback.format_stack(frame)))
    return found
