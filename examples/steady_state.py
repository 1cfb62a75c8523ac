"""A steady-state evolutionary algorithm with DEAP and ``dtm.imap_unordered``.

::

    python examples/steady_state.py
    mpirun -n 4 python examples/steady_state.py --evaluations 20000

There are no generations.  An endless generator breeds a child whenever a worker
may soon want one; each child that comes back evaluated takes the place of the
worst.  Nobody ever waits for the slowest evaluation of a generation, which is
what one wants when evaluations take very different times.
Needs ``deap`` (``pip install deap``).
"""

import argparse
import random
from collections.abc import Iterator
from itertools import islice

from deap import base, benchmarks, creator, tools

from dtm import dtm

creator.create("FitnessMin", base.Fitness, weights=(-1.0,))
creator.create("Individual", list, fitness=creator.FitnessMin)

toolbox = base.Toolbox()
toolbox.register("gene", random.uniform, -5.0, 5.0)
toolbox.register("individual", tools.initRepeat, creator.Individual, toolbox.gene, 10)
toolbox.register("population", tools.initRepeat, list, toolbox.individual)
toolbox.register("mate", tools.cxBlend, alpha=0.2)
toolbox.register("mutate", tools.mutGaussian, mu=0.0, sigma=0.3, indpb=0.2)
toolbox.register("select", tools.selTournament, tournsize=3)
toolbox.register("map", dtm.map)


def evaluated(individual: list) -> list:
    """Results come back in any order, so the fitness travels with its individual."""
    individual.fitness.values = benchmarks.sphere(individual)
    return individual


def offspring(population: list) -> Iterator[list]:
    """Breed for ever, from the population as it is when a child is asked for."""
    while True:
        mother, father = map(toolbox.clone, toolbox.select(population, 2))
        child, _ = toolbox.mate(mother, father)
        toolbox.mutate(child)
        del child.fitness.values
        yield child


def main(size: int, evaluations: int, ahead: int, seed: int) -> None:
    random.seed(seed)
    population = toolbox.map(evaluated, toolbox.population(n=size))
    first = min(individual.fitness.values[0] for individual in population)

    # Bred too far ahead, children would descend from a population long gone: chunksize is
    # how many may be under way.  Some for each worker is right where evaluations take long.
    arrivals = dtm.imap_unordered(evaluated, offspring(population), chunksize=ahead)
    for child in islice(arrivals, evaluations):
        worst = max(range(size), key=lambda index: population[index].fitness.values)
        if child.fitness > population[worst].fitness:
            population[worst] = child

    last = min(individual.fitness.values[0] for individual in population)
    print(f"best of the first {size}: {first:.4f}")
    print(f"best after {evaluations} evaluations: {last:.4f}")


parser = argparse.ArgumentParser(description="a steady-state algorithm with DEAP")
parser.add_argument("--size", type=int, default=60, help="individuals in the population")
parser.add_argument("--evaluations", type=int, default=3000)
parser.add_argument("--ahead", type=int, default=16, help="children bred before results are in")
parser.add_argument("--seed", type=int, default=7)
args = parser.parse_args()
dtm.start(main, args.size, args.evaluations, args.ahead, args.seed)
