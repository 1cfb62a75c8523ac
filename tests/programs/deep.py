"""Tasks that use much of the stack themselves, nested; objects that exit when they are loaded."""

import sys
import time

from dtm import dtm


def below(frames, last):
    """Call ``last`` with so many frames of one's own beneath it."""
    return last() if frames == 0 else below(frames - 1, last)


def chain(depth, frames):
    if depth == 0:
        return 0
    return below(frames, lambda: 1 + dtm.map(chain, [depth - 1], [frames])[0])


class Leaver:
    """Exits whoever loads it."""

    def __init__(self, how):
        self.how = how

    def __reduce__(self):
        return leave, (self.how,)


def leave(how):
    raise how


def result(how):
    time.sleep(0.005)
    return Leaver(how) if how else 1


def argument(item):
    time.sleep(0.005)
    return 1


def nested(_):
    for frames in (5, 40, 300, 800):
        assert dtm.map(chain, [60], [frames]) == [60]
    return "nested"


def leaving(how):
    try:
        found = dtm.map(result, [None] * 30 + [how] + [None] * 10)
        assert [type(each) for each in found].count(Leaver) == 1  # it never left the root
    except dtm_error() as error:
        assert type(how).__name__ in str(error), error
    assert dtm.map(argument, [1] * 30 + [Leaver(how)] * 5 + [1] * 5) == [1] * 40
    for _ in range(3):
        assert dtm.map(result, [None] * 60) == [1] * 60
    return "left"


def dtm_error():
    from dtm import SerializationError

    return SerializationError


def main(what):
    if what == "nested":
        print(nested(0))
    else:
        print(leaving({"exit": SystemExit(9), "interrupt": KeyboardInterrupt()}[what]))


if __name__ == "__main__":
    dtm.start(main, what=sys.argv[1])
