"""Functions with odd names, items with odd representations, for what is made of a recorded run."""

import functools
import time

from dtm import dtm


def évaluer(_item):  # noqa: PLC2401 - what is tested
    time.sleep(2e-3)


def of_lines(_item):
    time.sleep(2e-3)


def undecodable(_item):
    time.sleep(2e-3)


class Called:
    def __call__(self, _item):
        time.sleep(2e-3)


class Shown:
    def __init__(self, text):
        self.text = text

    def __repr__(self):
        if self.text is None:
            raise RuntimeError("no representation")
        return self.text


of_lines.__name__ = of_lines.__qualname__ = "</script>\"q'\n<b>"
undecodable.__name__ = undecodable.__qualname__ = "file\udc80"
ITEMS = [None, 5, "", "<script>\n", "file\udc80", "\u202eright to left", "日本", "x" * 10_000]


def main():
    items = [Shown(each) for each in ITEMS]
    for function in (évaluer, of_lines, undecodable, Called(), functools.partial(évaluer)):
        dtm.map(function, items)
    dtm.map(lambda _item: time.sleep(2e-3), items)


dtm.start(main)
