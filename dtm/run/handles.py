"""The shared objects of one worker: who has them, who needs them, when they go.

An object that ``dtm.share`` names belongs to the worker that shared it, its *owner*.  Others get a
handle with what they run, and the object when they first look at it.

Life of a handle away from its owner:

========== =================================================== ====================================
state      begins when                                         messages
========== =================================================== ====================================
held       it is first loaded in this process                  Noted(held) to the owner
confirmed  the owner has noted that                            Noted(confirmed) from the owner
fetched    a task has looked at it, and the object has come    Fetch to the owner, Found from it
gone       nothing here refers to it any more                  Noted(released) to the owner
========== =================================================== ====================================

The owner keeps the object while its own handle lives or somebody holds it.  Who has fetched an
object keeps it as long as it fits into ``cacheBytes``, to be spared another way to the owner: for
the next part of a call, or the next generation.  When the owner's own handle is gone it tells all
holders that the object is *unneeded*, and they forget what they only keep.

Between the two a
message with the handle is on its way: who sends one *pins* its own handle until the receiver says
Noted(kept), which it does when the owner has confirmed.  So at every time somebody whom the owner
knows has it.  What goes along with a function is not pinned: the call has it until its results
are in.

One worker of each other host gets the object from the owner, or from the hosts before it, four
from each: a tree.  The others of its host are sent to it.  On one host large frames go through
shared memory (:mod:`dtm.comm.sharing`), once, whoever asks.

What can go wrong: who was asked for the object has let go of it: then the owner is asked, and has
to answer.  The owner has let go of it (a handle that came by ways of the user's own, in a file
say): the look raises.  A worker dies: the run ends, and so does every wait.  A task of the owner
runs for hours: its load-balancer thread answers.  Somebody looks while messages are read (in a
``__setstate__``): the answer could not be read, so that raises.

Threads: ``fetch`` belongs to whoever looks; it waits without the worker's lock.  All else is under
it.  Handles die in any thread, and do no more then than to append to ``_dead``.
"""

from __future__ import annotations

import os
import pickle
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from dtm.comm.base import Frame
from dtm.core.messages import Fetch, Found, Message, Noted
from dtm.errors import RunStateError, SerializationError
from dtm.handle import Handle, Key
from dtm.wire.functions import CACHE_BYTES
from dtm.wire.pickling import dumps, lasting

FAN_OUT = 4
_LOOK_SECONDS = 0.05


class World(Protocol):
    """What a worker does for its handles."""

    lock: Any
    ended: bool

    def send(self, to: int, message: Message) -> None:
        """Send a message, with the lock held."""

    def service(self) -> None:
        """Read what has come."""


