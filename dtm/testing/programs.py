"""Programs to simulate: trees of tasks with durations.

A task is either a number, the seconds that a *leaf* takes, or an :class:`Inner`
task, whose ``steps`` say what it does one after the other: a number of seconds of
work, a sequence of tasks (a ``map`` over them, for which it waits), :class:`Calls`
(an ``apply_async`` of each, and then it waits for all), :class:`Caught` (a ``map`` of
which it catches the exception), or an exception, which it raises.  A program is the ``main`` of
a run: an inner task too.

The value of a task is the task itself, so whoever collects results can see that
each came home once and to its place.

Trees are grown when they are walked, so a tree of millions of nodes takes no
memory: a node knows its seed and nothing else.

Rejected: task bodies as generators only.  A leaf that is a plain float costs the
simulator a tenth of the time, and most tasks are leaves.
"""

from __future__ import annotations

import reprlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from numbers import Real
from random import Random
from typing import Any

from dtm.options import count as whole
from dtm.options import number


class Calls(tuple[Any, ...]):
    """Tasks that are called one by one, without waiting in between."""

    __slots__ = ()


class Caught(tuple[Any, ...]):
    """Tasks that are mapped over by a task that goes on if one of them raises."""

    __slots__ = ()


Step = float | Sequence[Any] | BaseException
_NEVER = float("inf")


class Inner:
    """A task that does more than take time."""

    __slots__ = ()

    def steps(self) -> Iterator[Step]:
        """Yield seconds of work, tasks to map over or to call, or an exception to raise."""
        raise NotImplementedError


Task = float | Inner


class Script(Inner):
    """A task with given steps."""

    __slots__ = ("_steps",)

    def __init__(self, *steps: Step) -> None:
        self._steps = tuple(
            read_step(step, place, type(self).__name__) for place, step in enumerate(steps)
        )

    def steps(self) -> Iterator[Step]:
        """Yield the given steps."""
        return iter(self._steps)

    def __repr__(self) -> str:
        return f"Script{self._steps!r}"


def read_step(step: Any, place: int, task: object) -> Step:
    """Return a step of a task as a simulated worker takes it: all seconds are floats.

    Raises:
        TypeError: it is no step, or a task in it is none; the message names it.
        ValueError: it takes an impossible time.
    """
    if isinstance(step, BaseException) or (type(step) is float and _is_task(step)):
        return step
    if isinstance(step, Sequence) and all(map(_is_task, step)):
        return step
    name = f"step {place} of {task if isinstance(task, str) else reprlib.repr(task)}"
    if isinstance(step, Real):
        return number(name, step)
    if isinstance(step, (str, bytes)) or not isinstance(step, Sequence):
        allowed = "seconds, a sequence of tasks, or an exception"
        raise TypeError(f"{name} must be {allowed}, not {step!r}")
    read = [_read_task(each, f"task {index} of {name}") for index, each in enumerate(step)]
    return type(step)(read) if isinstance(step, (Calls, Caught)) else read


def _is_task(task: Any) -> bool:
    return 0.0 <= task < _NEVER if type(task) is float else isinstance(task, Inner)


def _read_task(task: Any, name: str) -> Task:
    if isinstance(task, Inner):
        return task
    if not isinstance(task, Real):
        raise TypeError(f"{name} must be seconds or a Script or another Inner task, not {task!r}")
    return number(name, task)


def flat(count: int, duration: Callable[[Random], float], seed: int) -> Script:
    """Return one map at the root over ``count`` leaves whose durations follow a distribution."""
    random = Random(seed)
    whole("count", count)
    return Script([duration(random) for _ in range(count)])


def exponential(mean: float) -> Callable[[Random], float]:
    """Return the exponential distribution."""
    number("mean", mean, positive=True)
    return lambda random: random.expovariate(1.0 / mean)


def constant(seconds: float) -> Callable[[Random], float]:
    """Return the distribution of what always takes as long."""
    number("seconds", seconds)
    return lambda _: seconds


def recorded(durations: Sequence[float]) -> Script:
    """Return one map over leaves with the given durations."""
    return Script(list(durations))


def nested(widths: Sequence[int], duration: float) -> Inner:
    """Return a tree with ``widths[d]`` children at depth ``d``; every task takes ``duration``."""
    number("duration", duration)
    for width in widths:
        whole("widths", width)
    if not widths:
        return Script(duration)
    children = [nested(widths[1:], duration) if widths[1:] else duration for _ in range(widths[0])]
    return Script(duration, children)


_MASK = (1 << 64) - 1


def _mix(value: int) -> int:
    """Scramble 64 bits (the finalizer of splitmix64)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


class Geometric(Inner):
    """A node of UTS's geometric tree with a fixed depth: child counts vary about ``branch``."""

    __slots__ = ("_bounds", "_duration", "_height", "_seed")

    def __init__(self, seed: int, height: int, duration: float, bounds: list[float]) -> None:
        self._seed = seed
        self._height = height
        self._duration = duration
        self._bounds = bounds

    def count(self) -> int:
        """Return how many children this node has."""
        if self._height == 0:
            return 0
        return bisect_left(self._bounds, _mix(self._seed) / (_MASK + 1.0))

    def steps(self) -> Iterator[Step]:
        """Work, then map over the children."""
        yield self._duration
        count = self.count()
        if count:
            yield [
                Geometric(_mix(self._seed + child), self._height - 1, self._duration, self._bounds)
                for child in range(1, count + 1)
            ]


