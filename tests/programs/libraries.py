"""Libraries that take a map, a pool or an executor, unmodified, on dtm; checked inside of a run.

Each check runs a library serially and on dtm and compares, where the library is deterministic, and
looks which workers have evaluated the user's function: each notes its rank in a file.
"""

import os
import sys
import time
import warnings
from importlib import import_module

from checking import Missing, play
from scenarios import gather

from dtm import dtm

SIZE = int(sys.argv[1])
NOTES = os.path.join(os.environ.get("TMPDIR", "/tmp"), "ranks")


def note():
    """Note which worker runs this, and take long enough to be worth sending."""
    time.sleep(0.005)
    path = f"{NOTES}-{dtm.getWorkerId()}"
    if not os.path.exists(path):
        with open(path, "w"):
            pass


def needs(*names):
    try:
        return [import_module(name) for name in names]
    except ImportError as error:
        raise Missing(error.name or names[0]) from None


def on_dtm(call, *arguments):
    """Call something, and see that more than one worker has evaluated the function."""
    ranks = [f"{NOTES}-{rank}" for rank in range(SIZE)]
    for path in filter(os.path.exists, ranks):
        os.unlink(path)
    found = call(*arguments)
    assert sum(map(os.path.exists, ranks)) >= min(SIZE, 2), "one worker has done it all"
    return found


def sphere(x):
    note()
    return float(sum((each - 0.5) ** 2 for each in x))


def log_probability(x):
    note()
    return -0.5 * float(sum(each * each for each in x))


def prior_transform(u):
    return 10.0 * u - 5.0


def check_scipy():
    np, optimize, integrate = needs("numpy", "scipy.optimize", "scipy.integrate")

    def evolve(workers):
        return optimize.differential_evolution(
            sphere, [(-1, 1)] * 3, maxiter=3, popsize=5, rng=1, updating="deferred",
            workers=workers, polish=False,
        ).x  # fmt: skip

    assert np.array_equal(on_dtm(evolve, dtm.map), evolve(map))
    brute = lambda workers: optimize.brute(
        sphere, [(-1, 1)] * 2, Ns=6, workers=workers, finish=None
    )
    assert np.array_equal(on_dtm(brute, dtm.map), brute(map))
    quad = lambda workers: integrate.quad_vec(wave, 0, 3, workers=workers, epsrel=1e-6)[0]
    assert np.allclose(quad(dtm.map), quad(1))


def wave(x):
    import numpy as np

    note()
    return np.sin(x * np.arange(3))


def check_emcee():
    np, emcee = needs("numpy", "emcee")

    def sample(pool):
        np.random.seed(1)
        start = np.random.randn(12, 2)
        sampler = emcee.EnsembleSampler(12, 2, log_probability, pool=pool)
        sampler.run_mcmc(start, 8)
        return sampler.get_chain()

    assert np.array_equal(on_dtm(sample, dtm.Pool()), sample(None))


class SerialPool:
    """What dynesty and nautilus ask of a pool, one call after the other."""

    def __init__(self, size):
        self.size = self._processes = size

    @staticmethod
    def map(function, items):
        return list(map(function, items))


def check_dynesty():
    np, dynesty = needs("numpy", "dynesty")

    def sample(pool, **more):
        sampler = dynesty.NestedSampler(
            log_probability, prior_transform, 2, nlive=40, pool=pool,
            rstate=np.random.default_rng(1), **more,
        )  # fmt: skip
        sampler.run_nested(maxiter=60, print_progress=False)
        return sampler.results.logl

    found = on_dtm(lambda: sample(dtm.Pool(), queue_size=4))
    assert np.array_equal(found, sample(SerialPool(4), queue_size=4))
    if SIZE > 1:
        assert np.array_equal(sample(dtm.Pool()), sample(SerialPool(SIZE)))


def check_nautilus():
    (nautilus,) = needs("nautilus")

    def sample(pool):
        sampler = nautilus.Sampler(
            prior_transform, log_probability, n_dim=2, n_live=100, n_networks=0, seed=1, pool=pool
        )
        sampler.run(f_live=0.5, n_eff=0, verbose=False)
        return sampler.log_z

    on_dtm(sample, dtm.Pool())


