"""Hosts: their names and slots, the file that lists them, and the lists of batch systems.

A file of hosts names one on each line, as MPI launchers read it::

    # the big ones
    node01 slots=32
    node02:16
    me@gateway.example.org slots=4 port=2222 python=/opt/py/bin/python3
    [fe80::1%eth0]:8

Slurm and Flux write lists such as ``n[01-03,7],gpu[1-2]-ib0``.  A bracket holds numbers and ranges;
each number has at least as many digits as the first of its range; a name may hold several
brackets.

Invariant: a :class:`Host` that exists can be put on a command line.  Its name and user hold no
character that a shell or the options of a program give a meaning to, wherever they came from: a
file, the environment of a batch system, a caller.

Read-only; any thread.

Rejected: looking names up here.  It takes long where a name server is down, and ``ssh`` knows
names that no server has.  For lists: ``scontrol show hostnames``, which containers do not have.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, product

from dtm.errors import OptionError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_DIGITS = re.compile(r"[0-9.]+")
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,254}")
_ZONE = re.compile(r"[A-Za-z0-9_.-]{0,32}")
_ADDRESS = re.compile(
    r"(?:(?P<user>.*)@)?(?:\[(?P<six>[^\]]*)\]|(?P<name>[^\[\]]*?))(?::(?P<slots>[^:]*))?"
)
_MOST_SLOTS = 100_000
MOST_HOSTS = 100_000
_ITEM = re.compile(r"(?:[^,\[\]]|\[[^\[\]]*\])+")
_PIECE = re.compile(r"\[([^\[\]]*)\]|([^\[\]]+)")
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_NUMBERED = re.compile(r"(.*?)([0-9]{1,18})([^0-9]*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Host:
    """A machine that runs workers.

    Attributes:
        name: its name or address, as ``ssh`` takes it; an IPv6 address without brackets.
        slots: how many workers it has.
        user: the login name there, None for what ``ssh`` is configured for.
        port: where its ``ssh`` server listens, None likewise.
        python: the interpreter there, None for the one that runs this program.

    Raises:
        OptionError: one of them is impossible; the message says which and why.
    """

    name: str
    slots: int = 1
    user: str | None = None
    port: int | None = None
    python: str | None = None

    def __post_init__(self) -> None:
        if not (_is_name(self.name) or _is_address(self.name)):
            raise OptionError(f"{self.name!r} is no name of a host")
        if not 1 <= self.slots <= _MOST_SLOTS:
            raise OptionError(f"slots must be from 1 to {_MOST_SLOTS}, not {self.slots}")
        if self.user is not None and not _USER.fullmatch(self.user):
            raise OptionError(f"{self.user!r} is no name of a user")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise OptionError(f"port must be from 1 to 65535, not {self.port}")
        if self.python is not None and not _is_program(self.python):
            raise OptionError(f"{self.python!r} is no path of a Python interpreter")

    @property
    def is_local(self) -> bool:
        """Whether it is by its name this machine: its workers need no ``ssh``."""
        return self.name.lower() in {"localhost", "127.0.0.1", "::1"}


def read_hosts(path: str) -> tuple[Host, ...]:
    """Read a file of hosts; a host that it names twice has the slots of both lines.

    Raises:
        OptionError: the file cannot be read, or a line of it; the message names both.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"the file of hosts {path} cannot be read: {error}") from error
    found: dict[str, Host] = {}
    for number, line in enumerate(lines, 1):
        try:
            words = shlex.split(line, comments=True)
            if words:
                _add(found, _host(words))
        except ValueError as error:
            raise OptionError(f"{path}, line {number}: {error}") from None
    if not found:
        raise OptionError(f"the file of hosts {path} names no host")
    return tuple(found.values())


def merged(hosts: Iterable[Host]) -> tuple[Host, ...]:
    """Join the hosts of one name into one with the slots of all, in the place of the first.

    Raises:
        OptionError: they contradict each other in something else.
    """
    found: dict[str, Host] = {}
    for host in hosts:
        _add(found, host)
    return tuple(found.values())


def _add(found: dict[str, Host], host: Host) -> None:
    key = host.name.lower()
    before = found.get(key)
    if before is not None:
        host = replace(host, name=before.name, slots=before.slots + host.slots)
        if host != replace(before, slots=host.slots):
            what = "with another user, port or python than the first time"
            raise OptionError(f"host {host.name} is named again {what}")
    found[key] = host


def _host(words: list[str]) -> Host:
    address, *settings = words
    match = _ADDRESS.fullmatch(address)
    if match is None or (match["name"] and ":" in match["name"]):
        hint = "an IPv6 address goes in brackets, as in [::1]:4"
        raise OptionError(
            f"{address!r} is not understood; write host, host:slots, user@host; {hint}"
        )
    six = match["six"]
    if six is not None and not _is_address(six):
        raise OptionError(f"{six!r} is no IPv6 address")
    given = {name: match[name] for name in ("user", "slots") if match[name] is not None}
    for setting in settings:
        name, equals, value = setting.partition("=")
        name = name.lower().replace("-", "_")
        if not equals or name not in _SETTINGS:
            raise OptionError(f"{setting!r} is not understood; there are {'=, '.join(_SETTINGS)}=")
        if name in given:
            raise OptionError(f"{name} is given twice")
        given[name] = value
    return _made(six or match["name"] or "", given)


