"""An evolution by DEAP, 300 individuals for 15 generations: how much faster than by the loop.

``genome=list``: lists of 30 floats.  ``genome=gp``: trees with constants from a lambda, of
a set made where the run makes it.  The classes are made at run time, as DEAP's ``creator`` does.
``cost`` is the processor time of an evaluation in microseconds.  Whole evolutions are timed,
selection and variation included, by the loop and by the library in turns, with the same seed.

Without a library: what the machine allows.  As many evolutions as there are workers run at once,
each by the loop in a process of its own, and the figure is how much more is done in the same time.
Cores that share a cache, a clock or an execution unit give less than their number.
"""

from __future__ import annotations

import operator
import random
import warnings
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from statistics import median
from time import perf_counter
from typing import Any

from deap import algorithms, base, creator, gp, tools

from benchmarks.programs.harness import Request, Result, play, result
from benchmarks.programs.libraries import Library, Serial
from benchmarks.programs.work import process_ids, spin, turns_in

INDIVIDUALS = 300
GENERATIONS = 15
LENGTH = 30

Map = Callable[..., Any]

Process = get_context("fork").Process  # which has the classes that were made at run time


def evaluate_list(individual: Any, turns: int) -> tuple[float]:
    spin(turns)
    return (sum(individual),)


def evaluate_tree(individual: Any, turns: int) -> tuple[float]:
    spin(turns)
    return (float(len(individual)),)


def of_lists(turns: int) -> base.Toolbox:
    toolbox = base.Toolbox()
    toolbox.register("individual", tools.initRepeat, creator.ListOfFloats, random.random, LENGTH)
    toolbox.register("mate", tools.cxTwoPoint)
    toolbox.register("mutate", tools.mutGaussian, mu=0.0, sigma=0.2, indpb=0.1)
    toolbox.register("evaluate", evaluate_list, turns=turns)
    return toolbox


def of_trees(turns: int) -> base.Toolbox:
    primitives = gp.PrimitiveSet("MAIN", 1)
    for function, arity in ((operator.add, 2), (operator.mul, 2), (operator.neg, 1)):
        primitives.addPrimitive(function, arity)
    primitives.addEphemeralConstant("constant", lambda: random.randint(-1, 1))
    toolbox = base.Toolbox()
    toolbox.register("expression", gp.genHalfAndHalf, pset=primitives, min_=1, max_=3)
    toolbox.register("individual", tools.initIterate, creator.Tree, toolbox.expression)
    toolbox.register("mate", gp.cxOnePoint)
    toolbox.register("mutate", gp.mutUniform, expr=toolbox.expression, pset=primitives)
    toolbox.register("evaluate", evaluate_tree, turns=turns)
    return toolbox


def evolved(toolbox: base.Toolbox, mapping: Map, generations: int) -> tuple[float, Any]:
    """Return how long an evolution took, and the fitness of all who are left."""
    random.seed(7)
    toolbox.register("map", mapping)
    toolbox.register("select", tools.selTournament, tournsize=3)
    population = tools.initRepeat(list, toolbox.individual, INDIVIDUALS)
    begin = perf_counter()
    algorithms.eaSimple(population, toolbox, 0.8, 0.9, generations, verbose=False)
    return perf_counter() - begin, [each.fitness.values for each in population]


def allowed(evolution: Callable[[], Any], workers: int) -> float:
    """Return how much more so many processes get done than one."""
    evolution()
    alone, _ = evolution()
    children = [Process(target=evolution) for _ in range(workers)]
    begin = perf_counter()
    for child in children:
        child.start()
    for child in children:
        child.join(60.0)
        if child.exitcode is None:
            child.kill()
            raise TimeoutError("an evolution by the loop took more than a minute")
    return workers * alone / (perf_counter() - begin)


def measure(library: Library, request: Request) -> Result:
    warnings.simplefilter("ignore")  # DEAP's: plain pickle could not take the constants along
    creator.create("Fitness", base.Fitness, weights=(1.0,))
    creator.create("ListOfFloats", list, fitness=creator.Fitness)
    creator.create("Tree", gp.PrimitiveTree, fitness=creator.Fitness)
    make = of_trees if request.settings.get("genome") == "gp" else of_lists
    toolbox = make(turns_in(float(request.settings.get("cost", "1000")) * 1e-6))
    process_ids(library, request.workers)
    ratios = []
    for _ in range(2 if request.quick else 7):
        run = partial(evolved, toolbox, generations=3 if request.quick else GENERATIONS)
        if isinstance(library, Serial):
            ratios.append(allowed(partial(run, mapping=library.map), request.workers))
            continue
        alone, expected = run(mapping=Serial().map)
        mapped, found = run(mapping=library.map)
        if found != expected:
            raise ValueError("the evolution took another way")
        ratios.append(alone / mapped)
    return result(ratios, [median(ratios)])


if __name__ == "__main__":
    play(measure)
