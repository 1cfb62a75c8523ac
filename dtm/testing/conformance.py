"""What every communication manager owes, as scenarios that any of them can be put through.

A *scenario* is a function that is called with the manager of each rank, in its
own process or thread, and raises ``AssertionError`` where a promise is broken.
A *factory* knows how such managers come to be::

    def factory(scenario: Scenario, size: int) -> None: ...

It makes ``size`` managers that are joined, calls ``scenario(manager)`` at each
rank, and raises if any of these calls raises.  Scenarios pickle by reference
(functions of this module and partials of them).  Each closes its manager itself;
the factory does not.  None takes more than a minute; a factory gives up on one
that does.

A factory that can make a worker die has an attribute ``vanish``: a picklable
function of the manager which makes its rank go away without closing.  It need
not return, and the factory does not hold the end of that rank against it.  Without
one it is not tried whether losses are told, and the result says so.

Whatever a scenario runs into, the message begins with what a manager owes: the first line of
the scenario's description.

Rejected: a class to inherit tests from.  It would tie whoever writes a manager
to our test framework, and to managers that live in one process.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from pickle import PickleBuffer
from statistics import median
from threading import Barrier, Thread
from typing import Any, Protocol

from dtm.comm.base import CommunicationManager, Frame

Scenario = Callable[[CommunicationManager], None]

_PATIENCE = 30.0
_SOON = 15.0  # comes at once; but a busy machine may let a thread wait for seconds
_SMALL = 1000
_NAP = 0.05
_NAPS = 20
_MOST_SHORT = 5  # naps that may end early: a wait may return without a reason now and then
_PROCESSOR_SHARE = 0.15
_LATE = 1.0


class Factory(Protocol):
    """Makes joined managers and runs a scenario on them."""

    def __call__(self, scenario: Scenario, size: int) -> None:
        """Call ``scenario`` with the manager of each of ``size`` ranks."""


@dataclass(frozen=True)
class Verdict:
    """What a communication manager was put through.

    Attributes:
        kept: the names of the scenarios that it has passed.
        not_tried: what could not be tried, and why.
    """

    kept: tuple[str, ...]
    not_tried: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{len(self.kept)} promises are kept"]
        return "\n".join([*lines, *(f"not tried: {each}" for each in self.not_tried)])


def check_communication_manager(factory: Factory, *, large: int = 100_000_000) -> Verdict:
    """Put a communication manager through every scenario.

    Args:
        factory: makes the managers, see the head of this module.
        large: the bytes of a frame that is to count as large.

    Returns:
        What was tried, and what was not.

    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    tries: list[tuple[Callable[..., None], int, dict[str, Any]]] = [
        (describes_itself, 3, {}),
        (keeps_order, 3, {}),
        (keeps_frames, 2, {}),
        (exchanges_many_small_messages, 2, {}),
        (exchanges_large_messages, 2, {"large": large}),
        (sends_on_while_waiting, 2, {"large": large}),
        (is_woken, 1, {}),
        (is_woken, 2, {}),
        (is_woken_by_signal_handlers, 2, {}),
        (is_quiet_when_idle, 2, {}),
        (stands_by, 2, {}),
        (delivers_at_close, 2, {"sender": 0, "large": large}),
        (delivers_at_close, 2, {"sender": 1, "large": large}),
        (tells_leaving_from_loss, 3, {}),
    ]
    vanish: Callable[[CommunicationManager], object] | None = getattr(factory, "vanish", None)
    if vanish is not None:
        tries.append((reports_a_loss, 3, {"vanish": vanish}))
    for scenario, size, options in tries:
        factory(partial(scenario, **options) if options else scenario, size)
    kept = tuple(dict.fromkeys(scenario.__name__ for scenario, _, _ in tries))
    if vanish is not None:
        return Verdict(kept)
    return Verdict(kept, ("reports_a_loss, for the factory has no `vanish`",))


def _owed(scenario: Callable[..., None]) -> Callable[..., None]:
    """Have a scenario say what is owed, whatever it runs into."""
    promise = (scenario.__doc__ or scenario.__name__).partition("\n")[0].rstrip(".")

    @wraps(scenario)
    def play(manager: CommunicationManager, **options: Any) -> None:
        try:
            scenario(manager, **options)
        except Exception as error:  # of whatever sort: the manager is somebody else's
            said = str(error) if isinstance(error, AssertionError) else repr(error)
            raise AssertionError(f"{promise} (owed by every manager): {said}") from error

    return play


# Scenarios


