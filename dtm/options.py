"""The options of a run, where they come from, and the checks of what people give.

The first of these that gives an option a value decides: the command line (``python -m dtm -n 4``,
which sets variables in the environment of its own process), the environment (``DTM_WORKERS``),
the program (``setOptions``), the default.  The values that DEAP's dtm had are understood.

``Options`` is what a program may set.  ``Settings`` say how the workers of a run over TCP are
reached: they are for whoever starts the program to give, so only the environment holds them.
``number`` and ``count`` check the arguments of other modules: what is no number at all is a
``TypeError``, a number that is not allowed a ``ValueError``; a truth value is no number.

Threads: options are set in the main thread before ``start``; the checks may be used anywhere.

Rejected: one class for both.  A program would then say on which machines it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, isfinite, isnan
from operator import index
from typing import Any, NamedTuple

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
        stallAfter: seconds without progress after which the root tells what all tasks do; 0
            for never.
        live: whether the root serves a page that shows the run while it lasts, at a port of the
            loopback address: True for any port, or its number.
        workers: how many processes a local run has; None is one a core.
        workersReturn: whether ``start`` returns (None) on the workers too.
        seed: an integer that makes the random numbers of a run repeatable; None does not.
        cacheBytes: how much memory each worker spends on functions of other workers, and on the
            data that goes along with them, after the calls that needed them are over.
        initializer: called once in each worker before its first task, on the root before ``main``;
            None for nothing.
        initargs: a tuple of its arguments.
    """

    communicationManager: Any = None  # noqa: N815 - the names of the original are the public names
    loadBalancer: Any = None  # noqa: N815
    printSummary: bool = False  # noqa: N815
    taskGranularity: float = 0.0  # noqa: N815
    mapChunkSize: int = 0  # noqa: N815
    setTraceMode: bool = False  # noqa: N815
    traceDir: str = "DTM"  # noqa: N815
    stallAfter: float = 0.0  # noqa: N815
    live: bool | int = False
    workers: int | None = None
    workersReturn: bool = False  # noqa: N815
    seed: int | None = None
    cacheBytes: int = 64 << 20  # noqa: N815
    initializer: Callable[..., Any] | None = None
    initargs: Sequence[Any] = ()

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
    ("DTM_STALL_AFTER", "stallAfter", str),
    ("DTM_LIVE", "live", int),
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
    if name in ("mapChunkSize", "cacheBytes"):
        return _whole(name, value, 0)
    if name == "seed" and value is not None:
        return _whole(name, value, None)
    if name in ("taskGranularity", "stallAfter"):
        return _seconds(name, value)
    if name in ("printSummary", "workersReturn", "setTraceMode"):
        return _flag(name, value)
    if name in _ALONE:
        return _ALONE[name](value)
    if name == "communicationManager" and isinstance(value, str):
        return _manager(value)
    if name == "loadBalancer" and isinstance(value, str):
        return None if value in BALANCERS else _path(name, value, "stealing")
    return value


def _whole(name: str, value: Any, least: int | None) -> int:
    try:
        return count(f"option {name}", value, least=least)
    except (TypeError, ValueError) as error:
        raise OptionError(str(error)) from None


