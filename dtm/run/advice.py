"""What a user should change, in sentences, the most worth first.

Each rule looks at one way to lose core-seconds and says how many of them its change would give
back at most; what costs less than ``LEAST_LOSS`` of a run is not said.

Threads: any.

Rejected: thresholds for each figure alone.  A serial part of a second matters in a run of three
and not in one of an hour; only the share of the core-seconds compares them.
"""

from __future__ import annotations

from dtm.run.figures import Figures, FunctionFigures

LEAST_LOSS = 0.03
GOOD = 0.85
SMALL_SECONDS = 20e-6


def advice(figures: Figures) -> list[str]:
    """Return what to change, most worth first; one sentence at least."""
    found = [rule(figures) for rule in _RULES]
    found.sort(key=lambda each: -each[0])
    said = [sentence for loss, sentence in found if loss >= LEAST_LOSS and sentence]
    share = f"{figures.efficiency:.0%} of the core time ran the program's own code"
    if figures.workers == 1:
        return [f"{share}; there was one worker, so nothing ran in parallel"]
    if figures.efficiency >= GOOD:
        said.insert(0, f"{share}: there is little to gain")
    return said or [f"{share}; no single cause stands out"]


def seconds(value: float) -> str:
    """Write a time with the unit that suits it."""
    for unit, least in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= least:
            return f"{value / least:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def _serial(figures: Figures) -> tuple[float, str]:
    loss = figures.idle_while_serial / figures.capacity
    return loss, (
        f"{loss:.0%} of the core time is lost while main computes by itself and the other "
        f"workers wait ({seconds(figures.serial)} of {seconds(figures.duration)}): "
        "make tasks of that work, or do less of it"
    )


def _one_item(figures: Figures) -> tuple[float, str]:
    """One long item, which the others wait for."""
    if figures.alone is not None:
        name, index, item, waited = figures.alone
        share = waited / max(figures.duration, 1e-9)
        loss = waited * (figures.workers - 1) / figures.capacity
    else:
        name, longest = _most_long(figures)
        index, item = int(longest.longest_at), longest.longest
        ideal = longest.seconds / figures.workers
        waited = min(item - ideal, figures.idle_otherwise / max(1, figures.workers - 1))
        if longest.items <= 1 or item < 2 * ideal / max(1.0, longest.items / figures.workers):
            waited = 0.0
        share = waited / max(figures.duration, 1e-9)
        loss = waited * (figures.workers - 1) / figures.capacity
    return loss, (
        f"{share:.0%} of the time all other workers wait for one item of {name} "
        f"(index {index}, {seconds(item)}): order long items first, or split it"
    )


def _most_long(figures: Figures) -> tuple[str, FunctionFigures]:
    by_length = sorted(figures.functions.items(), key=lambda each: -each[1].longest)
    return by_length[0] if by_length else ("", FunctionFigures())


def _few_items(figures: Figures) -> tuple[float, str]:
    """Fewer items than workers."""
    main = sorted(figures.functions.items(), key=lambda each: -each[1].seconds)
    if not main or main[0][1].items >= figures.workers:
        return 0.0, ""
    name, each = main[0]
    return figures.idle_otherwise / figures.capacity, (
        f"{name} has {each.items:.0f} items for {figures.workers} workers, so some have nothing "
        "to do: split the items, or start fewer workers"
    )


def _small_items(figures: Figures) -> tuple[float, str]:
    """Items so short that dtm's own work counts."""
    small = [each for each in figures.functions.items() if each[1].mean < SMALL_SECONDS]
    if not small:
        return 0.0, ""
    name, each = max(small, key=lambda pair: pair[1].items)
    loss = figures.overhead / figures.capacity
    return loss, (
        f"{loss:.0%} of the core time is dtm's own work, and the {each.items:.0f} items of "
        f"{name} take {seconds(each.mean)} each: let one item do more"
    )


def _pickling(figures: Figures) -> tuple[float, str]:
    loss = figures.pickling / figures.capacity
    return loss, (
        f"{loss:.0%} of the core time goes into pickling what tasks are given and return: "
        "send less (indices instead of data, what changes instead of the whole)"
    )


def _imbalance(figures: Figures) -> tuple[float, str]:
    """Idle time that no other rule explains."""
    explained = max(_one_item(figures)[0], _few_items(figures)[0])
    loss = figures.idle_otherwise / figures.capacity - explained
    return loss, (
        f"{loss:.0%} of the core time workers wait because the ends of calls do not meet: "
        "make one call of several that follow each other (map_async, then waitAll), or smaller "
        "items"
    )


def _starting(figures: Figures) -> tuple[float, str]:
    loss = figures.starting / figures.capacity
    each = figures.starting / max(1, figures.workers - 1)
    return loss, (
        f"{loss:.0%} of the core time passes before the workers are there ({seconds(each)} each): "
        "import less at the top of the program, or give the run more to do"
    )


_RULES = (_serial, _one_item, _few_items, _small_items, _pickling, _imbalance, _starting)
