"""One face for all the libraries that are compared, each used as its manual says.

Nothing heavy is imported before it is known which library is wanted: the start
of a program is one of the things measured.

Rejected: adding schemes of chunking here.  What is measured is the call that a
user would write; `map_singly` is for the figures that ask for one task an item.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Function = Callable[..., Any]


class Library(ABC):
    """What the programs ask of a library."""

    @abstractmethod
    def map(self, function: Function, items: Sequence[Any]) -> list[Any]:
        """Map with the call that the library's manual shows first."""

    def map_singly(self, function: Function, items: Sequence[Any]) -> list[Any]:
        """Map with one task an item."""
        return self.map(function, items)

    @abstractmethod
    def submit(self, function: Function, item: Any) -> Any:
        """Start one call; return a handle for `collect`."""

    def collect(self, handles: Sequence[Any]) -> list[Any]:
        """Return the results of submitted calls."""
        return [handle.result() for handle in handles]


class Serial(Library):
    """No library at all: the built-in map."""

    def map(self, function: Function, items: Sequence[Any]) -> list[Any]:
        return list(map(function, items))

    def submit(self, function: Function, item: Any) -> Any:
        return function(item)

    def collect(self, handles: Sequence[Any]) -> list[Any]:
        return list(handles)


class Dtm(Library):
    """dtm, under whatever it was launched by."""

    def __init__(self) -> None:
        from dtm import dtm

        self.dtm = dtm

    def map(self, function: Function, items: Sequence[Any]) -> list[Any]:
        return self.dtm.map(function, items)

    def submit(self, function: Function, item: Any) -> Any:
        return self.dtm.apply_async(function, item)

    def collect(self, handles: Sequence[Any]) -> list[Any]:
        return [handle.get() for handle in handles]


class Pool(Library):
    """``multiprocessing.Pool``, and Ray's class of the same interface."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def map(self, function: Function, items: Sequence[Any]) -> list[Any]:
        return list(self.pool.map(function, items))

    def map_singly(self, function: Function, items: Sequence[Any]) -> list[Any]:
        return list(self.pool.map(function, items, chunksize=1))

    def submit(self, function: Function, item: Any) -> Any:
        return self.pool.apply_async(function, (item,))

    def collect(self, handles: Sequence[Any]) -> list[Any]:
        return [handle.get() for handle in handles]


class Schwimmbad(Library):
    """schwimmbad's ``MPIPool``, which hands out one item at a time and submits nothing."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def map(self, function: Function, items: Sequence[Any]) -> list[Any]:
        return list(self.pool.map(function, items))

    def submit(self, function: Function, item: Any) -> Any:
        return function, item

    def collect(self, handles: Sequence[Any]) -> list[Any]:
        return list(self.pool.map(called, handles))


def called(pair: tuple[Function, Any]) -> Any:
    """Make a call that was put off."""
    function, item = pair
    return function(item)


class Executor(Library):
    """Whatever looks like ``concurrent.futures``: its own, mpi4py's, SCOOP's."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor

    def map(self, function: Function, items: Sequence[Any]) -> list[Any]:
        return list(self.executor.map(function, items))

    def submit(self, function: Function, item: Any) -> Any:
        return self.executor.submit(function, item)


class Joblib(Library):
    """joblib's ``Parallel`` over loky."""

    def __init__(self, workers: int) -> None:
        from joblib import Parallel

        self.batches = Parallel(n_jobs=workers)
        self.singly = Parallel(n_jobs=workers, batch_size=1)

    def map(self, function: Function, items: Sequence[Any]) -> list[Any]:
        return self.over(self.batches, ((function, item) for item in items))

    def map_singly(self, function: Function, items: Sequence[Any]) -> list[Any]:
        return self.over(self.singly, ((function, item) for item in items))

    def submit(self, function: Function, item: Any) -> Any:
        return function, item

    def collect(self, handles: Sequence[Any]) -> list[Any]:
        return self.over(self.singly, handles)

    def over(self, parallel: Any, calls: Iterable[Any]) -> list[Any]:
        from joblib import delayed

        return list(parallel(delayed(function)(item) for function, item in calls))


class Dask(Library):
    """A Dask client, its scheduler and workers on this machine."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def map(self, function: Function, items: Sequence[Any]) -> list[Any]:
        return list(self.client.gather(self.client.map(function, items, pure=False)))

    def submit(self, function: Function, item: Any) -> Any:
        return self.client.submit(function, item, pure=False)

    def collect(self, handles: Sequence[Any]) -> list[Any]:
        return list(self.client.gather(handles))


class Ray(Pool):
    """Ray's ``Pool`` for maps, its remote functions for single calls."""

    def submit(self, function: Function, item: Any) -> Any:
        return remote_of(function).remote(item)

    def collect(self, handles: Sequence[Any]) -> list[Any]:
        import ray

        return list(ray.get(list(handles)))


REMOTES: dict[Function, Any] = {}


def remote_of(function: Function) -> Any:
    """Return Ray's handle of a function, made once: making it ships the function."""
    import ray

    if function not in REMOTES:
        REMOTES[function] = ray.remote(function)
    return REMOTES[function]


@contextmanager
def opened(name: str, workers: int) -> Iterator[Library]:
    """Start a library and yield its face; dtm must have been started around this."""
    opener = OPENERS[name]
    with opener(workers) as library:
        yield library


@contextmanager
def open_serial(_workers: int) -> Iterator[Library]:
    yield Serial()


@contextmanager
def open_dtm(_workers: int) -> Iterator[Library]:
    yield Dtm()


@contextmanager
def open_pool(workers: int) -> Iterator[Library]:
    import multiprocessing

    with multiprocessing.Pool(workers) as pool:
        yield Pool(pool)


@contextmanager
def open_executor(workers: int) -> Iterator[Library]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(workers) as executor:
        yield Executor(executor)


@contextmanager
def open_mpi4py(_workers: int) -> Iterator[Library]:
    from mpi4py.futures import MPIPoolExecutor

    with MPIPoolExecutor() as executor:
        yield Executor(executor)


@contextmanager
def open_schwimmbad(_workers: int) -> Iterator[Library]:
    from schwimmbad import MPIPool

    with MPIPool() as pool:  # all ranks but the first stay in here, until they end
        yield Schwimmbad(pool)


@contextmanager
def open_joblib(workers: int) -> Iterator[Library]:
    yield Joblib(workers)


@contextmanager
def open_scoop(_workers: int) -> Iterator[Library]:
    from scoop import futures

    yield Executor(futures)


@contextmanager
def open_dask(workers: int) -> Iterator[Library]:
    from distributed import Client

    with Client(n_workers=workers, threads_per_worker=1, dashboard_address=None) as client:
        yield Dask(client)


@contextmanager
def open_ray(workers: int) -> Iterator[Library]:
    import ray
    from ray.util.multiprocessing import Pool as RayPool

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    pool = RayPool(workers)
    try:
        yield Ray(pool)
    finally:
        pool.terminate()
        ray.shutdown()


OPENERS = {
    "serial": open_serial,
    "dtm": open_dtm,
    "pool": open_pool,
    "executor": open_executor,
    "mpi4py": open_mpi4py,
    "schwimmbad": open_schwimmbad,
    "joblib": open_joblib,
    "scoop": open_scoop,
    "dask": open_dask,
    "ray": open_ray,
}
