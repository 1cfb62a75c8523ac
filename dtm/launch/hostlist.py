"""Lists of hosts as batch systems write them: ``n[01-03,7],gpu[1-2]-ib0``.

Slurm and Flux write them, each can read the other's.  A bracket holds numbers and
ranges; the width of a range's first number is the least width of all of them; a
name may hold several brackets.

Pure; any thread.

Rejected: asking ``scontrol show hostnames``, which containers do not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice, product

from dtm.errors import OptionError

MOST = 100_000

_ITEM = re.compile(r"(?:[^,\[\]]|\[[^\[\]]*\])+")
_PIECE = re.compile(r"\[([^\[\]]*)\]|([^\[\]]+)")
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_NUMBERED = re.compile(r"(.*?)([0-9]{1,18})([^0-9]*)", re.DOTALL)


def expand(text: str) -> list[str]:
    """Return the names in a list, in its order.

    Raises:
        OptionError: it is not such a list, or is of more than 100,000 hosts.
    """
    names: list[str] = []
    for item in _items(text):
        pieces = [_alternatives(*match.groups()) for match in _PIECE.finditer(item)]
        named = ("".join(parts) for parts in product(*pieces))
        names += islice(named, MOST + 1)
        if len(names) > MOST:
            raise OptionError(f"there are more than {MOST} hosts in {text[:60]!r}")
    return names


def compress(names: Iterable[str]) -> str:
    """Return names as a list, which expands to the same names in the same order.

    Neighbours that differ in their last number alone share a bracket.
    """
    groups: list[tuple[str, str, list[str]]] = []
    for name in names:
        match = _NUMBERED.fullmatch(name)
        before, number, after = match.groups() if match else (name, "", "")
        if groups and number and groups[-1][2][0] and (before, after) == groups[-1][:2]:
            groups[-1][2].append(number)
        else:
            groups.append((before, after, [number]))
    return ",".join(_group(*group) for group in groups)


def _items(text: str) -> Iterator[str]:
    """Split at the commas outside of brackets."""
    place = 0
    while place < len(text):
        match = _ITEM.match(text, place)
        if match is None:
            raise OptionError(f"{text!r} is no list of hosts, from {text[place:]!r} on")
        yield match[0]
        place = match.end() + 1
        if match.end() < len(text) and (text[match.end()] != "," or place == len(text)):
            raise OptionError(f"{text!r} is no list of hosts, from {text[match.end() :]!r} on")


def _alternatives(ranges: str | None, literal: str | None) -> list[str]:
    if ranges is None:
        return [literal or ""]
    found: list[str] = []
    for part in ranges.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise OptionError(f"[{ranges}] is no range of numbers")
        first, last = match[1], match[2] or match[1]
        if int(last) < int(first):
            raise OptionError(f"the range {part} in [{ranges}] runs backwards")
        if int(last) - int(first) >= MOST:
            raise OptionError(f"the range {part} is of more than {MOST} hosts")
        width = len(first)
        found += (f"{number:0{width}d}" for number in range(int(first), int(last) + 1))
    return found


def _group(before: str, after: str, numbers: list[str]) -> str:
    if len(numbers) == 1:
        return f"{before}{numbers[0]}{after}"
    runs: list[list[str]] = []
    for number in numbers:
        if runs and number == f"{int(runs[-1][-1]) + 1:0{len(runs[-1][0])}d}":
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = (run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"{before}[{','.join(parts)}]{after}"