def geometric(seed: int, height: int, branch: float, duration: float) -> Script:
    """Return UTS's geometric tree: ``branch`` children on the average down to ``height``."""
    whole("height", height)
    number("branch", branch)
    number("duration", duration)
    fail = branch / (1.0 + branch)
    bounds = list(accumulate((1.0 - fail) * fail**k for k in range(200)))
    return Script([Geometric(_mix(seed), height, float(duration), bounds)])


class Binomial(Inner):
    """A node of UTS's binomial tree: ``width`` children with a probability, else none."""

    __slots__ = ("_chance", "_duration", "_seed", "_width")

    def __init__(self, seed: int, width: int, chance: float, duration: float) -> None:
        self._seed = seed
        self._width = width
        self._chance = chance
        self._duration = duration

    def steps(self) -> Iterator[Step]:
        """Work, then map over the children."""
        yield self._duration
        if _mix(self._seed) < self._chance * _MASK:
            yield self.children(self._width)

    def children(self, count: int) -> list[Binomial]:
        """Return the first ``count`` children."""
        return [
            Binomial(_mix(self._seed + child), self._width, self._chance, self._duration)
            for child in range(1, count + 1)
        ]


def binomial(seed: int, roots: int, width: int, chance: float, duration: float) -> Script:
    """Return UTS's binomial tree: ``roots`` children of the root, then all or nothing.

    ``width * chance`` must be below 1, or the tree may have no end.
    """
    whole("roots", roots)
    whole("width", width)
    number("chance", chance, most=1.0)
    duration = number("duration", duration)
    if width * chance >= 1.0:
        raise ValueError(f"width * chance must be below 1, or there is no end: {width * chance:g}")
    return Script(duration, Binomial(_mix(seed), width, chance, duration).children(roots))


def random_tree(
    seed: int, tasks: int, duration: float, failing: float = 0.0, caught: float = 0.0
) -> Script:
    """Return a tree of about ``tasks`` tasks of random shape; some raise, some catch that."""
    whole("tasks", tasks, least=1)
    number("duration", duration, positive=True)
    number("failing", failing, most=1.0)
    number("caught", caught, most=1.0)
    random = Random(seed)

    def grow(budget: int, depth: int) -> Task:
        seconds = random.expovariate(1.0 / duration)
        if budget <= 1 or depth > 8:
            if random.random() < failing:
                return Script(seconds, ValueError("planned"))
            return seconds
        steps: list[Step] = [seconds]
        budget -= 1
        while budget > 0:
            width = min(budget, random.choice((1, 2, 3, 8, 40)))
            each, rest = divmod(budget if random.random() < 0.7 else width, width)
            children = [grow(each + (child < rest), depth + 1) for child in range(width)]
            together: Step = Calls(children) if random.random() < 0.2 else children
            if caught and random.random() < caught:
                together = Caught(children)
            steps += [together, random.expovariate(1.0 / duration)]
            budget -= each * width + rest
        return Script(*steps)

    root = grow(tasks, 0)
    return root if isinstance(root, Script) else Script([root])


def total_work(task: Task) -> float:
    """Return the seconds of work of a task and of all below it."""
    return measure(task)[1]


def measure(task: Task) -> tuple[int, float]:
    """Return how many tasks there are, and their seconds of work."""
    count, seconds, stack = 0, 0.0, [task]
    while stack:
        task = stack.pop()
        count += 1
        if not isinstance(task, Inner):
            seconds += number("task", task)
            continue
        for step in task.steps():
            if isinstance(step, (int, float)):
                seconds += step
            elif not isinstance(step, BaseException):
                stack.extend(step)
    return count, seconds


def together(programs: Iterable[Inner]) -> Script:
    """Return one program that runs several at once: each is a task of its own, called by ``main``.

    Raises:
        TypeError: one of them is no program.
    """
    return Script(Calls(programs))


def critical_path(task: Task) -> float:
    """Return the seconds that a task takes with as many workers as it can use."""
    # A frame is [steps, seconds up to here, the longest task of the map that is walked]
    stack: list[tuple[Iterator[Step], list[float], Iterator[Any]]] = []
    if not isinstance(task, Inner):
        return number("task", task)
    stack.append((task.steps(), [0.0, 0.0], iter(())))
    while True:
        steps, sums, tasks = stack[-1]
        child = next(tasks, None)
        if isinstance(child, Inner):
            stack.append((child.steps(), [0.0, 0.0], iter(())))
            continue
        if child is not None:
            sums[1] = max(sums[1], number("task", child))
            continue
        sums[0] += sums[1]
        sums[1] = 0.0
        step = next(steps, None)
        if isinstance(step, (int, float)):
            sums[0] += step
        elif step is None or isinstance(step, BaseException):
            stack.pop()
            if not stack:
                return sums[0]
            above = stack[-1][1]
            above[1] = max(above[1], sums[0])
        else:
            stack[-1] = (steps, sums, iter(step))
