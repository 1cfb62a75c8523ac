"""What ``printSummary`` prints at the end: functions, workers, the whole, and what to change.

Threads: any.

Rejected: a library for tables.  This is printed at the end of a run, by the root, on a terminal or
into the file of a batch system; aligned columns serve both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dtm.run.advice import advice, seconds
from dtm.run.figures import Figures, from_counters

Counted = Mapping[int, Mapping[str, float]]
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
_TIMES = (("busy", "busy"), ("resting", "idle"))
MOST_FUNCTIONS = 20
MOST_ABSENT = 5


def summary(counters: Counted, hosts: Sequence[str], duration: float) -> str:
    """Return the summary of a run that took so many seconds."""
    figures = from_counters(counters, duration, len(hosts))
    table = workers(counters, hosts)
    return "\n".join((_functions(figures), table, *_absent(counters, hosts), "", _whole(figures)))


def _absent(counters: Counted, hosts: Sequence[str]) -> list[str]:
    absent = [f"{rank} ({hosts[rank]})" for rank in range(len(hosts)) if rank not in counters]
    if not absent:
        return []
    more = f" and {len(absent) - MOST_ABSENT} more" if len(absent) > MOST_ABSENT else ""
    which = f"worker{'s' if len(absent) > 1 else ''} {', '.join(absent[:MOST_ABSENT])}{more}"
    return [f"no figures from {which}: not joined when the run ended, or lost"]


def workers(counters: Counted, hosts: Sequence[str]) -> str:
    """Return a line a worker, and the sums.

    Columns: seconds that it ran items, and that it had none; items run; steals asked and won as a
    thief; grants made and items given away as a victim; times a task parked; messages and bytes
    sent.
    """
    titles = [title for _, title in (*_TIMES, *_COLUMNS)]
    rows = [["worker", "host", *titles]]
    ranks = sorted(counters)
    rows += [[str(rank), hosts[rank], *_values([counters[rank]])] for rank in ranks]
    rows.append(["all", "", *_values(list(counters.values()))])
    return _aligned(rows)


def _values(counters: Sequence[Mapping[str, float]]) -> list[str]:
    times = [f"{sum(each.get(key, 0.0) for each in counters):.3f}" for key, _ in _TIMES]
    return times + [f"{sum(each[key] for each in counters):.0f}" for key, _ in _COLUMNS]


def _functions(figures: Figures) -> str:
    """Return a line a function, those with the most seconds first."""
    if not figures.functions:
        return ""
    rows = [["function", "items", "seconds", "mean", "deviation", "longest", "at item"]]
    by_seconds = sorted(figures.functions.items(), key=lambda each: -each[1].seconds)
    for name, each in by_seconds[:MOST_FUNCTIONS]:
        rows.append(
            [
                name, f"{each.items:.0f}", f"{each.seconds:.3f}", seconds(each.mean),
                seconds(each.deviation), seconds(each.longest), f"{each.longest_at:.0f}",
            ]
        )  # fmt: skip
    more = len(figures.functions) - MOST_FUNCTIONS
    text = _aligned(rows) + "\n"
    return text + (f"and {more} functions more\n" if more > 0 else "")


def _whole(figures: Figures) -> str:
    plural = "" if figures.workers == 1 else "s"
    return (
        f"{seconds(figures.duration)} on {figures.workers} worker{plural}; "
        f"efficiency {figures.efficiency:.0%}\n{advice(figures)[0]}"
    )


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (zip(row, widths, strict=True) for row in rows)
    return "\n".join("  ".join(cell.rjust(width) for cell, width in line) for line in lines)