def check_zeus():
    np, zeus = needs("numpy", "zeus")

    def sample(pool):
        np.random.seed(1)
        start = np.random.randn(8, 2)
        sampler = zeus.EnsembleSampler(8, 2, log_probability, pool=pool, verbose=False)
        sampler.run_mcmc(start, 4, progress=False)
        return sampler.get_chain()

    assert sample(None).shape == on_dtm(sample, dtm.Pool()).shape


def check_pymoo():
    np, _ = needs("numpy", "pymoo")
    nsga2, minimize, problem = needs(
        "pymoo.algorithms.moo.nsga2", "pymoo.optimize", "pymoo.core.problem"
    )
    try:
        starmaps = import_module("pymoo.parallelization.starmap")
    except ImportError:
        starmaps = problem

    def solve(starmap):
        runner = starmaps.StarmapParallelization(starmap) if starmap else None
        given = {"elementwise_runner": runner} if runner else {}
        found = minimize.minimize(
            schaffer(problem)(**given), nsga2.NSGA2(pop_size=12), ("n_gen", 4), seed=1
        )
        return found.F

    assert np.array_equal(on_dtm(solve, dtm.Pool().starmap), solve(None))


def schaffer(problem):
    class Schaffer(problem.ElementwiseProblem):
        def __init__(self, **given):
            super().__init__(n_var=1, n_obj=2, xl=-3.0, xu=3.0, **given)

        def _evaluate(self, x, out, *_, **__):
            note()
            out["F"] = [x[0] ** 2, (x[0] - 2) ** 2]

    return Schaffer


def check_lmfit():
    (lmfit,) = needs("lmfit")

    def fit(workers):
        parameters = lmfit.Parameters()
        parameters.add("a", 0.1, min=-1, max=1, brute_step=0.25)
        parameters.add("b", 0.1, min=-1, max=1, brute_step=0.25)
        found = lmfit.minimize(residual, parameters, method="brute", workers=workers)
        return found.params["a"].value, found.params["b"].value

    assert on_dtm(fit, dtm.map) == fit(1)


def residual(parameters):
    note()
    return [parameters["a"].value - 0.25, parameters["b"].value + 0.5]


def check_platypus():
    import random

    (platypus,) = needs("platypus")

    def solve(evaluator):
        random.seed(1)
        problem = platypus.Problem(1, 2)
        problem.types[:] = platypus.Real(-3, 3)
        problem.function = schaffer_values
        algorithm = platypus.NSGAII(problem, population_size=20, evaluator=evaluator)
        algorithm.run(60)
        return [list(each.objectives) for each in algorithm.result]

    found = on_dtm(solve, platypus.MapEvaluator(dtm.map))
    assert found == solve(platypus.MapEvaluator(map))


def schaffer_values(x):
    note()
    return [x[0] ** 2, (x[0] - 2) ** 2]


def check_nevergrad():
    (nevergrad,) = needs("nevergrad")

    def optimize():
        optimizer = nevergrad.optimizers.OnePlusOne(parametrization=2, budget=40, num_workers=4)
        with dtm.Executor() as executor:
            return optimizer.minimize(slow_sphere, executor=executor, batch_mode=False).value

    assert len(on_dtm(optimize)) == 2


def slow_sphere(x):
    time.sleep(0.03)
    return sphere(x)


def check_scikit_learn():
    joblib, _ = needs("joblib", "sklearn")
    selection, linear, datasets = needs(
        "sklearn.model_selection", "sklearn.linear_model", "sklearn.datasets"
    )
    import_module("dtm.joblib")
    x, y = datasets.make_classification(200, random_state=1)

    def scores(backend, jobs):
        with joblib.parallel_config(backend=backend):
            model = linear.LogisticRegression()
            found = selection.cross_val_score(model, x, y, cv=8, n_jobs=jobs, scoring=score)
            grid = selection.GridSearchCV(
                model, {"C": [0.1, 1.0, 10.0]}, n_jobs=jobs, scoring=score
            )
            return found.tolist(), grid.fit(x, y).best_params_

    assert on_dtm(scores, "dtm", -1) == scores("sequential", 1)


def score(model, x, y):
    note()
    return model.score(x, y)


def check_adaptive():
    (adaptive,) = needs("adaptive")

    def learn():
        learner = adaptive.Learner1D(peak, bounds=(-1, 1))
        adaptive.BlockingRunner(learner, npoints_goal=40, executor=dtm.Executor(), ntasks=SIZE)
        return learner.npoints

    assert on_dtm(learn) >= 40


