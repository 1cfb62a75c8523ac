"""Addresses of TCP, sockets that listen and connect, and what the kernel knows of them.

Written ``tcp://host:port``, an IPv6 address in brackets.  Names are resolved when a
worker is told an address by people; what workers tell each other are numbers.

A peer that vanishes with its machine says nothing.  On a silent connection the
kernel asks (keepalive); where data waits for an answer, see ``Stall``.

Rejected: ``TCP_USER_TIMEOUT``.  It ends a connection also when the peer's kernel
answers all the time and only its program does not read, and a task that holds the
interpreter for a minute is no reason to give up its worker.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import struct
import sys
import termios
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from dtm.errors import CommunicationError

_BACKLOG = 1024
_IDLE, _INTERVAL, _PROBES = 4, 1, 4  # seconds, seconds, count: silent for 8 s, and it is gone
_SCHEME = "tcp://"

Resolved = tuple[int, Any]  # family and what connect() takes


class Address(NamedTuple):
    """A host, by name or number, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{_SCHEME}{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address.

        Raises:
            CommunicationError: it is none.
        """
        host, colon, port = text.removeprefix(_SCHEME).rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            colon = ""
        if not (text.startswith(_SCHEME) and colon and host and port.isdecimal()):
            raise CommunicationError(
                f"{text!r} is no address: it looks like tcp://host:5000 or tcp://[::1]:5000"
            )
        if not 0 < int(port) < 1 << 16:
            raise CommunicationError(f"{text!r} has a port that cannot be: 1 to 65535 can")
        return cls(host, int(port))


def resolve(address: Address) -> list[Resolved]:
    """Return the ways to call an address, the first one the best."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CommunicationError(f"the name in {address} cannot be resolved: {reason}") from error
    return [(family, where) for family, _, _, _, where in found]


def is_loopback(host: str) -> bool:
    """Whether connections to this numeric address stay on this machine."""
    return host.startswith("127.") or host == "::1"


def listen(host: str, ports: tuple[int, int] | None) -> socket.socket:
    """Return a socket that listens at a host, on a free port, or one of a range (ends included)."""
    low, high = ports or (0, 0)
    if not 0 <= low <= high < 1 << 16:
        raise CommunicationError(f"{low}-{high} is no range of ports")
    family, where = resolve(Address(host, low or 1))[0]
    for port in range(low, high + 1):
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((where[0], port, *where[2:]))
            listener.listen(_BACKLOG)
            return listener
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                place = f"{host}, port {port}" if port else host
                raise CommunicationError(f"cannot listen at {place}: {error.strerror}") from error
    raise CommunicationError(f"no port of {low}-{high} is free at {host}; give a wider range")


def begin_connecting(target: Resolved) -> socket.socket:
    """Return a socket that is being connected; it becomes writable when that is done or failed.

    Raises:
        OSError: it failed already.
    """
    family, where = target
    connection = socket.socket(family)
    connection.setblocking(False)
    status = connection.connect_ex(where)
    if status not in {0, errno.EINPROGRESS}:
        connection.close()
        raise OSError(status, os.strerror(status))
    return connection


def set_options(connection: socket.socket) -> None:
    """Send small messages at once, and notice when the peer's machine is gone."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _IDLE),
        ("TCP_KEEPALIVE", _IDLE),  # what macOS calls it
        ("TCP_KEEPINTVL", _INTERVAL),
        ("TCP_KEEPCNT", _PROBES),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def allow_descriptors(count: int) -> None:
    """Raise the limit of open files, as far as this process may, to what a large run needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# What the kernel knows of a connection

# Where Linux' struct tcp_info has its numbers: the size of a segment, how many are under way, ms
# since the last confirmation; since 5.4 also the bytes not sent so far, and the peer's window.
_SEGMENT, _UNDER_WAY, _LAST_ACK, _NOT_SENT, _WINDOW = 16, 24, 56, 144, 228
_OLD, _NEW = 104, 232


def unsent(descriptor: int) -> int:
    """Return how many bytes the peer's kernel has not confirmed; 0 where nobody can say."""
    try:
        answer = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return int(struct.unpack("i", answer)[0])


class Stall:
    """Finds connections on which the peer's kernel has ceased to confirm what was sent.

    Attributes:
        limit: seconds without a sign of life while data is under way.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._since: dict[int, tuple[int, float]] = {}

    def look(self, descriptors: Iterable[int], now: float) -> list[int]:
        """Return those of these connections whose peer is gone; call it once a second or more."""
        before, self._since = self._since, {}
        stalled = []
        for descriptor in descriptors:
            heard = _last_heard(descriptor, now)
            if heard is None:
                continue
            last, since = before.get(descriptor, (0, now))
            self._since[descriptor] = (heard, since if abs(heard - last) <= 50 else now)
            if now - self._since[descriptor][1] >= self.limit:
                stalled.append(descriptor)
        return stalled


def _last_heard(descriptor: int, now: float) -> int | None:
    """Return the time of the last confirmation in ms, None if none is waited for."""
    if sys.platform != "linux":
        return None
    view = socket.socket(fileno=os.dup(descriptor))
    try:
        with view:
            info = view.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _NEW)
    except OSError:
        return None
    if len(info) < _OLD:
        return None

    def number(offset: int) -> int:
        return int.from_bytes(info[offset : offset + 4], sys.byteorder)

    waits = number(_UNDER_WAY) > 0
    if (
        len(info) >= _NEW
    ):  # or nothing gets out, though the peer would take it: our own link is down
        waits = waits or (number(_NOT_SENT) > 0 and number(_WINDOW) >= number(_SEGMENT))
    return int(now * 1000) - number(_LAST_ACK) if waits else None
