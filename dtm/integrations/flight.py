"""Items of an iterable on their way, a bounded number at once, each with an outcome of its own.

The items are pulled as batches are submitted; whenever a batch is over, and whenever somebody
takes an outcome, the next follow.  An item that fails has a :class:`dtm.guard.Failed` for its
outcome, and those after it have theirs.  What the iterable itself raises comes after the
outcomes of the items that it gave before.

It differs from the window of ``dtm.imap`` in that it goes on by itself, as the iterators of a
process pool do, until it holds ``keep`` outcomes that nobody has taken.

Threads: any takes outcomes, each outcome once; batches are submitted by whichever thread learns
that one is over, one thread at a time.  Who finds another thread at a gate waits for a moment only,
and then makes progress: what that thread does behind the gate may wait for a task of this one.

Rejected: a thread that feeds.  It would have to be stopped, and the iterable would be pulled in
a thread that its author does not expect, even where the caller waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any

from dtm.door import Made
from dtm.errors import CallCancelledError
from dtm.future import end_early, wait_or_withdraw
from dtm.guard import Failed
from dtm.integrations.lanes import Lanes, when_over
from dtm.lazy import BATCH_SECONDS, MOST_ITEMS
from dtm.task import Call
from dtm.tolerance import outcomes

if TYPE_CHECKING:
    from dtm.run.runner import Runner

KEEP = 16384
PAUSE_SECONDS = 0.01


class Flight:
    """The items of one iterable on their way.

    Args:
        runner: runs the calls.
        make: makes a call of some items with a net, given also the index of the first.
        items: pulled from as batches are taken.
        lanes: submits the calls.
        batches: how many to have under way.
        length: how many items a batch has; None lets it grow to about a millisecond.
        at_end: called once when every item has been run.
        at_batch: called when a batch is over, in some thread.
        ordered: whether outcomes come in the order of the items, or as they are there.

        keep: how many items may be pulled whose outcome nobody has taken; None for no bound.
    """

    def __init__(
        self,
        runner: Runner,
        make: Callable[[list[Any], int], Made],
        items: Iterable[Any],
        lanes: Lanes,
        batches: int,
        length: int | None,
        at_end: Callable[[], None] = lambda: None,
        at_batch: Callable[[], None] = lambda: None,
        *,
        ordered: bool,
        keep: int | None = KEEP,
    ) -> None:
        self._at_end: Callable[[], None] | None = at_end
        self._make = make
        self._runner = runner
        self._items = iter(items)
        self._lanes = lanes
        self._batches = batches
        self._grows = length is None
        self._length = length or 1
        self._ordered = ordered
        self.keep = keep
        self._at_batch = at_batch
        self._flying: deque[Made] = deque()
        self._landed: deque[Any] = deque()
        self._pulled = 0
        self._settled = 0  # how many outcomes have been in _landed
        self._exhausted = False
        self._error: BaseException | None = None
        self._wanted = False
        self._gate = Lock()
        self._landing = Lock()
        self.fill()

    def fill(self) -> None:
        """Submit what there is room for; whoever finds another at it leaves it to that one."""
        self._wanted = True
        while self._wanted and self._gate.acquire(blocking=False):
            try:
                self._wanted = False
                while self._has_room():
                    self._submit()
                at_end = None
                if self.over:
                    at_end, self._at_end = self._at_end, None
            finally:
                self._gate.release()
            if at_end is not None:
                at_end()

    def _has_room(self) -> bool:
        waiting = self._pulled - self._settled + len(self._landed)
        if self._exhausted or (self.keep is not None and waiting >= self.keep):
            return False
        under_way = sum(1 for made in list(self._flying) if made.call.missing)
        return under_way < self._batches

    def _submit(self) -> None:
        """Pull a batch and submit it.

        That the iterable is at its end is noted after its last batch is in flight: whoever finds
        it exhausted and nothing in flight knows that nothing will follow.
        """
        batch: list[Any] = []
        at_end = False
        try:
            for item in self._items:
                batch.append(item)
                if len(batch) >= self._length:
                    break
            else:
                at_end = True
        except BaseException as error:  # noqa: BLE001 - raised where its place is
            self._error = error
            at_end = True
            if not self._grows:  # a pool does not begin a chunk that did not become whole
                batch = []
        if batch:
            self._send(batch)
        if at_end:
            self._exhausted = True

    def _send(self, batch: list[Any]) -> None:
        made = self._make(batch, self._pulled)
        self._pulled += len(batch)
        when_over(made, self._batch_over)
        self._flying.append(made)
        self._lanes.submit(made)
        profile = made.call.profile
        if self._grows and profile.mature:
            wanted = int(BATCH_SECONDS / (profile.seconds + 1e-9)) or 1
            self._length = min(self._length * 2, wanted, MOST_ITEMS)

    def _batch_over(self) -> None:
        self.fill()
        self._at_batch()

    @property
    def ready(self) -> bool:
        """Whether the next outcome, or the end, is there."""
        if self._landed or not self._flying:
            return True
        if self._ordered:
            return not self._flying[0].call.missing
        return any(not made.call.missing for made in list(self._flying))

    @property
    def over(self) -> bool:
        """Whether every item has been run."""
        return self._exhausted and not any(made.call.missing for made in list(self._flying))

    def take(self, timeout: float | None = None) -> Any:
        """Return the next outcome.

        Raises:
            StopIteration: there is none left.
            TimeoutError: there was none in time.
            Exception: what the iterable raised.
        """
        deadline = None if timeout is None else perf_counter() + timeout
        while True:
            try:
                return self._landed.popleft()
            except IndexError:
                self._fetch(deadline)

    def _fetch(self, deadline: float | None) -> None:
        """See to it that an outcome is there to be taken, or that one is nearer."""
        self.fill()
        exhausted = self._exhausted
        flying = list(self._flying)
        if flying:
            self._land(flying, deadline)
        elif not exhausted:
            self._pause(self._gate)  # another thread pulls the next items
        elif self._landing.locked():
            self._pause(self._landing)
        elif not self._landed:
            error, self._error = self._error, None
            raise StopIteration if error is None else error

    def _pause(self, gate: Lock) -> None:
        """Let another thread be done behind a gate, and the tasks that it may wait for."""
        if gate.acquire(timeout=PAUSE_SECONDS):
            gate.release()
        else:
            self._runner.step(())

    def _land(self, flying: list[Made], deadline: float | None) -> None:
        """Wait for a batch, and move its outcomes to where they are taken from."""
        made = self._next(flying, deadline)
        if made is None:
            raise TimeoutError("no result has come in time")
        if not self._landing.acquire(blocking=False):
            self._pause(self._landing)
            return
        try:
            if made not in self._flying or (self._ordered and made != self._flying[0]):
                return  # another thread has moved them meanwhile
            self._flying.remove(made)
            try:
                self._landed += outcomes(made.runner, made.call)
            finally:
                self._settled += made.call.size
            made.call.whole, made.call.sample = [], None  # what is taken is not to be kept alive
        finally:
            self._landing.release()

    def _next(self, flying: list[Made], deadline: float | None) -> Made | None:
        first = flying[0]
        if self._ordered:
            over = not first.call.missing or first.runner.wait(first.call, deadline)
            return first if over else None
        if all(made.call.missing for made in flying):
            first.runner.wait_any([made.call for made in flying], deadline)
        return next((made for made in flying if not made.call.missing), None)

    def finish(self, deadline: float | None = None) -> bool:
        """Have all items run, whoever takes their outcomes; whether they were in time."""
        self.keep = None
        self.fill()
        while not self.over:
            self.fill()
            calls = self.calls()
            if not calls:
                self._pause(self._gate)
            elif not wait_or_withdraw(self._runner, calls[0], deadline):
                return False
        return True

    def drop(self) -> None:
        """Run nothing more of it; whoever waits for an outcome is told that it was dropped."""
        self._exhausted = True
        for made in list(self._flying):
            end_early(made.runner, made.call, CallCancelledError(f"{made.call.name} was dropped"))
        self.fill()

    def calls(self) -> list[Call]:
        """Return the calls under way."""
        return [made.call for made in list(self._flying) if made.call.missing]


def value_of(outcome: Any) -> Any:
    """Return the result of an item, or raise what it raised, to whoever iterates.

    Raises:
        RuntimeError: the item raised StopIteration, which would end the iteration in silence.
    """
    if type(outcome) is Failed:
        if isinstance(outcome.exception, StopIteration):
            raise RuntimeError("the function raised StopIteration") from outcome.exception
        raise outcome.exception
    return outcome
