"""Functions travel once: what is sent of a function, and what need not be.

A function that goes by reference is a few dozen bytes and always goes as it is.
One that goes by value, or with what is bound to it (a closure may hold an array of 100 MB), gets
a key, the digest of its frames, and these go along only if the receiver does not hold it.

The receiver decides what it holds: as much as fits into ``cache_bytes``, and the latest in any
case; of those that take more than a quarter of it, only one; the least used goes first.  With
its next message to each worker that believes a key to be held here it says which are not any
more.  A grant that crosses such a notice on its way refers to what is not here; then the items
go back to their owner, and come again with the function (:mod:`dtm.wire.codec`).

To make the digest of much takes longer than to write it to memory that all workers share.  Where
they do, a function of ``DIGESTED`` bytes or more gets a random key: it goes once for each call.

In a run on several hosts a function of so many bytes does not go along at all, but once to each
host (:mod:`dtm.wire.far_functions`).

The frames are made once per *scope* (the call that needs the function): a
closure's variables may change between two maps, and each must see the values of
its time.  They go with the scope.  What cannot change is pickled once for all.

Threads: none of this is locked; the worker's lock covers it, as it covers sending.

Rejected: to ask "do you have it?" first (a round trip in each steal); to key by
``id`` (a new object may have the id of a dead one); two lists of so many entries kept equal at both
ends (it needs no notices, but 64 closures of 20 MB from each of three workers are 4 GB).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from types import FunctionType
from typing import Any, Final, NamedTuple

from dtm.comm.base import Frame
from dtm.core.identity import WeakIdentity
from dtm.errors import InvariantError
from dtm.handle import Handle, Key, collecting_loaded, collecting_pickled, here
from dtm.task import name_of
from dtm.wire.far_functions import FarFunction
from dtm.wire.imports import imports
from dtm.wire.pickling import changeable, dumps, lasting, loads
from dtm.wire.rebuilding import is_module_dict

CACHE_BYTES: Final = 64 << 20
"""How much a worker holds of functions by value that others have sent."""

DIGEST_BYTES: Final = 16

INLINE: Final = 256
"""Pickles shorter than this many bytes go along each time, without a key."""

DIGESTED: Final = 1 << 20
"""What is larger gets a random key where all workers share memory."""

MOST_HELD: Final = 1024

_CONSTANTS: Final = (int, float, complex, str, bytes, bool, type(None))


class Packed(NamedTuple):
    """A function as it travels; without a key it goes along each time."""

    key: bytes | None
    frames: Sequence[Frame]
    size: int
    handles: Sequence[Handle[Any]] = ()


class AbsentError(Exception):
    """A sender refers to a function that is not held here any more."""


class FunctionSender:
    """What this worker's peers hold of its functions.

    Args:
        shares_memory: tells whether all workers read large frames from this one's memory.
        several_hosts: tells whether the run is on more than one.
    """

    def __init__(
        self,
        shares_memory: Callable[[], bool] = lambda: False,
        several_hosts: Callable[[], bool] = lambda: False,
    ) -> None:
        self._shares_memory = shares_memory
        self._several_hosts = several_hosts
        self._held: dict[int, set[bytes]] = {}
        self._constants: WeakIdentity[Packed] = WeakIdentity()
        self._scopes: WeakIdentity[tuple[Any, Packed]] = WeakIdentity()

    def pack(self, function: Any, scope: object = None) -> Packed:
        """Return the frames of a function.

        Within one ``scope`` (known by identity; None is never the same) a function
        is taken as it was at the first call.

        Raises:
            SerializationError: the function cannot be pickled.
        """
        constant = _is_constant(function)
        if constant:
            known = self._constants.get(function)
        else:
            entry = None if scope is None else self._scopes.get(scope)
            known = entry[1] if entry is not None and entry[0] is function else None
        if known is None:
            key: bytes | None
            handles: list[Handle[Any]] = []
            frames = collecting_pickled(handles, dumps, function)
            size = _size(frames)
            if size >= DIGESTED and here.table is not None and self._several_hosts():
                handle = Handle(function, size=size)
                handle.frames = lasting(frames)
                handles.append(handle)
                frames = dumps(FarFunction(handle, name_of(function)))
                key = _digest(frames)
            elif size >= DIGESTED and self._shares_memory():
                key = os.urandom(DIGEST_BYTES)
                # One object, so that its bytes are written once, whoever gets them.
                frames[0] = memoryview(frames[0])
            else:
                key = _digest(frames) if size >= INLINE else None
            known = Packed(key, frames, size, handles)
            if constant:
                self._constants.set(function, known)
            elif scope is not None:
                self._scopes.set(scope, (function, known))
        return known

    def known(self, scope: object, function: Any) -> Packed | None:
        """Return the frames of the function that a scope needs, None if there are none yet."""
        entry = self._scopes.get(scope)
        return self._constants.get(function) if entry is None else entry[1]

    def adopt(self, function: Any, packed: Packed, scope: object) -> None:
        """Note the frames that a function came from, so that it is passed on unchanged."""
        self._scopes.set(scope, (function, packed))

    def holds(self, rank: int, key: bytes) -> bool:
        """Tell whether a worker is believed to hold a function."""
        return key in self._held.get(rank, ())

    def holders(self, key: bytes) -> int:
        """Return how many workers are believed to hold a function."""
        return sum(key in held for held in self._held.values())

    def sent(self, rank: int, keys: Iterable[bytes]) -> None:
        """Note that these functions are on their way to a worker."""
        self._held.setdefault(rank, set()).update(keys)

    def not_held(self, rank: int, keys: Iterable[bytes]) -> None:
        """Note that a worker does not hold these any more."""
        self._held.get(rank, set()).difference_update(keys)


class _Entry(NamedTuple):
    packed: Packed
    function: Any
    holders: set[int]
    size: int


class FunctionReceiver:
    """The functions that peers have sent, each loaded once whoever sent it.

    Attributes:
        dropped: keys that are not held here any more, by the workers that believe them to be.
    """

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self._limit = cache_bytes
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._bytes = 0
        self.dropped: dict[int, list[bytes]] = {}

    def unpack(
        self, sender: int, key: bytes | None, frames: Sequence[Frame]
    ) -> tuple[Any, Packed | None]:
        """Return the function that rank ``sender`` packed, and its frames if they have a key.

        What its loading raises passes on; the next arrival of its key tries again.

        Raises:
            AbsentError: only its key has come, and it is not held here.
        """
        if key is None:
            if not frames:
                message = f"worker {sender} sent neither a function nor the key of one"
                raise InvariantError(message)
            return loads(frames), None
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            entry.holders.add(sender)
            return entry.function, entry.packed
        if not frames:
            raise AbsentError
        return self._take(sender, key, [frames[0], *map(changeable, frames[1:])])

    def _take(self, sender: int, key: bytes, frames: list[Frame]) -> tuple[Any, Packed]:
        size = _size(frames)
        self._make_room(size)
        try:
            with collecting_loaded() as handles:
                function = loads(frames)
        except BaseException:  # however it ends, the sender has to learn that it is not kept
            self.dropped.setdefault(sender, []).append(key)
            raise
        packed = Packed(key, frames, size, handles)
        if handles:  # what they name stays with the function
            size += sum(handle.size for handle in handles)
            self._make_room(size)
        self._entries[key] = _Entry(packed, function, {sender}, size)
        self._bytes += size
        return function, packed

    def _make_room(self, size: int) -> None:
        entries, large = self._entries, self._limit // 4
        if size > large:
            for key in [key for key, entry in entries.items() if entry.size > large]:
                self._drop(key)
        while entries and (self._bytes + size > self._limit or len(entries) >= MOST_HELD):
            self._drop(next(iter(entries)))

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key)
        self._bytes -= entry.size
        for rank in entry.holders:
            self.dropped.setdefault(rank, []).append(key)

    def forget(self, handle: Key) -> None:
        """Drop the functions that have a handle with this key."""
        for key, entry in [*self._entries.items()]:
            if any(one.key == handle for one in entry.packed.handles):
                self._drop(key)

    def dropped_for(self, rank: int) -> list[bytes]:
        """Return, once, the keys that a worker believes to be held here, and that are not."""
        return self.dropped.pop(rank, [])

    @property
    def held_bytes(self) -> int:
        """How much is held."""
        return self._bytes


def _size(frames: Sequence[Frame]) -> int:
    return sum(memoryview(frame).nbytes for frame in frames)


def _digest(frames: Sequence[Frame]) -> bytes:
    digest = blake2b(digest_size=DIGEST_BYTES)
    for frame in frames:
        digest.update(frame)
    return digest.digest()


def _is_constant(function: Any) -> bool:
    """Tell whether nothing that the pickle of a function holds can ever change."""
    kind = type(function)
    if kind not in (FunctionType, type):
        return False
    if imports.apart and not imports.have(function):  # what it reads goes along, and may change
        return False
    if kind is type:
        return True
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    return (
        function.__closure__ is None
        and is_module_dict(function.__globals__)
        and not vars(function)
        and all(type(value) in _CONSTANTS for value in defaults)
    )
