"""The files of a trace, read: one worker's events, and the texts between them.

:mod:`dtm.run.recording` says what stands in a file.  One that ends in the middle of a block, since
its worker was killed or the disk was full, is read up to its last whole event.

What can go wrong: a directory without traces, a file that is none, are a
:class:`dtm.errors.TraceError` which names the file.

Threads: any.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtm.errors import TraceError
from dtm.run.recording import BLOCK, CALL, EVENT, KEY, MAGIC, PART, RUN, STRIP, SUFFIX, WAIT

Events = NDArray[np.void]
FIELDS = np.dtype(
    [
        ("begin", "<f8"), ("end", "<f8"), ("own", "<f4"), ("index", "<u4"), ("number", "<u4"),
        ("count", "<u4"), ("peer", "<u2"), ("kind", "u1"), ("flag", "u1"),
    ]
)  # fmt: skip
assert FIELDS.itemsize == EVENT.size
INSTANTS = (CALL, PART, KEY)  # whose ``end`` is no time
APART_SECONDS = 60.0  # the clocks of two machines may be so far apart
_NAME = re.compile(rf"worker-(\d+){re.escape(SUFFIX)}")


class WorkerFile(NamedTuple):
    """What one worker has recorded.

    Attributes:
        header: who it was: rank, size, host, machine, clock ...
        events: in the order in which they were recorded, by the clock of its machine.
        texts: all others, by what they are about.
    """

    header: dict[str, Any]
    events: Events
    texts: dict[str, list[dict[str, Any]]]

    @property
    def rank(self) -> int:
        """Which worker it was."""
        return int(self.header["rank"])

    @property
    def zero(self) -> float:
        """What time it was, by the calendar, when its machine's clock stood at 0."""
        return float(self.header["time"]) - float(self.header["clock"])

    @property
    def span(self) -> tuple[float, float]:
        """When the worker began to record and when it recorded last, by its machine's clock."""
        events = self.events
        spans = ~np.isin(events["kind"], INSTANTS)
        opened = float(self.header["clock"])
        last = max(events["begin"].max(initial=opened), events["end"][spans].max(initial=opened))
        return float(events["begin"].min(initial=opened)), float(last)


def read_directory(directory: str) -> list[WorkerFile]:
    """Read the files of a run, in the order of the ranks.

    What is left over from other runs is passed by: files of ranks that the run of worker 0 did not
    have, and of workers that had ended before it began, or began after it had ended.

    Raises:
        TraceError: there are none, or one cannot be read.
    """
    try:
        names = sorted(filter(_NAME.fullmatch, os.listdir(directory)))
    except OSError as error:
        raise TraceError(f"cannot read the trace {directory}: {error.strerror}") from None
    if not names:
        raise TraceError(
            f"there is no trace in {directory}: no file worker-*{SUFFIX}; "
            "dtm run --trace DIR PROGRAM records one"
        )
    files = [read_file(os.path.join(directory, name)) for name in names]
    files.sort(key=lambda each: each.rank)
    size = files[0].header["size"]
    return [each for each in files if each.rank < size and _together(files[0], each)]


def _together(one: WorkerFile, other: WorkerFile) -> bool:
    """Whether two workers have recorded at the same time, as far as their clocks tell."""
    (began, ended), (start, end) = one.span, other.span
    if one.header["machine"] == other.header["machine"]:
        return start <= ended and began <= end
    ahead = other.zero - one.zero
    return start + ahead <= ended + APART_SECONDS and began <= end + ahead + APART_SECONDS


def read_file(path: str) -> WorkerFile:
    """Read the file of a worker.

    Raises:
        TraceError: it is none, or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise TraceError(f"cannot read the trace {path}: {error.strerror}") from None
    if not data.startswith(MAGIC):
        raise TraceError(f"{path} is no trace of this version of dtm: it begins otherwise")
    blocks, texts = [], dict[str, list[dict[str, Any]]]()
    for letter, block in _blocks(memoryview(data)[len(MAGIC) :]):
        if letter == b"E":
            blocks.append(np.frombuffer(block, FIELDS, len(block) // FIELDS.itemsize))
        elif letter == b"T":
            text = _text(bytes(block))
            if text is not None:
                texts.setdefault(text.pop("about"), []).append(text)
        else:
            raise TraceError(f"{path} is damaged: a block of kind {letter!r}")
    headers = texts.pop("worker", None)
    if headers is None:
        raise TraceError(f"{path} ends before it says whose it is")
    events = np.concatenate(blocks) if blocks else np.empty(0, FIELDS)
    if not (events["kind"] == RUN).any():
        events = np.concatenate((events, _cut_short(events, texts.get("under way", ()))))
    return WorkerFile(headers[0], events, texts)


def _cut_short(events: Events, said: Sequence[dict[str, Any]]) -> Events:
    """Return what a worker was in the middle of when it was killed, as far as it had noted that.

    It is taken to have lasted until the worker recorded last.
    """
    found: list[tuple[Any, ...]] = []
    if said:
        last = said[-1]
        spans = events[~np.isin(events["kind"], INSTANTS)]
        until = max(last["at"], float(spans["end"].max(initial=0.0)))
        if last["waits"] and not (spans["end"][spans["kind"] == WAIT] > last["waits"]).any():
            found.append((last["waits"], until, 0.0, 0, 0, 0, 0, WAIT, 0))
        strips = spans[spans["kind"] == STRIP]
        if last["call"] and not (strips["end"] > last["at"]).any():
            inner = strips["own"][strips["begin"] > last["since"]].sum()
            own = max(0.0, until - last["since"] - float(inner))
            found.append((last["since"], until, own, last["item"], last["call"], 1, 0, STRIP, 0))
    return np.array(found, FIELDS)


def _blocks(data: memoryview) -> list[tuple[bytes, memoryview]]:
    """Cut a file into its blocks; the last may be shorter than it says."""
    blocks, place = [], 0
    while place + BLOCK.size <= len(data):
        letter, length = BLOCK.unpack_from(data, place)
        place += BLOCK.size
        blocks.append((letter, data[place : place + length]))
        place += length
    return blocks


def _text(block: bytes) -> dict[str, Any] | None:
    """Return what a block of text says, None if it was cut short."""
    try:
        found: dict[str, Any] = json.loads(block)
    except ValueError:
        return None
    return found
