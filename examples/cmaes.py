"""CMA-ES with DEAP: minimise a function of many real variables.

::

    python examples/cmaes.py
    mpirun -n 4 python examples/cmaes.py --dimensions 30 --generations 500

The strategy asks for a whole generation at a time, which ``toolbox.map`` (here
``dtm.map``) evaluates.  The sphere function stands for one that takes long.
Needs ``deap`` and ``numpy`` (``pip install deap numpy``).
"""

import argparse

import numpy as np
from deap import algorithms, base, benchmarks, cma, creator, tools

from dtm import dtm

creator.create("FitnessMin", base.Fitness, weights=(-1.0,))
creator.create("Individual", list, fitness=creator.FitnessMin)


def main(dimensions: int, generations: int, seed: int) -> None:
    np.random.seed(seed)  # noqa: NPY002 - what DEAP's strategy draws from
    strategy = cma.Strategy(centroid=[5.0] * dimensions, sigma=5.0, lambda_=10 * dimensions)

    toolbox = base.Toolbox()
    toolbox.register("evaluate", benchmarks.sphere)
    toolbox.register("generate", strategy.generate, creator.Individual)
    toolbox.register("update", strategy.update)
    toolbox.register("map", dtm.map)

    best = tools.HallOfFame(1)
    algorithms.eaGenerateUpdate(toolbox, ngen=generations, halloffame=best, verbose=False)
    print(f"best value after {generations} generations: {best[0].fitness.values[0]:.3e}")


parser = argparse.ArgumentParser(description="CMA-ES with DEAP")
parser.add_argument("--dimensions", type=int, default=10)
parser.add_argument("--generations", type=int, default=120)
parser.add_argument("--seed", type=int, default=128)
args = parser.parse_args()
dtm.start(main, args.dimensions, args.generations, args.seed)