@_owed
def describes_itself(manager: CommunicationManager) -> None:
    """Rank, size and hosts fit together, and nobody sends to himself or to a rank that is none."""
    _check(0 <= manager.rank < manager.size, f"rank {manager.rank} of {manager.size} is impossible")
    _check(len(manager.hosts) == manager.size, "hosts is not as long as size")
    _check(manager.lost() == [], "somebody is lost who has not begun")
    for nobody in (manager.rank, -1, manager.size, manager.size + 1000):
        try:
            manager.send(nobody, [b"to nobody"])
        except ValueError:
            continue
        _check(False, f"rank {manager.rank} may send to rank {nobody}: no ValueError")
    _part(manager, _Inbox(manager))


@_owed
def keeps_order(manager: CommunicationManager) -> None:
    """Messages of each pair arrive in the order they were sent, each once, whatever their sizes."""
    inbox = _Inbox(manager)
    peers = _peers(manager)
    for number in range(300):
        for peer in peers:
            size = (0, 1, 100, 5_000, 70_000, 300_000)[number % 6]
            manager.send(peer, [b"%d %d" % (manager.rank, number), bytes(size)])
    for peer in peers:
        for number in range(300):
            label, load = inbox.take(peer)
            expected = b"%d %d" % (peer, number)
            _check(bytes(label) == expected, f"{bytes(label)!r} came instead of {expected!r}")
            _check(len(load) == (0, 1, 100, 5_000, 70_000, 300_000)[number % 6], "a size changed")
    _part(manager, inbox)


@_owed
def keeps_frames(manager: CommunicationManager) -> None:
    """Frames arrive cut as they were, empty ones and thousands of them, of every type."""
    inbox = _Inbox(manager)
    messages = _odd_messages()
    for peer in _peers(manager):
        for message in messages:
            manager.send(peer, message)
    for peer in _peers(manager):
        for message in messages:
            frames = inbox.take(peer)
            _check(len(frames) == len(message), f"{len(message)} frames became {len(frames)}")
            for came, sent in zip(frames, message, strict=True):
                same = bytes(memoryview(came)) == bytes(memoryview(sent))
                _check(same, f"a frame of {memoryview(sent).nbytes} bytes changed on the way")
    _part(manager, inbox)


@_owed
def exchanges_many_small_messages(manager: CommunicationManager) -> None:
    """Send a thousand small messages each way, one by one and then all at once."""
    inbox = _Inbox(manager)
    peer = 1 - manager.rank
    for number in range(_SMALL):
        if manager.rank == 0:
            manager.send(peer, [b"%d" % number])
        answer = inbox.take(peer)
        _check(bytes(answer[0]) == b"%d" % number, f"message {number} is not the one that came")
        if manager.rank == 1:
            manager.send(peer, answer)
    for number in range(_SMALL):
        manager.send(peer, [b"%d" % number])
    for number in range(_SMALL):
        came = bytes(inbox.take(peer)[0])
        _check(came == b"%d" % number, f"{came!r} came in the place of message {number}")
    _part(manager, inbox)


@_owed
def exchanges_large_messages(manager: CommunicationManager, large: int) -> None:
    """Two workers send each other large messages before either receives."""
    inbox = _Inbox(manager)
    peer = 1 - manager.rank
    mine = bytes([65 + manager.rank]) * large
    manager.send(peer, [b"before", mine, b"after"])
    manager.send(peer, [mine])
    before, load, after = inbox.take(peer)
    _check(
        (bytes(before), bytes(after)) == (b"before", b"after"), "frames around a large one broke"
    )
    expected = bytes([65 + peer]) * large
    _check(memoryview(load) == expected, "a large frame changed on the way")
    del load
    _check(memoryview(inbox.take(peer)[0]) == expected, "the second large frame changed")
    _part(manager, inbox)


@_owed
def sends_on_while_waiting(manager: CommunicationManager, large: int) -> None:
    """See what was sent go out though the sender only waits."""
    inbox = _Inbox(manager)
    _meet(manager, inbox)
    if manager.rank == 0:
        manager.send(1, [bytes(large)])
        manager.send(1, [b"last"])
        _wait_for_message(manager)
        _check(bytes(inbox.take(1)[0]) == b"got it", "the answer changed")
    else:
        _check(len(inbox.take(0)[0]) == large, "a large frame was cut")
        _check(bytes(inbox.take(0)[0]) == b"last", "the message after a large one changed")
        manager.send(0, [b"got it"])
    _part(manager, inbox)


@_owed
def is_woken(manager: CommunicationManager) -> None:
    """``wake`` ends each ``wait`` that is under way, or else the next one, and no more."""
    inbox = _Inbox(manager)
    manager.wake()
    _check(_waited(manager, _PATIENCE) < _SOON, "a wake before the wait was forgotten")
    for waiters in (1, 3):
        begun = Barrier(waiters + 1)
        threads = [
            Thread(target=_wait_long, args=(manager, begun), daemon=True) for _ in range(waiters)
        ]
        for thread in threads:
            thread.start()
        begun.wait(_PATIENCE)
        time.sleep(0.2)  # from there into `wait`, of which no more can be seen from outside
        manager.wake()
        for thread in threads:
            thread.join(_SOON)
        sleeping = sum(thread.is_alive() for thread in threads)
        _check(sleeping == 0, f"after a wake {sleeping} of {waiters} threads sit in wait still")
    _sleeps(manager, inbox, "after a wake")
    _part(manager, inbox)


