"""A backend of joblib whose tasks are run by the workers of the run.

``import dtm.joblib`` registers it, then ``joblib.parallel_config(backend="dtm")`` chooses it.

joblib hands over batches of calls.  A batch is not run as one item, but as a map over its calls,
which idle workers share: so a batch may be as large as joblib likes, and uneven calls do no harm.
A ``Parallel`` within a task uses this backend again, and waits as tasks of dtm do.  Results come in
the order of the calls, also where ``return_as="generator_unordered"`` allows any.  ``initializer``
and ``initargs``, of ``Parallel`` or ``parallel_config``, are called once in each process for one
``Parallel``.

Threads: those of joblib: the one that calls ``Parallel``, and any that learns that a batch is over,
which hands in the next.

What it cannot do: ``require="sharedmem"``.

joblib keeps the backend that is in force in a variable of the thread.  Tasks that wait share the
main thread, so that variable is replaced by one of the context, of which each task has its own.

Rejected: an executor for joblib to drive.  joblib would take it for threads, and nest in
threads.  Results as they come: joblib polls for them with ``sleep``, and a worker that sleeps does
nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from copy import copy
from importlib import import_module
from typing import Any

from dtm.door import Door
from dtm.integrations.crew import Crew
from dtm.integrations.lanes import when_over
from dtm.integrations.pool_results import PoolResult
from dtm.options import initargs, initializer
from dtm.run import runtime
from dtm.run.initializing import Initializer, fresh_name
from dtm.task import Body
from dtm.wire.globals_read import companions

_joblib: Any = import_module("joblib.parallel")


class Config:
    """Stands for the variable of joblib's that holds what ``parallel_config`` has set."""

    _config: ContextVar[Any] = ContextVar("dtm_joblib_config")

    @property
    def config(self) -> Any:
        """What is set in this context; as for a variable of a thread, perhaps nothing."""
        try:
            return self._config.get()
        except LookupError:
            raise AttributeError("config") from None

    @config.setter
    def config(self, value: Any) -> None:
        self._config.set(value)


class Batch(Body):
    """Runs calls of a batch of joblib's, with the backend that calls within them shall use.

    Args:
        shell: a batch without calls.
        start: called once in each process before the first call.
    """

    __slots__ = ("__weakref__", "_config", "_start")

    def __init__(self, shell: Any, start: Initializer | None) -> None:
        self.func: Any = shell
        self._start = start
        self._config: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Batch, (self.func, self._start)

    def prepare(self, runner: Any) -> None:
        """Call the initializer, if there is one that this process has not called."""
        if self._start is not None:
            self._start.prepare(runner)

    def __call__(self, *args: Any) -> Any:
        """Run one call."""
        return self.results(args, False)[0]

    def results(self, items: Sequence[Any], star: bool) -> list[Any]:
        """Return the results of calls: functions with their arguments."""
        del star
        if self._config is None:  # once for all strips: it costs as much as ten small calls
            self.func.items = [(_get_config, (), {})]
            (self._config,) = self.func()
            self.func.items = []
        before = getattr(_joblib._backend, "config", _joblib.default_parallel_config)  # noqa: SLF001
        _joblib._backend.config = self._config  # noqa: SLF001
        try:
            return [function(*args, **kwargs) for function, args, kwargs in items]
        finally:
            _joblib._backend.config = before  # noqa: SLF001


def _get_config() -> Any:
    return _joblib._backend.config  # noqa: SLF001


class Whole(Body):
    """Runs something that joblib hands over which is no batch of calls."""

    __slots__ = ("__weakref__", "_start")

    def __init__(self, function: Callable[[], Any], start: Initializer | None) -> None:
        self.func = function
        self._start = start

    def prepare(self, runner: Any) -> None:
        """Call the initializer, if there is one that this process has not called."""
        if self._start is not None:
            self._start.prepare(runner)

    def results(self, items: Sequence[Any], star: bool) -> Iterable[Any]:
        """Return its result for each item: there is one."""
        del star
        return (self.func() for _ in items)


class Backend(_joblib.AutoBatchingMixin, _joblib.ParallelBackendBase):  # type: ignore[misc]
    """The backend of joblib named ``dtm``."""

    supports_retrieve_callback = False
    supports_return_generator = True
    supports_timeout = True
    supports_sharedmem = False
    uses_threads = False

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.default_n_jobs = 1 if self.nesting_level else -1
        self._crew: Crew | None = None
        self._task: Any = None
        self._start: Initializer | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many calls run at once: ``n_jobs``; counted from all workers if below 0."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(runtime.running().comm.size + 1 + n_jobs, 1)

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, prefer: Any = None, **given: Any
    ) -> int:
        """Prepare for the calls of one ``Parallel``."""
        del prefer
        jobs = self.effective_n_jobs(n_jobs)
        if jobs == 1:
            raise _joblib.FallbackToBackend(
                _joblib.SequentialBackend(nesting_level=self.nesting_level)
            )
        self.parallel = parallel
        parallel.return_ordered = True
        self._start = _initializer({**self.backend_kwargs, **given})
        self._task = runtime.running().runner.context()  # whichever thread hands in its batches
        self._crew = Crew(os.urandom(8).hex(), jobs, None, ())
        return jobs

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Any], object] | None = None
    ) -> PoolResult:
        """Begin a batch of calls."""
        assert self._crew is not None
        bounded = self._crew.is_bounded()
        items = getattr(func, "items", None)
        if items:
            shell = copy(func)
            shell.items = []  # type: ignore[attr-defined]
            door = Door(guard=lambda _: Batch(shell, self._start))
            made = door.make("joblib", items[0][0], items, {}, star=False, task=self._task)
            if bounded:
                made.call.chunk = len(items)
        else:
            door = Door(guard=lambda function: Whole(function, self._start))
            made = door.make("joblib", func, ((),), {}, star=False, task=self._task)
        result = PoolResult(made, callback, callback, single=not items)
        if callback is not None:
            when_over(made, result.over)
        self._crew.submit(made)
        return result

    apply_async = submit  # the name in older versions of joblib

    def terminate(self) -> None:
        """End the calls of one ``Parallel``."""
        self.abort_everything(ensure_ready=False)
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Drop what is under way."""
        del ensure_ready
        if self._crew is not None:
            self._crew.drop()

    def __reduce__(self) -> tuple[Any, ...]:
        return _within, (self.nesting_level,)

    def get_nested_backend(self) -> tuple[Backend, None]:
        """Return the backend for a ``Parallel`` within a task."""
        return _within((self.nesting_level or 0) + 1), None


def _initializer(given: dict[str, Any]) -> Initializer | None:
    """Return the initializer that joblib was given, as it travels; None if there is none."""
    function = initializer(given.get("initializer"))
    if function is None:
        return None
    return Initializer(function, initargs(given.get("initargs", ())), fresh_name())


def _within(level: int | None) -> Backend:
    return Backend(nesting_level=level)


def register() -> None:
    """Make the backend known to joblib as ``dtm``, also where functions go that use joblib."""
    if not isinstance(_joblib._backend, Config):  # noqa: SLF001
        _joblib._backend = Config()  # noqa: SLF001
    _joblib.register_parallel_backend("dtm", Backend)
    companions["joblib"] = "dtm.joblib"
