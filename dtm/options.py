"""The options of a run, and where they come from.

Whoever stands nearer to the run wins: the command line (``python -m dtm -n 4``,
which sets the environment of its own process), then the environment (``DTM_WORKERS``, ``DTM_COMM``,
``DTM_SEED``), then the program (``setOptions``), then the defaults.  The old names of
values, from DEAP's dtm, are understood.

Threads: set from the main thread before ``start``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dtm.errors import OptionError

MANAGERS = {
    "mpi": "mpi",
    "mpi4py": "mpi",
    "deap.dtm.commManagerMpi4py": "mpi",
    "deap.dtm.commManager": "mpi",
    "local": "local",
    "multiprocessing": "local",
    "tcp": "tcp",
    "deap.dtm.commManagerTCP": "tcp",
    "serial": "serial",
}
BALANCERS = frozenset({"deap.dtm.loadBalancerPDB", "deap.dtm.loadBalancer", "stealing"})


class Options:
    """Options of a run.

    Attributes:
        communicationManager: ``"mpi"``, ``"local"`` (also ``"multiprocessing"``),
            ``"serial"``, a :class:`dtm.comm.base.CommunicationManager`, a class of such,
            or the import path ``"package.module.Class"`` of one; None chooses by how
            the program was started.
        loadBalancer: a class with the interface of :class:`dtm.core.balancer.Balancer`, its
            import path, or a callable that makes one; None is dtm's own.
        printSummary: whether the root prints what each worker did, on stderr, at the end.
        taskGranularity: seconds of work below which nothing is sent to another worker;
            0 means about four round trips.
        mapChunkSize: fewest items that run, and travel, together; 0 leaves it to dtm.
        setTraceMode: whether each worker records what it does, for ``dtm report`` and its kin.
        traceDir: the directory for that; also set, with the mode, by ``DTM_TRACE``.
        workers: how many processes a local run has; None is one a core.
        workersReturn: whether ``start`` returns (None) on the workers too.
        seed: an integer that makes the random numbers of a run repeatable; None does not.
    """

    communicationManager: Any = None  # noqa: N815 - the names of the original are the public names
    loadBalancer: Any = None  # noqa: N815
    printSummary: bool = False  # noqa: N815
    taskGranularity: float = 0.0  # noqa: N815
    mapChunkSize: int = 0  # noqa: N815
    setTraceMode: bool = False  # noqa: N815
    traceDir: str = "DTM"  # noqa: N815
    workers: int | None = None
    workersReturn: bool = False  # noqa: N815
    seed: int | None = None

    def __init__(self, **given: Any) -> None:
        self.update(given)

    def __repr__(self) -> str:
        return f"Options({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def update(self, given: Mapping[str, Any]) -> None:
        """Set options by name.

        Raises:
            OptionError: a name is unknown, or a value is impossible; nothing is set then.
        """
        checked = {name: _checked(name, value) for name, value in given.items()}
        for name, value in checked.items():
            setattr(self, name, value)

    def overridden(self, environment: Mapping[str, str]) -> Options:
        """Return these options as the environment changes them.

        Raises:
            OptionError: a variable has an impossible value; the message names it.
        """
        given: dict[str, Any] = {}
        for variable, name, convert in _VARIABLES:
            text = environment.get(variable)
            if text:
                try:
                    given[name] = _checked(name, convert(text))
                except OptionError as error:
                    by = f"said by {variable} or the command line"
                    raise OptionError(f"{error} ({by})") from None
                except ValueError:
                    raise OptionError(f"{variable}={text!r} is not a whole number") from None
        if "traceDir" in given:
            given["setTraceMode"] = True
        return Options(**{**vars(self), **given})


_VARIABLES = (
    ("DTM_COMM", "communicationManager", str),
    ("DTM_WORKERS", "workers", int),
    ("DTM_SEED", "seed", int),
    ("DTM_TRACE", "traceDir", str),
    ("DTM_SUMMARY", "printSummary", lambda text: bool(int(text))),
)
NAMES = tuple(Options.__annotations__)


def unknown(name: str, known: tuple[str, ...], what: str) -> OptionError:
    """Return the error for a name that is not among the known ones."""
    from difflib import get_close_matches

    folded = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), folded, 1, 0.4)
    hint = f"; did you mean {folded[near[0]]!r}?" if near else f"; there are {', '.join(known)}"
    return OptionError(f"unknown {what} {name!r}{hint}")


def _checked(name: str, value: Any) -> Any:
    if name not in NAMES:
        raise unknown(name, NAMES, "option")
    if name == "workers" and value is not None:
        return _whole(name, value, 1)
    if name == "mapChunkSize":
        return _whole(name, value, 0)
    if name == "seed" and value is not None:
        return _whole(name, value, None)
    if name == "taskGranularity":
        return _seconds(name, value)
    if name in ("printSummary", "workersReturn", "setTraceMode"):
        return _flag(name, value)
    if name == "traceDir":
        return _directory(name, value)
    if name == "communicationManager" and isinstance(value, str):
        return _manager(value)
    if name == "loadBalancer" and isinstance(value, str):
        return None if value in BALANCERS else _path(name, value, "stealing")
    return value


def _whole(name: str, value: Any, least: int | None) -> int:
    from operator import index

    try:
        number = index(value)
    except TypeError:
        raise OptionError(f"option {name} must be a whole number, not {value!r}") from None
    if isinstance(value, bool) or (least is not None and number < least):
        rule = f"a whole number of at least {least}"
        raise OptionError(f"option {name} must be {rule}, not {value!r}")
    return number


def _seconds(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise OptionError(f"option {name} must be a number of seconds, not {value!r}") from None
    if not 0.0 <= number < float("inf"):
        raise OptionError(f"option {name} must be a number of seconds from 0 up, not {value!r}")
    return number


def _flag(name: str, value: Any) -> bool:
    try:
        known = value in (True, False)
    except Exception:  # noqa: BLE001 - an array, say, that is equal to neither as a whole
        known = False
    if not known:
        raise OptionError(f"option {name} must be True or False, not {value!r}")
    return bool(value)


def _directory(name: str, value: Any) -> str:
    from os import PathLike, fspath

    path = fspath(value) if isinstance(value, (str, PathLike)) else None
    if not isinstance(path, str) or not path:
        raise OptionError(f"option {name} must be the path of a directory, not {value!r}")
    return path


def _manager(value: str) -> str:
    if value in MANAGERS:
        return MANAGERS[value]
    return _path("communicationManager", value, "mpi, local, tcp, serial")


def _path(name: str, value: str, known: str) -> str:
    if "." not in value.strip("."):
        raise OptionError(
            f"option {name} is {value!r}; it must be one of {known}, an object, a class, "
            "or an import path such as 'package.module.Class'"
        )
    return value
