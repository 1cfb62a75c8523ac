"""The table that ``printSummary`` prints: what each worker did."""

from __future__ import annotations

from collections.abc import Sequence

_COLUMNS = (
    ("items", "items"),
    ("steals_asked", "asked"),
    ("steals_won", "won"),
    ("grants", "granted"),
    ("items_given", "given"),
    ("parked", "parked"),
    ("messages", "messages"),
    ("bytes", "bytes"),
)


def table(counters: dict[int, dict[str, float]], hosts: Sequence[str]) -> str:
    """Return the counters as text: a line a worker, and the sums.

    Columns: items run; steals asked and won as a thief; grants made and items given
    away as a victim; times a task parked; messages and bytes sent.
    """
    rows = [["worker", "host", *(title for _, title in _COLUMNS)]]
    for rank in sorted(counters):
        values = counters[rank]
        rows.append([str(rank), hosts[rank], *(f"{values[key]:.0f}" for key, _ in _COLUMNS)])
    sums = (f"{sum(each[key] for each in counters.values()):.0f}" for key, _ in _COLUMNS)
    rows.append(["all", "", *sums])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (zip(row, widths, strict=True) for row in rows)
    return "\n".join("  ".join(cell.rjust(width) for cell, width in line) for line in lines)