def peak(x):
    note()
    return x + 0.01 / (0.01 + x * x)


def check_mystic():
    (mystic,) = needs("mystic")
    solvers, termination = needs("mystic.solvers", "mystic.termination")

    def solve(mapper):
        mystic.tools.random_seed(1)
        solver = solvers.DifferentialEvolutionSolver2(2, 10)
        if mapper is not None:
            solver.SetMapper(mapper)
        solver.SetRandomInitialPoints([-1, -1], [1, 1])
        solver.SetEvaluationLimits(generations=4)
        solver.Solve(sphere, termination=termination.VTR(1e-9))
        return list(solver.Solution())

    assert on_dtm(solve, dtm.map) == solve(None)


def check_pints():
    np, pints = needs("numpy", "pints")

    def optimise(evaluate):
        np.random.seed(1)
        method = pints.PSO(
            np.array([0.1, 0.1]), boundaries=pints.RectangularBoundaries([-1] * 2, [1] * 2)
        )
        for _ in range(4):
            method.tell(list(evaluate(sphere, method.ask())))
        return list(method.x_best())

    assert on_dtm(optimise, dtm.map) == optimise(map)


def check_pyabc():
    (pyabc,) = needs("pyabc")

    def infer():
        prior = pyabc.Distribution(mu=pyabc.RV("uniform", -1, 2))
        sampler = pyabc.sampler.MappingSampler(map_=dtm.map)
        abc = pyabc.ABCSMC(model, prior, distance, population_size=30, sampler=sampler)
        abc.new(f"sqlite:///{NOTES}.db", {"x": 0.0})
        return abc.run(max_nr_populations=2)

    assert on_dtm(infer).max_t >= 0


def model(parameters):
    note()
    return {"x": parameters["mu"]}


def distance(a, b):
    return abs(a["x"] - b["x"])


def check_bluepyopt():
    (bluepyopt,) = needs("bluepyopt")

    class Evaluator(bluepyopt.evaluators.Evaluator):
        def __init__(self):
            super().__init__(
                objectives=["f"],
                params=[bluepyopt.parameters.Parameter("x", bounds=[-1, 1])] * 2,
            )

        def evaluate_with_lists(self, values):
            return [sphere(values)]

        evaluate = init_simulator_and_evaluate_with_lists = evaluate_with_lists

    def optimise(mapping):
        optimisation = bluepyopt.optimisations.DEAPOptimisation(
            Evaluator(), offspring_size=10, map_function=mapping, seed=1
        )
        return list(optimisation.run(max_ngen=3)[0][0])

    assert on_dtm(optimise, dtm.map) == optimise(map)


def check_leap():
    needs("leap_ec")
    core, real, problem, decoder = needs(
        "leap_ec.individual", "leap_ec.real_rep.initializers", "leap_ec.problem",
        "leap_ec.decoder",
    )  # fmt: skip
    create = real.create_real_vector(bounds=[[-1, 1]] * 2)
    task = problem.FunctionProblem(sphere, maximize=False)
    population = [core.Individual(create(), decoder.IdentityDecoder(), task) for _ in range(30)]
    found = on_dtm(dtm.map, core.Individual.evaluate, population)
    assert found == [each.evaluate() for each in population]


def check_schwimmbad_style():
    with dtm.Pool() as pool:
        if not pool.is_master():
            pool.wait()
            sys.exit(0)
        found = on_dtm(lambda: list(pool.map(sphere, [[i, 1] for i in range(60)])))
    assert found == [sphere([i, 1]) for i in range(60)]


def check_pandas_rows():
    (pandas,) = needs("pandas")
    table = pandas.DataFrame({"a": range(60), "b": range(60)})
    found = on_dtm(lambda: dtm.map(row_sum, table.itertuples()))
    assert found == [2 * i for i in range(60)]
    assert dtm.map(indexed, table.iterrows()) == [2 * i for i in range(60)]
    assert on_dtm(lambda: dtm.starmap(pair_sum, table.itertuples(index=False))) == found


def row_sum(row):
    note()
    return row.a + row.b


def pair_sum(a, b):
    note()
    return a + b


def indexed(pair):
    return int(pair[1]["a"] + pair[1]["b"])


def main():
    warnings.simplefilter("ignore")
    gather(SIZE)  # else the first check may be over before a second worker has joined
    play(globals())


dtm.start(main)
