"""Symbolic regression with DEAP's genetic programming: find a formula for data.

::

    python examples/symbreg.py
    mpirun -n 4 python examples/symbreg.py --generations 40

What is sought is x^4 + x^3 + x^2 + x.  Trees hold ephemeral constants, random
numbers drawn when a leaf is made, and both the constants and some of the
primitives come from lambdas.  ``pickle`` cannot send a lambda, and DEAP says so
in a warning; dtm sends them, so the warning is turned off.
Needs ``deap`` (``pip install deap``).
"""

import argparse
import math
import operator
import random
import warnings

from deap import algorithms, base, creator, gp, tools

from dtm import dtm

warnings.filterwarnings("ignore", message="Ephemeral .* cannot be pickled")

primitives = gp.PrimitiveSet("MAIN", 1)
primitives.renameArguments(ARG0="x")
primitives.addPrimitive(operator.add, 2)
primitives.addPrimitive(operator.sub, 2)
primitives.addPrimitive(operator.mul, 2)
primitives.addPrimitive(lambda a, b: a / b if b else 1.0, 2, name="divide")
primitives.addPrimitive(lambda a: math.cos(a) if math.isfinite(a) else 1.0, 1, name="cos")
primitives.addEphemeralConstant("constant", lambda: random.randint(-1, 1))

creator.create("FitnessMin", base.Fitness, weights=(-1.0,))
creator.create("Tree", gp.PrimitiveTree, fitness=creator.FitnessMin)

POINTS = [x / 10.0 for x in range(-10, 10)]


def target(x: float) -> float:
    return x**4 + x**3 + x**2 + x


def mean_square_error(tree: gp.PrimitiveTree) -> tuple[float]:
    formula = gp.compile(tree, primitives)
    return (sum((formula(x) - target(x)) ** 2 for x in POINTS) / len(POINTS),)


toolbox = base.Toolbox()
toolbox.register("expression", gp.genHalfAndHalf, pset=primitives, min_=1, max_=2)
toolbox.register("individual", tools.initIterate, creator.Tree, toolbox.expression)
toolbox.register("population", tools.initRepeat, list, toolbox.individual)
toolbox.register("evaluate", mean_square_error)
toolbox.register("select", tools.selTournament, tournsize=3)
toolbox.register("mate", gp.cxOnePoint)
toolbox.register("subtree", gp.genFull, min_=0, max_=2)
toolbox.register("mutate", gp.mutUniform, expr=toolbox.subtree, pset=primitives)
toolbox.register("map", dtm.map)

height_limit = gp.staticLimit(key=operator.attrgetter("height"), max_value=12)
toolbox.decorate("mate", height_limit)
toolbox.decorate("mutate", height_limit)


def main(size: int, generations: int, seed: int) -> None:
    random.seed(seed)
    best = tools.HallOfFame(1)
    algorithms.eaSimple(
        toolbox.population(n=size),
        toolbox,
        cxpb=0.5,
        mutpb=0.1,
        ngen=generations,
        halloffame=best,
        verbose=False,
    )
    print(f"best formula: {best[0]}")
    print(f"mean square error: {best[0].fitness.values[0]:.6f}")


parser = argparse.ArgumentParser(description="symbolic regression with DEAP")
parser.add_argument("--size", type=int, default=300, help="trees in the population")
parser.add_argument("--generations", type=int, default=20)
parser.add_argument("--seed", type=int, default=318)
args = parser.parse_args()
dtm.start(main, args.size, args.generations, args.seed)
