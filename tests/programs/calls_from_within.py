"""Objects that call dtm while they are pickled or loaded, and maps after that."""

from __future__ import annotations

from time import sleep, thread_time
from typing import Any

from dtm import dtm


class Calling:
    """Makes a call when it is pickled."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        return Calling, (dtm.apply(abs, self.number),)


class Waiting:
    """Waits for a call when it is pickled."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        for call in pending:
            call.wait(timeout=5)
        return Waiting, (self.number,)


pending: list[Any] = []


def number_of(item: Any) -> int:
    end = thread_time() + 2e-3
    while thread_time() < end:
        pass
    return int(getattr(item, "number", item))


def main() -> None:
    pending.append(dtm.apply_async(sleep, 3))
    for kind in (Calling, Waiting, int):
        for _ in range(3):
            print(kind.__name__, dtm.map(number_of, [kind(n) for n in range(60)]) == [*range(60)])


dtm.start(main)
