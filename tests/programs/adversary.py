"""Random trees of tasks under a balancer that steals anything, from anywhere, at any time.

Usage: adversary.py SEED TREES.  Each tree is run and compared with what it adds up to.
"""

import random
import sys
import threading
import time

from dtm import dtm
from dtm.core.balancer import Balancer


class Chaotic(Balancer):
    """Gives away random parts of random ranges, whether worth it or not."""

    def _portion(self, work, weight, shares, now):
        ranges = [each for each in work.oldest(64) if not each.pinned]
        if not ranges or not (self.running or work.several()) or self._random.random() < 0.3:
            return []
        parts = []
        for each in self._random.sample(ranges, self._random.randint(1, min(3, len(ranges)))):
            left = each.left
            if not self.running:
                left -= 1
            if left > 0:
                each.hi = each.lo + each.left
                parts.append(each.take_back(self._random.randint(1, left)))
        return parts


def nap(chance):
    if chance.random() < 0.2:
        time.sleep(chance.random() * 0.003)


def size(seed, depth):
    """What a tree adds up to, computed without dtm."""
    chance = random.Random(seed)
    nap(random.Random(0))
    kind = chance.randrange(6)
    if depth == 0 or kind == 0:
        return 1
    children = [(chance.getrandbits(40), depth - 1) for _ in range(chance.randint(1, 4))]
    return 1 + sum(size(*child) for child in children)


def grow(seed, depth):
    """The same with dtm, each node waiting in one of many ways."""
    chance = random.Random(seed)
    kind = chance.randrange(6)
    nap(random.Random(time.perf_counter_ns()))
    if depth == 0 or kind == 0:
        return 1
    children = [(chance.getrandbits(40), depth - 1) for _ in range(chance.randint(1, 4))]
    if kind == 1:
        return 1 + sum(dtm.map(grow, *zip(*children)))
    if kind == 2:
        waiting = [dtm.apply_async(grow, *child) for child in children]
        return 1 + sum(each.get() for each in reversed(waiting))
    if kind == 3:
        total = 1
        waiting = [dtm.apply_async(grow, *child) for child in children]
        while waiting:
            ended = dtm.waitAny(waiting)
            waiting.remove(ended)
            total += ended.get()
        return total
    if kind == 4:
        return 1 + sum(dtm.imap_unordered(grow, *zip(*children)))
    results = [dtm.map_async(grow, [child[0]], [child[1]]) for child in children]
    inner = dtm.apply(grow, *children[0]) if chance.random() < 0 else 0
    dtm.waitAll(results)
    return 1 + inner + sum(result.get()[0] for result in results)


def main(seed, trees):
    assert threading.current_thread() is threading.main_thread()
    for number in range(trees):
        name = seed * 1_000_003 + number
        found, expected = grow(name, 6), size(name, 6)
        assert found == expected, (name, found, expected)
    print(f"{trees} trees")


if __name__ == "__main__":
    dtm.setOptions(loadBalancer=Chaotic, taskGranularity=1e-9)
    dtm.start(main, int(sys.argv[1]), int(sys.argv[2]))
