"""Settings of runs over TCP, from the environment; the command line writes them there.

Read-only; any thread.

Rejected: fields of :class:`dtm.options.Options`.  They would say where a program runs,
which is for who starts it to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dtm.errors import OptionError
from dtm.launch.remote import CONNECT_SECONDS

JOIN_SLOTS = 16
_BOOLEANS = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}


@dataclass(frozen=True, slots=True)
class Settings:
    """How the workers of a run are reached, and who may join.

    Attributes:
        join_slots: how many workers may join by hand; None where nothing is said.
        bind: this machine's address for others.
        ports: the first and the last port to listen at.
        tls: whether connections are encrypted.
        secret_file: where those who join by hand find the secret.
        ssh: the program that replaces ``ssh``, and its arguments.
        connect_timeout: seconds that a host has to answer.
        fan_out: how many agents one process starts.
        tag_output: whether rank and host stand before each line.
    """

    join_slots: int | None = None
    bind: str | None = None
    ports: tuple[int, int] | None = None
    tls: bool | None = None
    secret_file: str | None = None
    ssh: str = "ssh"
    connect_timeout: float = CONNECT_SECONDS
    fan_out: int = 64
    tag_output: bool = False


def settings(environ: Mapping[str, str]) -> Settings:
    """Return what the environment says.

    Raises:
        OptionError: a variable has an impossible value.
    """
    given = {}
    for variable, (name, convert) in _VARIABLES.items():
        text = environ.get(variable)
        if text:
            try:
                given[name] = convert(text)
            except ValueError as error:
                raise OptionError(f"{variable}={text!r}: {error}") from None
    return Settings(**given)


def slots(text: str) -> int:
    """Read how many workers may join."""
    return _whole(text, 0)


def positive(text: str) -> int:
    """Read a number of at least 1."""
    return _whole(text, 1)


def _whole(text: str, least: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) >= least):
        raise ValueError(f"a whole number of at least {least} is needed")
    return int(text)


def seconds(text: str) -> float:
    """Read a time of more than 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.0 < number < float("inf"):
        raise ValueError("a number of seconds above 0 is needed")
    return number


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
    if text.lower() not in _BOOLEANS:
        raise ValueError(f"one of {', '.join(_BOOLEANS)} is needed")
    return _BOOLEANS[text.lower()]


_VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "DTM_JOIN_SLOTS": ("join_slots", slots),
    "DTM_BIND": ("bind", address),
    "DTM_PORTS": ("ports", ports),
    "DTM_TLS": ("tls", _boolean),
    "DTM_SECRET_FILE": ("secret_file", str),
    "DTM_SSH": ("ssh", str),
    "DTM_CONNECT_TIMEOUT": ("connect_timeout", seconds),
    "DTM_FAN_OUT": ("fan_out", positive),
    "DTM_TAG_OUTPUT": ("tag_output", _boolean),
}