class _Fetching:
    """An object on its way here."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.reason = ""


class _Own:
    """What the owner knows of an object that others hold.

    Attributes:
        value, frames, size: the object.
        holders: who has a handle.
        places: who has the object on each other host, in the order in which they asked.
    """

    def __init__(self, handle: Handle[Any]) -> None:
        self.value = handle.value
        self.frames = handle.frames
        self.size = handle.size
        self.holders: set[int] = set()
        self.places: dict[str, int] = {}


class Handles:
    """The handles in one worker.

    Args:
        world: sends messages.
        rank: which worker this is.
        hosts: the machines of all.
        cache_bytes: how much is kept of objects that were fetched, in case they are needed again.
        forget: lets go of functions that are only kept and have a handle with this key.
    """

    def __init__(
        self,
        world: World,
        rank: int,
        hosts: Sequence[str],
        cache_bytes: int = CACHE_BYTES,
        forget: Callable[[Key], None] = lambda _: None,
    ) -> None:
        self._cache_bytes = cache_bytes
        self._forget = forget
        self._recent: OrderedDict[Key, Handle[Any]] = OrderedDict()
        self._unneeded: set[Key] = set()
        self._loose: deque[Key] = deque()
        self._world = world
        self._rank = rank
        self._hosts = hosts
        self._token = os.urandom(6)
        self._made = 0
        self._refs: dict[Key, weakref.ref[Handle[Any]]] = {}
        self._own: dict[Key, _Own] = {}
        self._held: set[Key] = set()
        self._confirmed: set[Key] = set()
        self._pins: dict[tuple[int, Key], list[Handle[Any]]] = {}
        self._unkept: dict[Key, list[int]] = {}
        self._fetching: dict[Key, _Fetching] = {}
        self._asking: dict[Key, list[int]] = {}
        self._dead: deque[Key] = deque()

    # Handles that come and go.

    def pack(self, handle: Handle[Any]) -> None:
        """Make the frames of an object; raises ``SerializationError`` if it cannot be sent."""
        value = handle.value
        try:
            frames = dumps(value)
        except SerializationError as error:
            message = f"a {type(value).__name__} cannot be shared: {error}"
            raise SerializationError(message) from error
        handle.size = sum(memoryview(frame).nbytes for frame in frames)
        handle.frames = lasting(frames)

    def adopt(self, handle: Handle[Any]) -> Key:
        """See :class:`dtm.handle.Table`."""
        if handle.frames is None:
            self.pack(handle)
        with self._world.lock:
            if handle.key is None:
                self._made += 1
                handle.key = self._rank, self._made, self._token
                self._note(handle.key, handle)
            return handle.key

    def arrived(self, key: Key, size: int) -> Handle[Any]:
        """See :class:`dtm.handle.Table`."""
        with self._world.lock:
            handle = self._living(key)
            if handle is None:
                own = self._own.get(key)
                if own is None:
                    handle = Handle(key=key, size=size)
                else:
                    handle = Handle(own.value, key, own.size)
                    handle.frames = own.frames
                self._note(key, handle)
                if key[0] != self._rank and key not in self._held:
                    self._held.add(key)
                    self._world.send(key[0], Noted(held=(key,)))
            if key in self._unneeded:  # and perhaps in a function that will be kept
                self._loose.append(key)
            return handle

    def _note(self, key: Key, handle: Handle[Any]) -> None:
        dead = self._dead
        self._refs[key] = weakref.ref(handle, lambda _: dead.append(key))

    def pin(self, to: int, handles: Iterable[Handle[Any]]) -> None:
        """Keep handles that are on their way to a worker until it says that it has them."""
        for handle in handles:
            assert handle.key is not None
            self._pins.setdefault((to, handle.key), []).append(handle)

    def came(self, source: int, keys: Iterable[Key]) -> None:
        """Tell the sender of a message what it need not keep any more for this worker."""
        kept = []
        for key in keys:
            if key in self._held and key[0] != source and key not in self._confirmed:
                self._unkept.setdefault(key, []).append(source)
            else:
                kept.append(key)
        if kept:
            self._world.send(source, Noted(kept=tuple(kept)))

    def settle(self) -> None:
        """Tell the owners of handles that have gone."""
        while self._loose:
            self._forget(self._loose.popleft())
        while self._dead:
            key = self._dead.popleft()
            known = self._refs.get(key)
            if known is None or known() is not None:  # it has come again
                continue
            del self._refs[key]
            self._confirmed.discard(key)
            self._unneeded.discard(key)
            self._fetching.pop(key, None)
            if key in self._own:
                for holder in self._own[key].holders:
                    self._world.send(holder, Noted(unneeded=(key,)))
            if key in self._held:
                self._held.discard(key)
                self._world.send(key[0], Noted(released=(key,)))

    # Messages.

    def hear(self, source: int, message: Noted | Fetch | Found) -> None:
        """Act on a message about handles."""
        if isinstance(message, Noted):
            self._hear(source, message)
        elif isinstance(message, Fetch):
            self._answer(source, message)
        else:
            self._take(source, message)

    def _hear(self, source: int, noted: Noted) -> None:
        for key in noted.held:
            self._held_by(source, key)
        for key in noted.released:
            self._released(source, key)
        for key in noted.confirmed:
            if key in self._held:
                self._confirmed.add(key)
            for sender in self._unkept.pop(key, ()):
                self._world.send(sender, Noted(kept=(key,)))
        for key in noted.unneeded:
            if key in self._held:  # else this has crossed the word that it is released
                self._unneeded.add(key)
            self._recent.pop(key, None)
            self._forget(key)
        for key in noted.kept:
            pinned = self._pins[source, key]
            pinned.pop()
            if not pinned:
                del self._pins[source, key]

    def _held_by(self, source: int, key: Key) -> None:
        handle = self._living(key)
        if handle is not None and key not in self._own:
            self._own[key] = _Own(handle)
        if key in self._own:
            self._own[key].holders.add(source)
        alone = () if handle is not None else (key,)
        self._world.send(source, Noted(confirmed=(key,), unneeded=alone))

    def _released(self, source: int, key: Key) -> None:
        own = self._own.get(key)
        if own is not None:
            own.holders.discard(source)
            if not own.holders:
                del self._own[key]

    def _living(self, key: Key) -> Handle[Any] | None:
        known = self._refs.get(key)
        return None if known is None else known()

    def _answer(self, source: int, fetch: Fetch) -> None:
        key = fetch.key
        frames = self._frames(key)
        if frames is None:
            if key in self._fetching and not fetch.insist:
                self._asking.setdefault(key, []).append(source)
            else:
                self._world.send(source, Found(key, "it was freed, for nobody had a handle"))
            return
        at = -1 if fetch.insist or key[0] != self._rank else self._place(source, key)
        if at >= 0:
            self._world.send(source, Found(key, "", at))
        else:
            self._world.send(source, Found(key, "", -1, tuple(frames)))

    def _frames(self, key: Key) -> Sequence[Frame] | None:
        own, handle = self._own.get(key), self._living(key)
        if own is not None:
            return own.frames
        return None if handle is None else handle.frames

    def _place(self, source: int, key: Key) -> int:
        """Return who is to give an object to a worker, -1 for this one."""
        host = self._hosts[source]
        own = self._own.get(key)
        if own is None or host == self._hosts[self._rank]:
            return -1
        first = own.places.get(host)
        if first is not None:
            return -1 if first == source else first
        number = len(own.places)
        givers = [*own.places.values()]
        own.places[host] = source
        return -1 if number < FAN_OUT else givers[number // FAN_OUT - 1]

    def _take(self, source: int, found: Found) -> None:
        key = found.key
        fetching = self._fetching.get(key)
        if fetching is None:
            return
        if found.at >= 0:
            self._world.send(found.at, Fetch(key))
            return
        if found.reason and source != key[0]:
            self._world.send(key[0], Fetch(key, insist=True))
            return
        handle = self._living(key)
        if handle is not None and not found.reason:
            handle.frames = found.frames
        fetching.reason = found.reason
        del self._fetching[key]
        fetching.done.set()
        for asking in self._asking.pop(key, ()):
            self._world.send(asking, Found(key, found.reason, -1, found.frames))

    # Who looks.

    def fetch(
        self, handle: Handle[Any], load: Callable[[Sequence[Frame]], Any] | None = None
    ) -> Any:
        """See :class:`dtm.handle.Table`."""
        key, world = handle.key, self._world
        assert key is not None
        if world.lock._is_owned():  # noqa: SLF001 - there is no public way to ask
            message = f"{handle!r} cannot be looked at while objects are pickled or loaded"
            raise RunStateError(message)
        with world.lock:
            fetching = None
            if handle.frames is None:
                if key[0] == self._rank:
                    raise RunStateError(f"{handle!r}: it was freed, for nobody had a handle")
                if world.ended:
                    raise RunStateError(f"{handle!r} was never looked at here, and the run is over")
                fetching = self._fetching.get(key)
                if fetching is None:
                    fetching = self._fetching[key] = _Fetching()
                    world.send(key[0], Fetch(key))
        if fetching is not None:
            self._await(handle, fetching)
        assert handle.frames is not None
        value = (load or _loaded)(handle.frames)
        with world.lock:
            self._keep(key, handle)
        return value

    def _keep(self, key: Key, handle: Handle[Any]) -> None:
        """Keep an object in case it is needed again, and drop older ones if they are too large."""
        if key in self._unneeded or self._world.ended:
            return
        recent = self._recent
        recent[key] = handle
        while len(recent) > 1 and sum(one.size for one in recent.values()) > self._cache_bytes:
            recent.popitem(last=False)

    def _await(self, handle: Handle[Any], fetching: _Fetching) -> None:
        while not fetching.done.wait(_LOOK_SECONDS):
            if self._world.ended:
                raise RunStateError(f"{handle!r} had not come when the run ended")
            self._world.service()
        if fetching.reason:
            raise RunStateError(f"{handle!r}: {fetching.reason}")


def _loaded(frames: Sequence[Frame]) -> Any:
    """Return an object whose arrays are read-only, for all the tasks of this worker use it."""
    buffers = [memoryview(frame).toreadonly() for frame in frames[1:]]
    try:
        return pickle.loads(frames[0], buffers=buffers)
    except Exception as error:  # the object's own methods may raise anything
        raise SerializationError(f"a shared object cannot be loaded here: {error!r}") from error
