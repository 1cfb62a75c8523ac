"""Tasks that read what main sets after the start, and what must not be taken for that."""

import sys
import time
from functools import partial

from dtm import dtm

CONF = None
SCALE = 1
TABLE = {"k": 1}
COUNT = 0
MODEL = None
CACHE = {}
PROGRESS = 0


def factor():
    return CONF["k"] if CONF else 1


def model():
    global MODEL
    if MODEL is None:
        MODEL = object()
    return MODEL


def task(x, y):
    global COUNT
    COUNT += 1
    model()
    if x not in CACHE:
        CACHE[x] = time.sleep(0.002)
    return dtm.getWorkerId(), x * factor() * SCALE * TABLE["k"] + y


def set_all():
    global CONF, SCALE
    CONF, SCALE = {"k": 2}, 3
    TABLE["k"] = 4


def main():
    global PROGRESS
    if sys.argv[1] == "late":
        set_all()
    door = dtm.options(initializer=set_all) if sys.argv[1] == "call" else dtm
    began = time.perf_counter()
    ranks = set()
    while ranks != {0, 1} and time.perf_counter() - began < 60:
        PROGRESS += 1
        ranks |= {rank for rank, _ in door.map(partial(task, y=0), range(100))}
        ranks |= {rank for rank, _ in door.map(task, range(100), [0] * 100)}
    print(sorted(ranks))


if sys.argv[1] == "run":
    dtm.setOptions(initializer=set_all)
dtm.start(main)
