"""Which items of a list that was pickled as a whole cannot be loaded, and the others.

Items travel together, in one pickle, since each may refer to what came before it.  When one of them
cannot be loaded (its ``__setstate__`` raises, its class is not there) the C unpickler
gives up the whole list.  Here the same stream is read again by the unpickler in Python, which
puts a placeholder where a step fails and goes on.  An item is *spoiled* if a step in it failed or
if it refers to a placeholder.

Where items end in the stream is found by counting the stack: item ``i`` ends behind the last
step after which the stack is as high as item ``i`` stands.

Threads: any.  Slow, and only used when loading has failed.

Rejected: a pickle for each item: classes, strings and shared parts would be sent with each.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable, Sequence
from types import BuiltinFunctionType, FunctionType
from typing import Any

from dtm.comm.base import Frame

_PUSHES = frozenset("\x93c\x81\x92\x97i\x82\x83\x84o")  # these take all they need and push one
_FILLS = frozenset("baesu\x90")  # these change what lies below
_GETS = frozenset("hjg")
_MEMOIZE = "\x94"
_WITHOUT_PARTS = (str, bytes, type, FunctionType, BuiltinFunctionType)

Step = Callable[[Any], None]


class Spoiled:
    """Stands where something could not be loaded, and knows why."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _unguarded(step: Step, reader: Any) -> None:
    step(reader)


def salvage(
    frames: Sequence[Frame], guarded: Callable[[Step, Any], Any] = _unguarded
) -> tuple[list[Any], dict[int, BaseException]] | None:
    """Return the items of a list, and the errors of those that cannot be loaded, by place.

    Each step is called by ``guarded``, which turns exits into errors.
    None if the stream is no list, or if it cannot be told which items are to blame.
    """
    ends = _ends(bytes(frames[0]))
    if ends is None:
        return None
    reader = _Reader(frames, ends, guarded)
    try:
        values = reader.load()
    except Exception:  # noqa: BLE001 - what follows a placeholder may fail in any way
        return None
    if type(values) is not list or len(values) != len(ends) or not reader.spoiled:
        return None
    return values, dict(sorted(reader.spoiled.items()))


class _Reader(pickle._Unpickler):  # noqa: SLF001 - the one in Python
    """Reads on when a step fails.

    Attributes:
        spoiled: the errors of the items that cannot be loaded, by their places.
    """

    def __init__(
        self, frames: Sequence[Frame], ends: list[int], guarded: Callable[[Step, Any], Any]
    ) -> None:
        super().__init__(io.BytesIO(frames[0]), buffers=list(frames[1:]))
        self._guarded = guarded
        self.spoiled: dict[int, BaseException] = {}
        self._ends = ends
        self._steps = 0
        self._item = 0
        self._born: dict[int, int] = {}  # id of what the memo keeps -> the item it came with
        steps: dict[int, Step] = pickle._Unpickler.dispatch  # noqa: SLF001 - as above
        tolerant = {code: self._tolerant(chr(code), step) for code, step in steps.items()}
        self.dispatch = tolerant  # type: ignore[misc]

    def _tolerant(self, code: str, step: Step) -> Step:
        def run(reader: Any) -> None:
            while self._item < len(self._ends) and self._steps > self._ends[self._item]:
                self._item += 1
            self._steps += 1
            try:
                self._guarded(step, reader)
            except Exception as error:  # users' code may raise anything on load
                if code == ".":  # the end of the stream
                    raise
                self._spoil(reader, code, error)
            else:
                if code == _MEMOIZE:
                    self._born.setdefault(id(reader.stack[-1]), self._item)
                elif code in _GETS:
                    self._look(reader.stack[-1])

        return run

    def _spoil(self, reader: Any, code: str, error: Exception) -> None:
        placeholder, stack, memo = Spoiled(error), reader.stack, reader.memo
        if code in _PUSHES:
            reader.append(placeholder)
        elif stack:
            if code in _FILLS:  # what is half filled may be known to the memo
                memo.update({key: placeholder for key, known in memo.items() if known is stack[-1]})
            stack[-1] = placeholder
        else:
            raise error
        self.spoiled.setdefault(self._item, error)

    def _look(self, got: Any) -> None:
        """Spoil the item under way if it refers to what is spoiled, or may contain it."""
        if isinstance(got, Spoiled):
            self.spoiled.setdefault(self._item, got.error)
        elif not isinstance(got, _WITHOUT_PARTS):
            error = self.spoiled.get(self._born.get(id(got), -1))
            if error is not None:
                self.spoiled.setdefault(self._item, error)


def _ends(stream: bytes) -> list[int] | None:
    """Return for each item of the list the number of the step that completes it.

    None if the stream is not that of one list.
    """
    heights: list[int] = []
    marks: list[int] = []
    height, ends, batch = 0, [], 0
    for number, (code, _, _) in enumerate(pickletools.genops(stream)):
        before, after = code.stack_before, code.stack_after
        if code.name == "MARK":
            marks.append(height)
        elif pickletools.markobject in before or code.name == "POP_MARK":
            if not marks:
                return None
            bottom = marks.pop()
            if code.name == "APPENDS" and bottom == 1 and not marks:
                ends += _batch(heights, batch, height - bottom)
            below = len(before) - 2 if pickletools.markobject in before else 0
            height = bottom - below + len(after)
            if height == 1:
                batch = number + 1
        elif code.name == "APPEND" and height == 2 and not marks:
            ends.append(number - 1)
            height = 1
            batch = number + 1
        else:
            height += len(after) - len(before)
        heights.append(height)
        if number == 1 and code.name not in ("FRAME", "EMPTY_LIST"):
            return None
    return ends


def _batch(heights: list[int], start: int, count: int) -> list[int]:
    """Return the last steps at which the stack was 1 to ``count`` above the list."""
    found: dict[int, int] = {}
    for number in range(start, len(heights)):
        found[heights[number] - 1] = number
    return [found[place] for place in range(1, count + 1)]
