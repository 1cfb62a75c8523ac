"""Functions travel once: what is sent of a function, and what need not be.

A function that goes by reference is a few dozen bytes and always goes as it is.
One that goes by value (a closure may hold an array of 100 MB) gets a key, the
digest of its pickle, and its pickle goes along only if the receiver does not hold
it.  Sender and receiver each keep, for the other, the keys used last, at most
``HELD``, and apply one rule to them.  Messages of a pair of workers arrive in
order, so the two lists are equal without a word about it.

Invariants: after a message is unpacked, the receiver's keys for the sender are
the sender's keys for the receiver at the time of packing, in the same order.
Hence whatever ``pack`` returns must be sent, in that order (or taken back with
``restore``), and each arrival must be unpacked, whatever comes of it.

A pickle is made once per *scope* (the map, say, that needs the function): a
closure's variables may change between two maps, and each must see the values of
its time.  What cannot change is pickled once for all.

Threads: none of this is locked; the worker's lock covers it, as it covers sending.

Rejected: to ask "do you have it?" first (a round trip in each steal), and to key by
``id`` (a new object may have the id of a dead one).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Final
from weakref import WeakKeyDictionary

from dtm.errors import InvariantError
from dtm.wire.pickling import dumps_flat, loads
from dtm.wire.rebuilding import is_module_dict

HELD: Final = 64
"""How many functions by value each worker holds for each other."""

INLINE: Final = 256
"""Pickles shorter than this many bytes go along each time, without a key."""

_ALWAYS: Final = object()  # the scope of a pickle that cannot become stale
_CONSTANTS: Final = (int, float, complex, str, bytes, bool, type(None))


class RecentKeys:
    """The keys used last, at most ``HELD``: one rule for both ends."""

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        self._keys: OrderedDict[bytes, None] = OrderedDict.fromkeys(keys)

    def use(self, key: bytes) -> tuple[bool, bytes | None]:
        """Make ``key`` the latest; return whether it was held, and which one had to go."""
        held = key in self._keys
        self._keys[key] = None
        self._keys.move_to_end(key)
        dropped = self._keys.popitem(last=False)[0] if len(self._keys) > HELD else None
        return held, dropped

    def __iter__(self) -> Iterator[bytes]:
        """Go through the keys, the oldest first."""
        return iter(self._keys)


class FunctionSender:
    """What this worker's peers hold of its functions."""

    def __init__(self) -> None:
        self._held: dict[int, RecentKeys] = {}
        self._pickles: WeakKeyDictionary[Any, tuple[object, bytes, bytes | None]]
        self._pickles = WeakKeyDictionary()

    def pack(
        self, rank: int, function: Any, scope: object = None
    ) -> tuple[bytes | None, bytes | None]:
        """Return ``(key, pickle)`` to be sent to ``rank``, either of them perhaps None.

        Within one ``scope`` (compared by ``==``; None is never the same) a function
        is taken as it was at the first call.

        Raises:
            SerializationError: the function cannot be pickled; nothing is noted.
        """
        key, payload = self._pickled(function, scope)
        if key is None:
            return None, payload
        held, _ = self._held.setdefault(rank, RecentKeys()).use(key)
        return key, None if held else payload

    def adopt(self, function: Any, key: bytes, payload: bytes, scope: object) -> None:
        """Note the pickle that a function came from, so that it is passed on unchanged."""
        self._remember(function, scope, key, payload)

    def forget(self, rank: int) -> None:
        """Drop what is known of a worker that is gone."""
        self._held.pop(rank, None)

    def held_by(self, rank: int) -> list[bytes]:
        """Return the keys that a worker holds, the oldest first."""
        return list(self._held.get(rank, ()))

    def restore(self, rank: int, keys: Iterable[bytes]) -> None:
        """Go back to what ``held_by`` said: what was packed since then is not sent after all."""
        self._held[rank] = RecentKeys(keys)

    def _pickled(self, function: Any, scope: object) -> tuple[bytes | None, bytes]:
        try:
            known = self._pickles.get(function)
        except TypeError:  # no weak references, or no hash
            known = None
        if known is not None and (known[0] is _ALWAYS or _same(known[0], scope)):
            return known[2], known[1]
        payload = dumps_flat(function)
        key = _digest(payload) if len(payload) >= INLINE else None
        self._remember(function, scope, key, payload)
        return key, payload

    def _remember(self, function: Any, scope: object, key: bytes | None, payload: bytes) -> None:
        valid = _ALWAYS if _is_constant(function) else scope
        if valid is None or not _equal_only_to_itself(function):
            return
        try:
            self._pickles[function] = (valid, payload, key)
        except TypeError:  # no weak references, or no hash: pickled again each time
            return


class FunctionReceiver:
    """The functions that peers have sent, each loaded once whoever sent it."""

    def __init__(self, sender: FunctionSender | None = None) -> None:
        self._sender = sender
        self._held: dict[int, RecentKeys] = {}
        self._payloads: dict[bytes, bytes] = {}
        self._holders: dict[bytes, int] = {}
        self._loaded: dict[bytes, Any] = {}

    def unpack(
        self, sender: int, key: bytes | None, payload: bytes | None, scope: object = None
    ) -> Any:
        """Return the function that rank ``sender`` packed.

        What its loading raises passes on; the next arrival of its key tries again.
        """
        if key is None:
            if payload is None:
                message = f"worker {sender} sent neither a function nor the key of one"
                raise InvariantError(message)
            return loads([payload])
        self._note(sender, key, payload)
        if key not in self._loaded:
            self._loaded[key] = loads([self._payloads[key]])
        function = self._loaded[key]
        if self._sender is not None:
            self._sender.adopt(function, key, self._payloads[key], scope)
        return function

    def forget(self, rank: int) -> None:
        """Drop what a worker had sent that is gone."""
        for key in self._held.pop(rank, ()):
            self._release(key)

    def held_for(self, rank: int) -> list[bytes]:
        """Return the keys held for a sender, the oldest first."""
        return list(self._held.get(rank, ()))

    def _note(self, sender: int, key: bytes, payload: bytes | None) -> None:
        held, dropped = self._held.setdefault(sender, RecentKeys()).use(key)
        if not held:
            if payload is None:
                message = f"worker {sender} refers to a function that it has not sent"
                raise InvariantError(message)
            self._holders[key] = self._holders.get(key, 0) + 1
            self._payloads.setdefault(key, payload)
        if dropped is not None:
            self._release(dropped)

    def _release(self, key: bytes) -> None:
        self._holders[key] -= 1
        if self._holders[key] == 0:
            del self._holders[key], self._payloads[key]
            self._loaded.pop(key, None)


def _digest(payload: bytes) -> bytes:
    from hashlib import blake2b

    return blake2b(payload, digest_size=16).digest()


def _same(scope: object, other: object) -> bool:
    return scope is not None and other is not None and scope == other


def _equal_only_to_itself(function: Any) -> bool:
    """Tell whether ``==`` means the same: other equal callables may pickle differently."""
    if isinstance(function, (MethodType, BuiltinFunctionType)):
        return True  # equal if they have the same function, and the very same object
    compare: Any = type(function).__eq__
    return compare is object.__eq__


def _is_constant(function: Any) -> bool:
    """Tell whether nothing that the pickle of a function holds can ever change."""
    if type(function) is not FunctionType:
        return isinstance(function, type)
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    return (
        function.__closure__ is None
        and is_module_dict(function.__globals__)
        and not vars(function)
        and all(type(value) in _CONSTANTS for value in defaults)
    )
