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
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dtm.comm.base import Frame
from dtm.core.granularity import Profile
from dtm.core.messages import MESSAGES, Grant, Load, Message, Relayed, Results, Returned, Segment
from dtm.errors import SerializationError, Unsendable
from dtm.task import Call, Range, Same
from dtm.wire.pickling import culprit, dumps, loads

if TYPE_CHECKING:
    from dtm.wire.functions import FunctionReceiver, FunctionSender

_KINDS = {cls: number for number, cls in enumerate(MESSAGES)}
_GRANT, _RESULTS, _RELAYED = _KINDS[Grant], _KINDS[Results], _KINDS[Relayed]
Replies = list[tuple[int, Message]]


class Sealed(list[Any]):
    """The values of a segment that only passes here: frames, which nobody opens."""

    def __init__(self, content: tuple[Any, ...], frames: list[Frame]) -> None:
        super().__init__()
        self.content = content
        self.frames = frames


def _unpacked(frame: Frame) -> BaseException:
    from dtm.wire.failures import unpack_failure

    return unpack_failure(frame)


def _sealed(content: tuple[Any, ...], rest: Iterator[Frame]) -> Segment:
    key, lo, _, packed_count, failed, name = content
    frames = [next(rest) for _ in range(packed_count + failed)]
    return Segment(key, lo, Sealed(content, frames), None, name)


