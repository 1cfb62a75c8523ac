"""Tasks that make tasks: the calls which each library has for it, if it has any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Function = Callable[..., Any]

NESTING = ("dtm", "scoop", "dask", "ray")


def dask_map(function: Function, items: Sequence[Any]) -> list[Any]:
    from distributed import worker_client

    with worker_client() as client:
        return list(client.gather(client.map(function, items, pure=False)))


def ray_map(function: Function, items: Sequence[Any]) -> list[Any]:
    import ray

    from benchmarks.programs.libraries import remote_of

    remote = remote_of(function)
    return list(ray.get([remote.remote(item) for item in items]))


def scoop_map(function: Function, items: Sequence[Any]) -> list[Any]:
    from scoop import futures

    return list(futures.map(function, items))


def nested_map(library: str) -> Callable[[Function, Sequence[Any]], list[Any]]:
    """Return a map that a task may call."""
    if library == "dtm":
        from dtm import dtm

        return dtm.map
    return {"scoop": scoop_map, "dask": dask_map, "ray": ray_map}[library]