@_owed
def is_woken_by_signal_handlers(manager: CommunicationManager) -> None:
    """``wake`` works in a signal handler that interrupts ``wake``, ``send`` or ``receive``."""
    inbox = _Inbox(manager)
    _meet(manager, inbox)
    peer = 1 - manager.rank
    message = [b"interrupted", bytes(100_000)]
    for name, call in (
        ("wake", manager.wake),
        ("send", partial(manager.send, peer, message)),
        ("receive", inbox.look),
    ):
        failures: list[BaseException] = []
        thread = Thread(target=_interrupted, args=(manager, call, failures), daemon=True)
        thread.start()
        thread.join(_SOON)
        _check(not thread.is_alive(), f"{name} stands still, interrupted by a wake")
        _check(not failures, f"{name}, interrupted by a wake, raises {failures}")
    # First of all: to wait for the message would use the wakes up.
    _check(_waited(manager, _PATIENCE) < _SOON, "the wakes of a signal handler were forgotten")
    _check(inbox.take(peer) == message, "a message that was interrupted changed")
    _part(manager, inbox)


@_owed
def is_quiet_when_idle(manager: CommunicationManager) -> None:
    """``wait`` sleeps for its time and uses no processor while nothing comes."""
    inbox = _Inbox(manager)
    _meet(manager, inbox)
    used = time.process_time()
    usual = _sleeps(manager, inbox, "while nothing comes")
    used = time.process_time() - used
    whole = _NAP * _NAPS
    _check(used < _PROCESSOR_SHARE * whole, f"{used:.2f} s of processor for {whole} s of waiting")
    _check(usual < _LATE, f"a wait for {_NAP} s usually took {usual:.2f} s")
    shortest = min(_waited(manager, 0.0) for _ in range(3))
    _check(shortest < _LATE, "a wait for no time at all took long")
    _part(manager, inbox)


@_owed
def stands_by(manager: CommunicationManager) -> None:
    """``stand_by`` ends when a message comes, unless ``alert(False)`` could be said before."""
    inbox = _Inbox(manager)
    _meet(manager, inbox)
    peer = 1 - manager.rank
    manager.send(peer, [b"first"])
    _check(inbox.take(peer, manager.stand_by) == [b"first"], "a message changed")
    deaf = manager.alert(False)
    _meet(manager, inbox)
    manager.send(peer, [b"second"])
    manager.send(peer, [b"third"])
    _check(inbox.take(peer) == [b"second"], "a message changed")
    if deaf:
        for _ in range(3):
            started = time.monotonic()
            came = manager.stand_by(_NAP)
            _check(not came, "it says that something came, though it was not to be told")
            _check(time.monotonic() - started >= _NAP / 2, "a message ended it nevertheless")
    manager.alert(True)
    _check(inbox.take(peer, manager.stand_by) == [b"third"], "a message changed")
    manager.wake()
    started = time.monotonic()
    manager.stand_by(_PATIENCE)
    _check(time.monotonic() - started < _SOON, "a wake did not end it")
    _part(manager, inbox)


@_owed
def delivers_at_close(manager: CommunicationManager, sender: int, large: int) -> None:
    """See what was sent before ``close`` arrive."""
    inbox = _Inbox(manager)
    _meet(manager, inbox)
    if manager.rank == sender:
        for number in range(100):
            manager.send(1 - sender, [b"%d" % number])
        manager.send(1 - sender, [bytes(large)])
    else:
        time.sleep(0.1)
        for number in range(100):
            came = bytes(inbox.take(sender)[0])
            _check(came == b"%d" % number, f"close lost message {number}; {came!r} came instead")
        _check(len(inbox.take(sender)[0]) == large, "close cut a large message")
    manager.close(_PATIENCE)


@_owed
def tells_leaving_from_loss(manager: CommunicationManager) -> None:
    """Who closes is not lost, and messages for him go nowhere without harm."""
    inbox = _Inbox(manager)
    _meet(manager, inbox)
    if manager.rank < manager.size - 1:
        for _ in range(5):
            manager.wait(0.1)
            inbox.look()
            manager.send(manager.size - 1, [b"too late"])
        _check(not inbox.losses, f"{inbox.losses} left in order and is reported as lost")
    manager.close(_PATIENCE)


