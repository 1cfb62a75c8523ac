"""Messages to frames and back: where calls and results become bytes.

The first frame of a message is a pickled tuple: the number of the message's
class, the sender's load report and the fields.  What belongs to users (functions,
items, results, exceptions) follows in frames of its own, so that a broken object
of one call cannot spoil another call, and large buffers are not copied.

A part that comes home to the owner of its call carries no items: the owner has
kept them.

What cannot be written raises :class:`dtm.errors.Unsendable`; what cannot be read becomes a
:class:`dtm.core.messages.Returned` or a failed item: nothing is lost either way.

Threads: under the worker's lock, for the tables of functions are shared.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import get_ident
from typing import Any, Protocol
from weakref import ref

from dtm.comm.base import Frame
from dtm.core.granularity import Profile
from dtm.core.messages import (
    MESSAGES,
    Found,
    Grant,
    Load,
    Message,
    Relayed,
    Results,
    Returned,
    Segment,
)
from dtm.errors import SerializationError, Unsendable
from dtm.handle import Handle, Key, collecting_pickled
from dtm.task import Call, Range, Same
from dtm.wire.cost import SECONDS_PER_BYTE_OF_FUNCTION, SECONDS_PER_BYTE_SHARED, function_cost
from dtm.wire.definitions import DefinitionReceiver, Definitions, DefinitionSender
from dtm.wire.failures import pack_failure, unpack_failure
from dtm.wire.functions import CACHE_BYTES, AbsentError, FunctionReceiver, FunctionSender
from dtm.wire.imports import imports
from dtm.wire.pickling import calling_out, culprit, dumps, loads
from dtm.wire.salvage import salvage

_KINDS = {cls: number for number, cls in enumerate(MESSAGES)}
_GRANT, _RESULTS, _RELAYED = _KINDS[Grant], _KINDS[Results], _KINDS[Relayed]
_FOUND = _KINDS[Found]
Replies = list[tuple[int, Message]]


class Sealed(list[Any]):
    """The values of a segment that only passes here: frames, which nobody opens."""

    def __init__(self, content: tuple[Any, ...], frames: list[Frame]) -> None:
        super().__init__()
        self.content = content
        self.frames = frames


class _Parcel:
    """A message that is being written: its frames, and what must be there to read them."""

    __slots__ = ("definitions", "frames", "handles", "keys", "to")

    def __init__(self, to: int) -> None:
        self.to = to
        self.frames: list[Frame] = [b""]
        self.definitions: Definitions = {}
        self.keys: list[bytes] = []
        self.handles: list[Handle[Any]] = []


class HandleKeeper(Protocol):
    """Keeps the handles of shared objects that messages carry until they have come."""

    def pin(self, to: int, handles: Iterable[Handle[Any]]) -> None:
        """Note that these are on their way to a worker."""

    def came(self, source: int, keys: Iterable[Key]) -> None:
        """Note that these have come from a worker."""


def _sealed(content: tuple[Any, ...], rest: Iterator[Frame]) -> Segment:
    key, lo, _, packed_count, failed, name, _ = content
    frames = [next(rest) for _ in range(packed_count + failed)]
    return Segment(key, lo, Sealed(content, frames), None, name)


class Wire:
    """Encodes and decodes the messages of one worker.

    Args:
        where: how the items that fail here name the place, e.g. ``worker 3 (node7)``.
        profile: finds the profile of a function at a depth.
        interrupted: whether the run is being ended by a signal.
        cache_bytes: how much is kept of functions that others have sent.
        keeper: looks after handles of shared objects.
        shares_memory: tells whether all workers read large frames from this one's memory.
        several_hosts: tells whether the run is on more than one.
    """

    def __init__(
        self,
        rank: int,
        where: str,
        profile: Callable[[Any, int], Profile],
        interrupted: Callable[[], bool] = lambda: False,
        cache_bytes: int = CACHE_BYTES,
        keeper: HandleKeeper | None = None,
        shares_memory: Callable[[], bool] = lambda: False,
        several_hosts: Callable[[], bool] = lambda: False,
    ) -> None:
        self._shares_memory = shares_memory
        self._keeper = keeper
        self._rank = rank
        self._where = where
        self._profile = profile
        self._interrupted = interrupted
        self._functions_out = FunctionSender(shares_memory, several_hosts)
        self._functions_in = FunctionReceiver(cache_bytes)
        self._definitions_out = DefinitionSender(cache_bytes // 8)
        self._definitions_in = DefinitionReceiver()
        self._newest: Callable[[], Call | None] = lambda: None  # of the epoch

    def guarded(self, act: Callable[..., Any], *args: Any) -> Any:
        """Call what may run users' code; an exit in it is an error, unless by a signal."""
        calling_out.add(get_ident())
        try:
            return act(*args)
        except Exception:  # what callers expect; the rest is what tries to exit
            raise
        except BaseException as error:
            if self._interrupted():
                raise
            raise SerializationError(f"its own code raised {error!r}") from error
        finally:
            calling_out.discard(get_ident())

    def encode(self, to: int, load: Load, message: Message) -> list[Frame]:
        """Return the frames of a message, which must then be sent.

        Raises:
            Unsendable: a part of a grant cannot be sent.
        """
        cls = type(message)
        parcel = _Parcel(to)
        content: Any
        if isinstance(message, Grant):
            parts = [self._part(part, parcel) for part in message.parts]
            content = (message.serial, message.deal, parts)
        elif isinstance(message, Results):
            content = [self._segment(each, parcel, parcel.definitions) for each in message.segments]
        elif isinstance(message, Relayed):
            segments = [self._segment(each, parcel, None) for each in message.segments]
            content = (message.owner, segments)
        elif isinstance(message, Found):
            content = message[:-1]
            parcel.frames += message.frames
        else:
            content = tuple(message)
        if parcel.keys:
            self._functions_out.sent(to, parcel.keys)
        ahead = self._definitions_out.note(to, parcel.definitions) if parcel.definitions else None
        dropped = self._functions_in.dropped_for(to) if self._functions_in.dropped else ()
        handles: tuple[Key | None, ...] = ()
        if parcel.handles and self._keeper is not None:
            self._keeper.pin(to, parcel.handles)
            handles = tuple(handle.key for handle in parcel.handles)
        aside = (ahead, dropped, handles) if ahead or dropped or handles else None
        head = (_KINDS[cls], load.sequence, load.seconds, load.idle, content, aside)
        parcel.frames[0] = pickle.dumps(head, 5)
        return parcel.frames

    def unsendable(self, to: int, part: Range) -> Unsendable | None:
        """Say why a part cannot be sent, None if it can."""
        try:
            self._part(part, _Parcel(to))
        except Unsendable as problem:
            return problem
        return None

    def decode(self, source: int, frames: Sequence[Frame]) -> tuple[Load, Message, Replies]:
        """Return a message, and the messages owed because some of it cannot be read."""
        kind, sequence, seconds, idle, content, aside = pickle.loads(frames[0])
        if aside is None:
            return self._read(source, Load(sequence, seconds, idle), kind, content, frames)
        ahead, dropped, handles = aside
        try:
            if ahead is not None:
                self._definitions_in.take(source, *ahead)
            self._functions_out.not_held(source, dropped)
            return self._read(source, Load(sequence, seconds, idle), kind, content, frames)
        finally:
            if handles and self._keeper is not None:
                self._keeper.came(source, handles)

    def _read(
        self, source: int, load: Load, kind: int, content: Any, frames: Sequence[Frame]
    ) -> tuple[Load, Message, Replies]:
        rest = iter(frames[1:])
        if kind == _GRANT:
            replies: Replies = []
            whole: list[Range] = []
            serial, deal, parts = content
            for part in parts:
                whole += self._read_part(source, part, rest, replies)
            return load, Grant(serial, tuple(whole), deal), replies
        if kind == _RESULTS:
            return load, Results(tuple(self._read_segment(each, rest) for each in content)), []
        if kind == _RELAYED:
            sealed = tuple(_sealed(each, rest) for each in content[1])
            return load, Relayed(content[0], sealed), []
        if kind == _FOUND:
            key, reason, at = content
            return load, Found(key, reason, at, tuple(rest)), []
        return load, MESSAGES[kind](*content), []

    def forget(self, handle: Key) -> None:
        """Let go of functions that are only kept and have a handle with this key."""
        self._functions_in.forget(handle)

    # Costs.

    def weight(self, call: Call, seconds: float) -> float:
        """Return the seconds that it costs to bring the function of a call to one worker.

        ``seconds`` is what may be saved by it: no more than a small part is spent to find out.
        """
        shared = self._shares_memory()
        per_byte = SECONDS_PER_BYTE_SHARED if shared else SECONDS_PER_BYTE_OF_FUNCTION
        known = self._functions_out.known(call, call.function)
        if known is not None:
            return known.size * per_byte
        try:
            cost: float = self.guarded(function_cost, call.function, seconds, per_byte)
        except SerializationError:
            return 0.0  # to be told when it is sent
        return cost

    def lacking(self, call: Call, workers: int) -> float:
        """Return the part of so many other workers that do not hold the function of a call."""
        known = self._functions_out.known(call, call.function)
        if known is None or known.key is None:
            return 1.0
        return 1.0 - self._functions_out.holders(known.key) / max(1, workers)

    # Work.

    def _part(self, part: Range, parcel: _Parcel) -> tuple[Any, ...]:
        call = part.call
        if imports.apart and call.owner == self._rank == 0 and self._newest() is not call:
            self._newest = ref(call)
            imports.epoch += 1
        profile: Profile = call.profile
        estimate = profile.seconds if profile.mature else 0.0
        if call.owner == parcel.to:
            return call.owner, call.key, part.lo, part.hi, estimate
        items = call.items[part.lo - call.base : part.hi - call.base]
        try:
            packed = collecting_pickled(
                parcel.handles, self.guarded, dumps, items, parcel.definitions
            )
        except Exception as error:  # users' code may raise anything when pickled
            sequence = [items.item] if isinstance(items, Same) else items
            found = self.culprit(sequence, part.lo)
            index, why = found or (part.lo, str(error))
            raise Unsendable(index, f"item {index} of {call.name}: {why}") from error
        try:
            function = self.guarded(self._functions_out.pack, call.function, call)
        except Exception as error:  # users' code may raise anything when pickled
            advice = "a function of the program that calls it would travel by its name"
            raise Unsendable(None, f"the function of {call.name}: {error}; {advice}") from error
        key, along = function.key, function.frames
        if key is not None:
            if key in parcel.keys or self._functions_out.holds(parcel.to, key):
                along = ()
            else:
                parcel.keys.append(key)
        if along:
            parcel.handles += function.handles
        parcel.frames += along
        parcel.frames += packed
        return (
            call.owner, call.key, part.lo, part.hi, estimate, call.kind, call.star, call.depth,
            call.path, call.chunk, call.streaming, call.cost, key, len(along), len(packed),
        )  # fmt: skip

    def _read_part(
        self, source: int, content: tuple[Any, ...], rest: Iterator[Frame], replies: Replies
    ) -> list[Range]:
        """Return the ranges of a part that can be read; what cannot goes back to the owner."""
        owner, key, lo, hi, estimate = content[:5]
        if owner == self._rank:
            return [Range(Call(len, (), 0, owner, None, "", key=key), lo, hi)]
        kind, star, depth, path, chunk, streaming, cost, name, along, count = content[5:]
        function_frames = [next(rest) for _ in range(along)]
        packed = [next(rest) for _ in range(count)]
        what = "the function"
        try:
            function, kept = self.guarded(self._functions_in.unpack, source, name, function_frames)
            what = f"items {lo} to {hi - 1}"
            items, bad = self._loaded(packed)
        except AbsentError:
            replies.append((owner, Returned(key, lo, hi, "")))
            return []
        except Exception as error:  # noqa: BLE001 - users' code may raise anything on load
            replies.append((owner, self.returned(key, lo, hi, what, error)))
            return []
        profile = self._profile(function, depth)
        if estimate:
            profile.assume(estimate)
        call = Call(
            function, items, hi - lo, owner, profile, kind, star, depth, path, chunk, streaming,
            base=lo, key=key,
        )  # fmt: skip
        call.cost = cost
        if kept is not None:
            self._functions_out.adopt(function, kept, call)
        ranges: list[Range] = []
        start = lo
        for index, cause in bad.items():
            at = lo + index
            replies.append((owner, self.returned(key, at, at + 1, f"item {at}", cause)))
            ranges.append(Range(call, start, at))
            start = at + 1
        ranges.append(Range(call, start, hi))
        return [each for each in ranges if each.left]

    def returned(self, key: int, lo: int, hi: int, what: str, error: BaseException) -> Returned:
        """Return what gives items that cannot be read here back to their owner."""
        reason = f"{what} cannot be read on {self._where}, so the caller runs it: "
        return Returned(key, lo, hi, f"{reason}{error!r}")

    def _loaded(self, packed: list[Frame]) -> tuple[Any, dict[int, BaseException]]:
        """Return a sequence, and by their places the errors of items that cannot be loaded.

        Raises what loading raises if it cannot be told which items are to blame.
        """
        try:
            return self.guarded(loads, packed), {}
        except Exception as error:  # users' code may raise anything on load
            found = self.guarded(salvage, packed, self.guarded)
            if found is None:
                raise error from None
            values, bad = found
            return values, bad

    # Results.

    def culprit(self, values: Sequence[Any], base: int) -> tuple[int, str] | None:
        """Return the index and the reason of the first value that cannot be pickled, if any."""
        for index, value in enumerate(values, base):
            try:
                found: tuple[int, str] | None = self.guarded(culprit, [value], index)
            except SerializationError as error:
                return index, str(error)
            if found is not None:
                return found
        return None

    def _segment(
        self, segment: Segment, parcel: _Parcel, definitions: Definitions | None
    ) -> tuple[Any, ...]:
        values, failure, frames = segment.values, segment.failure, parcel.frames
        if isinstance(values, Sealed):
            frames += values.frames
            return values.content
        try:
            packed = collecting_pickled(parcel.handles, self.guarded, dumps, values, definitions)
        except Exception as error:  # noqa: BLE001 - users' code may raise anything when pickled
            index, why = self.culprit(values, segment.lo) or (segment.lo, str(error))
            failure = SerializationError(
                f"the result of item {index} of {segment.name}, on {self._where}, cannot be sent: "
                f"{why}"
            )
            values = values[: index - segment.lo]
            packed = dumps(values, definitions)
        frames += packed
        if failure is not None:
            place = None if segment.name.startswith("apply") else segment.lo + len(values)
            frames.append(pack_failure(failure, place, f"{segment.name}, on {self._where}"))
        content = segment.key, segment.lo, len(values), len(packed), failure is not None
        return *content, segment.name, segment.seconds

    def _read_segment(self, content: tuple[Any, ...], rest: Iterator[Frame]) -> Segment:
        key, lo, _, packed_count, failed, name, seconds = content
        packed = [next(rest) for _ in range(packed_count)]
        failure = unpack_failure(next(rest)) if failed else None
        try:
            values, bad = self._loaded(packed)
        except Exception as error:  # noqa: BLE001 - users' code may raise anything on load
            values, bad = [], {0: error}
        if bad:
            first, cause = next(iter(bad.items()))
            values = values[:first]
            which = f"result of item {lo + first}"
            failure = SerializationError(f"the {which} of {name} cannot be read: {cause!r}")
            failure.__cause__ = cause
        return Segment(key, lo, values, failure, name, seconds)