_SETTINGS = ("slots", "max_slots", "user", "port", "python")


def _made(name: str, given: dict[str, str]) -> Host:
    numbers = {
        key: _number(key, given[key]) for key in ("slots", "max_slots", "port") if key in given
    }
    slots, most = numbers.get("slots", 1), numbers.get("max_slots")
    if most is not None and most < slots:
        raise OptionError(f"slots={slots} is more than max_slots={most}")
    host = Host(name, slots, given.get("user"), numbers.get("port"), given.get("python"))
    idle = [f"{setting}=" for setting in ("user", "port", "python") if setting in given]
    if host.is_local and idle:
        raise OptionError(
            f"{host.name} is this machine, whose workers need no login, so {', '.join(idle)} has "
            "no meaning; for one by ssh write this machine's other name"
        )
    return host


def _number(name: str, text: str) -> int:
    if _WHOLE.fullmatch(text) is None:
        raise OptionError(f"{name} must be a whole number, not {text!r}")
    return int(text)


def _is_name(text: str) -> bool:
    """Whether this can be a host's name, or is an IPv4 address."""
    if _NAME.fullmatch(text) is None or ".." in text:
        return False
    return "." not in text or not _DIGITS.fullmatch(text) or _is_ip(text)


def _is_address(text: str) -> bool:
    """Whether this is an IPv6 address; its zone, as in ``fe80::1%eth0``, is checked here."""
    address, _, zone = text.partition("%")
    return ":" in address and _is_ip(address) and _ZONE.fullmatch(zone) is not None


def _is_ip(text: str) -> bool:
    from ipaddress import ip_address

    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_program(path: str) -> bool:
    return path != "" and not path.startswith("-") and path.isprintable()


# Lists of hosts as batch systems write them.


def expand(text: str) -> list[str]:
    """Return the names in a list, in its order.

    Raises:
        OptionError: it is not such a list, or is of more than 100,000 hosts.
    """
    names: list[str] = []
    for item in _items(text):
        pieces = [_alternatives(*match.groups()) for match in _PIECE.finditer(item)]
        named = ("".join(parts) for parts in product(*pieces))
        names += islice(named, MOST_HOSTS + 1)
        if len(names) > MOST_HOSTS:
            raise OptionError(f"there are more than {MOST_HOSTS} hosts in {text[:60]!r}")
    return names


def compress(names: Iterable[str]) -> str:
    """Return names as a list, which expands to the same names in the same order.

    Neighbours that differ in their last number alone share a bracket.
    """
    groups: list[tuple[str, str, list[str]]] = []
    for name in names:
        match = _NUMBERED.fullmatch(name)
        before, number, after = match.groups() if match else (name, "", "")
        if groups and number and groups[-1][2][0] and (before, after) == groups[-1][:2]:
            groups[-1][2].append(number)
        else:
            groups.append((before, after, [number]))
    return ",".join(_group(*group) for group in groups)


def _items(text: str) -> Iterator[str]:
    """Split at the commas outside of brackets."""
    place = 0
    while place < len(text):
        match = _ITEM.match(text, place)
        if match is None:
            raise OptionError(f"{text!r} is no list of hosts, from {text[place:]!r} on")
        yield match[0]
        place = match.end() + 1
        if match.end() < len(text) and (text[match.end()] != "," or place == len(text)):
            raise OptionError(f"{text!r} is no list of hosts, from {text[match.end() :]!r} on")


def _alternatives(ranges: str | None, literal: str | None) -> list[str]:
    if ranges is None:
        return [literal or ""]
    found: list[str] = []
    for part in ranges.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise OptionError(f"[{ranges}] is no range of numbers")
        first, last = match[1], match[2] or match[1]
        if int(last) < int(first):
            raise OptionError(f"the range {part} in [{ranges}] runs backwards")
        if int(last) - int(first) >= MOST_HOSTS:
            raise OptionError(f"the range {part} is of more than {MOST_HOSTS} hosts")
        width = len(first)
        found += (f"{number:0{width}d}" for number in range(int(first), int(last) + 1))
    return found


def _group(before: str, after: str, numbers: list[str]) -> str:
    if len(numbers) == 1:
        return f"{before}{numbers[0]}{after}"
    runs: list[list[str]] = []
    for number in numbers:
        if runs and number == f"{int(runs[-1][-1]) + 1:0{len(runs[-1][0])}d}":
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = (run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"{before}[{','.join(parts)}]{after}"