class Wire:
    """Encodes and decodes the messages of one worker.

    Args:
        where: how the items that fail here name the place, e.g. ``worker 3 (node7)``.
        profile: finds the profile of a function at a depth.
    """

    def __init__(
        self,
        rank: int,
        where: str,
        profile: Callable[[Any, int], Profile],
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._rank = rank
        self._where = where
        self._profile = profile
        self._interrupted = interrupted

    def _tamed(self, act: Callable[..., Any], *args: Any) -> Any:
        """Do what runs users' code, which may exit: only a signal's exit passes through here."""
        try:
            return act(*args)
        except Exception:
            raise
        except BaseException as error:
            if self._interrupted():
                raise
            raise SerializationError(f"its own code raised {error!r}") from error

    @cached_property
    def _sender(self) -> FunctionSender:
        from dtm.wire.functions import FunctionSender

        return FunctionSender()

    @cached_property
    def _receiver(self) -> FunctionReceiver:
        from dtm.wire.functions import FunctionReceiver

        return FunctionReceiver(self._sender)

    def encode(self, to: int, load: Load, message: Message) -> list[Frame]:
        """Return the frames of a message."""
        cls = type(message)
        frames: list[Frame] = [b""]
        content: Any
        if isinstance(message, Grant):
            held = self._sender.held_by(to)
            try:
                parts = [self._part(to, part, frames) for part in message.parts]
            except Unsendable:
                self._sender.restore(to, held)
                raise
            content = (message.serial, parts)
        elif isinstance(message, Results):
            content = [self._segment(segment, frames) for segment in message.segments]
        elif isinstance(message, Relayed):
            segments = [self._segment(segment, frames) for segment in message.segments]
            content = (message.owner, segments)
        else:
            content = tuple(message)
        head = (_KINDS[cls], load.sequence, load.seconds, load.idle, content)
        frames[0] = pickle.dumps(head, 5)
        return frames

    def unsendable(self, to: int, part: Range) -> Unsendable | None:
        """Say why a part cannot be sent, None if it can."""
        held = self._sender.held_by(to)
        try:
            self._part(to, part, [])
        except Unsendable as problem:
            return problem
        finally:
            self._sender.restore(to, held)
        return None

    def decode(self, source: int, frames: Sequence[Frame]) -> tuple[Load, Message, Replies]:
        """Return a message, and the messages owed because some of it cannot be read."""
        kind, sequence, seconds, idle, content = pickle.loads(frames[0])
        load = Load(sequence, seconds, idle)
        rest = iter(frames[1:])
        if kind == _GRANT:
            replies: Replies = []
            parts = [self._read_part(source, part, rest, replies) for part in content[1]]
            whole = tuple(part for part in parts if part is not None)
            return load, Grant(content[0], whole), replies
        if kind == _RESULTS:
            return load, Results(tuple(self._read_segment(each, rest) for each in content)), []
        if kind == _RELAYED:
            sealed = tuple(_sealed(each, rest) for each in content[1])
            return load, Relayed(content[0], sealed), []
        return load, MESSAGES[kind](*content), []

    # Work.

    def _part(self, to: int, part: Range, frames: list[Frame]) -> tuple[Any, ...]:
        call = part.call
        profile: Profile = call.profile
        estimate = profile.seconds if profile.mature else 0.0
        if call.owner == to:
            return call.owner, call.key, part.lo, part.hi, estimate
        items = call.items[part.lo - call.base : part.hi - call.base]
        try:
            packed = self._tamed(dumps, items)
        except Exception as error:
            sequence = [items.item] if isinstance(items, Same) else items
            found = self.culprit(sequence, part.lo)
            index, why = found or (part.lo, str(error))
            raise Unsendable(index, f"item {index} of {call.name}: {why}") from error
        try:
            key, payload = self._tamed(self._sender.pack, to, call.function, (call.owner, call.key))
        except Exception as error:
            raise Unsendable(None, f"the function of {call.name}: {error}") from error
        frames += packed
        return (
            call.owner, call.key, part.lo, part.hi, estimate, call.kind, call.star, call.depth,
            call.path, call.chunk, call.streaming, call.cost, key, payload, len(packed),
        )  # fmt: skip

    def _read_part(
        self, source: int, content: tuple[Any, ...], rest: Iterator[Frame], replies: Replies
    ) -> Range | None:
        owner, key, lo, hi, estimate = content[:5]
        if owner == self._rank:
            return Range(Call(len, (), 0, owner, None, "", key=key), lo, hi)
        kind, star, depth, path, chunk, streaming, cost, name, payload, count = content[5:]
        packed = [next(rest) for _ in range(count)]
        what = "the function"
        try:
            function = self._tamed(self._receiver.unpack, source, name, payload, (owner, key))
            what = f"items {lo} to {hi - 1}"
            items = self._tamed(loads, packed)
        except Exception as error:  # noqa: BLE001 - users' code may raise anything on load
            reason = f"{what} of a {kind} cannot be read on {self._where}, so the caller runs it: "
            replies.append((owner, Returned(key, lo, hi, reason + repr(error))))
            return None
        profile = self._profile(function, depth)
        if estimate:
            profile.assume(estimate)
        call = Call(
            function, items, hi - lo, owner, profile, kind, star, depth, path, chunk, streaming,
            base=lo, key=key,
        )  # fmt: skip
        call.cost = cost
        return Range(call, lo, hi)

    # Results.

    def culprit(self, values: Sequence[Any], base: int) -> tuple[int, str] | None:
        """Return the index and the reason of the first value that cannot be pickled, if any."""
        for index, value in enumerate(values, base):
            try:
                found: tuple[int, str] | None = self._tamed(culprit, [value], index)
            except SerializationError as error:
                return index, str(error)
            if found is not None:
                return found
        return None

    def _segment(self, segment: Segment, frames: list[Frame]) -> tuple[Any, ...]:
        values, failure = segment.values, segment.failure
        if isinstance(values, Sealed):
            frames += values.frames
            return values.content
        try:
            packed = self._tamed(dumps, values)
        except Exception as error:  # noqa: BLE001 - users' code may raise anything when pickled
            index, why = self.culprit(values, segment.lo) or (segment.lo, str(error))
            failure = SerializationError(
                f"the result of item {index} of {segment.name}, on {self._where}, cannot be sent: "
                f"{why}"
            )
            values = values[: index - segment.lo]
            packed = dumps(values)
        frames += packed
        if failure is not None:
            from dtm.wire.failures import pack_failure

            place = None if segment.name.startswith("apply") else segment.lo + len(values)
            frames.append(pack_failure(failure, place, f"{segment.name}, on {self._where}"))
        return segment.key, segment.lo, len(values), len(packed), failure is not None, segment.name

    def _read_segment(self, content: tuple[Any, ...], rest: Iterator[Frame]) -> Segment:
        key, lo, count, packed_count, failed, name = content
        packed = [next(rest) for _ in range(packed_count)]
        failure = _unpacked(next(rest)) if failed else None
        try:
            values = self._tamed(loads, packed)
        except Exception as error:  # noqa: BLE001 - users' code may raise anything on load
            values = []
            which = (
                f"result of item {lo}"
                if count == 1
                else f"results of items {lo} to {lo + count - 1}"
            )
            failure = SerializationError(f"the {which} of {name} cannot be read: {error!r}")
            failure.__cause__ = error
        return Segment(key, lo, values, failure, name)