@_owed
def reports_a_loss(
    manager: CommunicationManager, vanish: Callable[[CommunicationManager], object]
) -> None:
    """Who goes away without closing is lost, once, and what is sent to him is dropped."""
    inbox = _Inbox(manager)
    _meet(manager, inbox)
    victim = manager.size - 1
    if manager.rank == victim:
        for peer in _peers(manager):
            inbox.take(peer)
        vanish(manager)
        return
    manager.send(victim, [b"nothing that you sent is on its way still"])
    deadline = time.monotonic() + _PATIENCE
    while not inbox.losses and time.monotonic() < deadline:
        manager.wait(1.0)
        inbox.look()
    for _ in range(10):
        manager.send(victim, [bytes(1000)])
        manager.wait(0.01)
        inbox.look()
    ranks = [rank for rank, _ in inbox.losses]
    _check(ranks == [victim], f"rank {victim} vanished, reported as lost: {ranks}")
    _check(all(reason for _, reason in inbox.losses), "a loss is reported without a reason")
    manager.close(_PATIENCE)


# What they are made of


class _Inbox:
    """What has come to a manager, sorted by sender."""

    def __init__(self, manager: CommunicationManager) -> None:
        self.manager = manager
        self.losses: list[tuple[int, str]] = []
        self._come: dict[int, list[list[Frame]]] = {peer: [] for peer in _peers(manager)}

    def look(self) -> None:
        for sender, frames in self.manager.receive():
            self._come[sender].append(frames)
        self.losses += self.manager.lost()

    def take(self, sender: int, wait: Callable[[float], object] | None = None) -> list[Frame]:
        """Return the next message of a sender, waiting for it, by ``wait`` of the manager."""
        wait = wait or self.manager.wait
        deadline = time.monotonic() + _PATIENCE
        self.look()
        while not self._come[sender]:
            me = self.manager.rank
            _check(not self.losses, f"rank {me} waits for rank {sender}, but lost {self.losses}")
            _check(time.monotonic() < deadline, f"nothing came from rank {sender} to rank {me}")
            wait(1.0)
            self.look()
        return self._come[sender].pop(0)


def _check(kept: bool, message: str) -> None:
    if not kept:
        raise AssertionError(message)


def _peers(manager: CommunicationManager) -> list[int]:
    return [rank for rank in range(manager.size) if rank != manager.rank]


def _meet(manager: CommunicationManager, inbox: _Inbox) -> None:
    """Wait until every rank has come here."""
    for peer in _peers(manager):
        manager.send(peer, [b"here"])
    for peer in _peers(manager):
        _check(bytes(inbox.take(peer)[0]) == b"here", f"rank {peer} said too much")


def _part(manager: CommunicationManager, inbox: _Inbox) -> None:
    """End a scenario: nobody closes before all are done."""
    _meet(manager, inbox)
    manager.close(_PATIENCE)


def _waited(manager: CommunicationManager, timeout: float) -> float:
    start = time.monotonic()
    manager.wait(timeout)
    return time.monotonic() - start


def _sleeps(manager: CommunicationManager, inbox: _Inbox, when: str) -> float:
    """Require that most waits last, each after a ``receive``; return how long they usually took.

    The median: single ones take long where other programs have the processor.
    """
    naps = []
    for _ in range(_NAPS):
        inbox.look()
        naps.append(_waited(manager, _NAP))
    short = sum(nap < _NAP / 2 for nap in naps)
    _check(
        short <= _MOST_SHORT,
        f"{when} {short} of {_NAPS} waits for {_NAP} s return before half of it",
    )
    return median(naps)


def _interrupted(
    manager: CommunicationManager, call: Callable[[], object], failures: list[BaseException]
) -> None:
    """Call something with a ``wake`` between every two lines of it, as signal handlers come."""

    def handler(_frame: Any, _event: str, _argument: Any) -> Any:
        manager.wake()
        return handler

    before = sys.gettrace()
    sys.settrace(handler)
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - told by whoever waits for this thread
        failures.append(error)
    finally:
        sys.settrace(before)


def _wait_long(manager: CommunicationManager, begun: Barrier) -> None:
    begun.wait(_PATIENCE)
    manager.wait(_PATIENCE)


def _wait_for_message(manager: CommunicationManager) -> None:
    """Only wait: a wait that returns before its time has something to tell, or no reason."""
    deadline = time.monotonic() + _PATIENCE
    early = 0
    while early < 3 and time.monotonic() < deadline:
        early += _waited(manager, 1.0) < 0.5


def _odd_messages() -> list[list[Any]]:
    return [
        [b""],
        [b"", b"", b""],
        [bytes(range(256))],
        [bytearray(b"array"), memoryview(b"a view of it")[2:6]],
        [memoryview(array("d", [1.5, 2.5])), array("i", range(1000))],
        [PickleBuffer(bytearray(200_000)), b"", PickleBuffer(b"")],
        [b"%d" % number for number in range(20_000)],
        [bytes(size) for size in (65_535, 65_536, 65_537, 131_072, 1_000_000, 3)],
        [b"the last"],
    ]