def _seconds(name: str, value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        raise OptionError(f"option {name} must be a number of seconds, not {value!r}") from None
    if not 0.0 <= seconds < inf:
        raise OptionError(f"option {name} must be a number of seconds from 0 up, not {value!r}")
    return seconds


def _flag(name: str, value: Any) -> bool:
    try:
        known = value in (True, False)
    except Exception:  # noqa: BLE001 - the value's own ==, an array's for instance, may raise anything
        known = False
    if not known:
        raise OptionError(f"option {name} must be True or False, not {value!r}")
    return bool(value)


def _live(value: Any) -> bool | int:
    try:
        if value in (True, False):
            return bool(value)
        return count("port", value, least=2, most=65535)
    except Exception:  # noqa: BLE001 - as in _flag
        raise OptionError(
            f"option live must be True, False or a port from 2 to 65535, not {value!r}"
        ) from None


def _directory(value: Any) -> str:
    from os import PathLike, fspath

    path = fspath(value) if isinstance(value, (str, PathLike)) else None
    if not isinstance(path, str) or not path:
        raise OptionError(f"option traceDir must be the path of a directory, not {value!r}")
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


# What else people give.


def initializer(value: Any) -> Any:
    """Return what is to be called in each worker, or None."""
    if value is not None and not callable(value):
        raise OptionError(f"option initializer must be a function or None, not {value!r}")
    return value


def initargs(value: Any) -> tuple[Any, ...]:
    """Return the arguments for an initializer."""
    if not isinstance(value, (tuple, list)):
        raise OptionError(f"option initargs must be a tuple of arguments, not {value!r}")
    return tuple(value)


_ALONE: dict[str, Callable[[Any], Any]] = {
    "live": _live,
    "traceDir": _directory,
    "initializer": initializer,
    "initargs": initargs,
}


def number(
    name: str,
    value: object,
    *,
    least: float = 0.0,
    most: float = inf,
    positive: bool = False,
    endless: bool = False,
) -> float:
    """Return a number as a float.

    Args:
        name: of the argument.
        value: what was given.
        least: the smallest that is allowed.
        most: the largest.
        positive: whether 0 is refused too.
        endless: whether infinity is allowed.
    """
    from numbers import Real

    allowed = "a number above 0" if positive else f"a number of at least {least:g}"
    if most < inf:
        allowed += f" and at most {most:g}"
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be {allowed}, not {value!r}")
    read = float(value)
    refused = isnan(read) or not least <= read <= most or (positive and read <= 0.0)
    if refused or not (endless or isfinite(read)):
        raise ValueError(f"{name} must be {allowed}, not {value!r}")
    return read


def count(name: str, value: Any, *, least: int | None = 0, most: int | None = None) -> int:
    """Return a whole number; ``least`` and ``most`` are allowed too, None sets no bound."""
    allowed = "a whole number" if least is None else f"a whole number of at least {least}"
    if most is not None:
        allowed += f" and at most {most}"
    try:
        read = index(value)
    except TypeError:
        raise TypeError(f"{name} must be {allowed}, not {value!r}") from None
    if isinstance(value, bool):
        raise TypeError(f"{name} must be {allowed}, not {value!r}")
    if (least is not None and read < least) or (most is not None and read > most):
        raise ValueError(f"{name} must be {allowed}, not {value!r}")
    return read


# Settings of runs over TCP.

CONNECT_SECONDS = 15.0
_OLD_OPTION = "--dtmTCPhosts"
JOIN_SLOTS = 16  # for a run that this program leads by itself


class Settings(NamedTuple):
    """How the workers of a run over TCP are reached, and who may join."""

    join_slots: int | None = None  # how many workers may join by hand
    bind: str | None = None  # this machine's address for others
    ports: tuple[int, int] | None = None  # the first and the last to listen at
    tls: bool | None = None  # whether connections are encrypted
    secret_file: str | None = None  # where those who join by hand find the secret
    ssh: str = "ssh"  # the program that replaces it, and its arguments
    connect_timeout: float = CONNECT_SECONDS  # that a host has to answer
    fan_out: int = 64  # how many agents one process starts
    tag_output: bool = False  # whether rank and host stand before each line


def settings(environ: Mapping[str, str]) -> Settings:
    """Return what the environment says.

    Raises:
        OptionError: a variable has an impossible value.
    """
    given = {}
    for name, read in _READERS.items():
        variable = f"DTM_{name.upper()}"
        text = environ.get(variable)
        if text:
            try:
                given[name] = read(text)
            except ValueError as error:
                raise OptionError(f"{variable}={text!r}: {error}") from None
    return Settings(**given)


def slots(text: str) -> int:
    """Read how many workers may join."""
    return _digits(text, 0)


def port(text: str) -> int:
    """Read a port, or 1 for any."""
    read = _digits(text, 1)
    if read > 65535:
        raise ValueError("a port from 2 to 65535 is needed")
    return read


def positive(text: str) -> int:
    """Read a number of at least 1."""
    return _digits(text, 1)


def _digits(text: str, least: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) >= least):
        raise ValueError(f"a whole number of at least {least} is needed")
    return int(text)


def seconds(text: str) -> float:
    """Read a time of more than 0."""
    try:
        read = float(text)
    except ValueError:
        read = 0.0
    if not 0.0 < read < inf:
        raise ValueError("a number of seconds above 0 is needed")
    return read


def ports(text: str) -> tuple[int, int]:
    """Read a range of ports, as in ``40000-40999``."""
    first, dash, last = text.partition("-")
    numbers = [int(part) if part.isascii() and part.isdigit() else 0 for part in (first, last)]
    low, high = numbers if dash else (numbers[0], numbers[0])
    if not 1 <= low <= high <= 65535:
        raise ValueError("a range of ports is needed, such as 40000-40999")
    return low, high


def address(text: str) -> str:
    """Read an address of this machine."""
    from ipaddress import ip_address

    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        raise ValueError(
            "an IPv4 or IPv6 address of this machine is needed, such as 10.0.0.1"
        ) from None
    return text


def _boolean(text: str) -> bool:
    known = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}
    if text.lower() not in known:
        raise ValueError(f"one of {', '.join(known)} is needed")
    return known[text.lower()]


_READERS: dict[str, Callable[[str], Any]] = {
    "join_slots": slots,
    "bind": address,
    "ports": ports,
    "tls": _boolean,
    "secret_file": str,
    "ssh": str,
    "connect_timeout": seconds,
    "fan_out": positive,
    "tag_output": _boolean,
}


def old_hosts_file(arguments: Sequence[str]) -> str | None:
    """Return the file of hosts that scripts for DEAP's dtm name on their command line.

    Raises:
        OptionError: the option stands there without a file.
    """
    named = None
    for argument, following in zip(arguments, [*arguments[1:], None]):
        if argument.startswith(f"{_OLD_OPTION}="):
            named = argument.removeprefix(f"{_OLD_OPTION}=")
        elif argument == _OLD_OPTION:
            if following is None:
                raise OptionError(f"{_OLD_OPTION} needs the file of hosts")
            named = following
    return named


def imported(option: str, path: str) -> Any:
    """Return the object that an import path names."""
    from importlib import import_module

    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise OptionError(f"option {option}: cannot import {path!r}: {error}") from error
