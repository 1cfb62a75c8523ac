"""OneMax with DEAP: evolve strings of bits until all the bits are one.

::

    python examples/onemax.py
    mpirun -n 4 python examples/onemax.py --generations 100

DEAP's algorithms evaluate a generation by ``toolbox.map(toolbox.evaluate, …)``.
Registering dtm's map is all that it takes to evaluate on many workers.
Needs ``deap`` (``pip install deap``).
"""

import argparse
import array
import random

from deap import algorithms, base, creator, tools

from dtm import dtm

# At module level, so that each worker has these classes: individuals travel.
creator.create("FitnessMax", base.Fitness, weights=(1.0,))
creator.create("Individual", array.array, typecode="b", fitness=creator.FitnessMax)


def ones(individual: array.array) -> tuple[int]:
    return (sum(individual),)


toolbox = base.Toolbox()
toolbox.register("bit", random.randint, 0, 1)
toolbox.register("individual", tools.initRepeat, creator.Individual, toolbox.bit, 100)
toolbox.register("population", tools.initRepeat, list, toolbox.individual)
toolbox.register("evaluate", ones)
toolbox.register("mate", tools.cxTwoPoint)
toolbox.register("mutate", tools.mutFlipBit, indpb=0.05)
toolbox.register("select", tools.selTournament, tournsize=3)
toolbox.register("map", dtm.map)


def main(size: int, generations: int, seed: int) -> None:
    random.seed(seed)
    best = tools.HallOfFame(1)
    algorithms.eaSimple(
        toolbox.population(n=size),
        toolbox,
        cxpb=0.5,
        mutpb=0.2,
        ngen=generations,
        halloffame=best,
        verbose=False,
    )
    print(f"best of {generations} generations: {sum(best[0])} ones of {len(best[0])}")


parser = argparse.ArgumentParser(description="OneMax with DEAP")
parser.add_argument("--size", type=int, default=300, help="individuals in the population")
parser.add_argument("--generations", type=int, default=40)
parser.add_argument("--seed", type=int, default=64)
args = parser.parse_args()
dtm.start(main, args.size, args.generations, args.seed)
