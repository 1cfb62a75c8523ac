"""The mail of the MPI manager and what it does before it sleeps, on a library of a few lines.

With real libraries a small message is out, and complete, at once, so what these tests are about
happens now and then.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from dtm.comm.mpi.doorbell import Doorbell
from dtm.comm.mpi.manager import MpiManager
from dtm.comm.mpi.messages import INLINE_LIMIT, Mail, pack

LARGE = bytes(range(256)) * (INLINE_LIMIT // 256 + 1)
HEAD_TAG = 1


class Request:
    def __init__(self, done: bool) -> None:
        self.done = done

    def Test(self) -> bool:
        return self.done


class Library:
    """A communicator of which the test says when what is done.

    Attributes:
        eager: whether a send, or the receive of a head, is done at once.
        heads: the messages that can be probed, as (sender, content).
        vain: how many probes see nothing though there is something.
        sends: the requests of what was sent.
        receives: the receives of bodies that are posted, as (buffer, request).
    """

    BYTE = None
    ANY_SOURCE = -1
    Exception = RuntimeError
    buffer = SimpleNamespace(allocate=bytearray)

    def __init__(self) -> None:
        self.eager = True
        self.heads: list[tuple[int, bytes]] = []
        self.vain = 0
        self.sends: list[Request] = []
        self.receives: list[tuple[memoryview, Request]] = []
        self.head_requests: list[Request] = []
        self._probed: tuple[int, bytes] = (0, b"")

    def Status(self) -> Any:
        return SimpleNamespace(
            Get_source=lambda: self._probed[0], Get_count=lambda _: len(self._probed[1])
        )

    def Isend(self, _content: Any, _rank: int, _tag: int) -> Request:
        self.sends.append(Request(self.eager))
        return self.sends[-1]

    def _sees_nothing(self) -> bool:
        self.vain -= 1
        return self.vain >= 0 or not self.heads

    def Improbe(self, *_: Any) -> Any:
        if self._sees_nothing():
            return None
        self._probed = self.heads.pop(0)
        return SimpleNamespace(Irecv=self._head)

    def _head(self, buffer: Any) -> Request:
        buffer[0][:] = self._probed[1]
        self.head_requests.append(Request(self.eager))
        return self.head_requests[-1]

    def Iprobe(self, _source: int, tag: int) -> bool:
        return tag == HEAD_TAG and not self._sees_nothing()

    def Irecv(self, buffer: Any, _source: int, _tag: int) -> Request:
        self.receives.append((memoryview(buffer[0]).cast("B"), Request(done=False)))
        return self.receives[-1][1]

    def come(self, sender: int, *frames: bytes) -> None:
        """Let the head of a message come."""
        self.heads.append((sender, pack(frames)[0]))

    def fill(self, which: int, content: bytes) -> None:
        """Let a body come."""
        buffer, request = self.receives[which]
        buffer[:] = content
        request.done = True


class Post:
    """The mail of a rank, and whom it has told that a message went out late."""

    def __init__(self) -> None:
        self.library: Any = Library()
        self.late: list[int] = []
        self.mail = Mail(self.library, self.library, self.late.append)

    def receive(self) -> list[tuple[int, list[bytes]]]:
        return [(sender, [*map(bytes, frames)]) for sender, frames in self.mail.receive()]


@pytest.fixture
def post() -> Iterator[Post]:
    """Mail under which nothing is left in the end."""
    made = Post()
    yield made
    assert made.mail.load == 0


# Messages in.


def test_a_message_is_there_when_all_its_bodies_are(post: Post) -> None:
    post.library.come(1, b"small", LARGE, LARGE)
    assert post.receive() == []
    post.library.fill(1, LARGE)
    assert post.receive() == []
    assert post.mail.load > 2 * len(LARGE)
    post.library.fill(0, LARGE)
    assert post.receive() == [(1, [b"small", LARGE, LARGE])]
    assert post.receive() == []


def test_what_a_first_probe_does_not_see_a_second_does(post: Post) -> None:
    """Open MPI looks for what has come after it has answered."""
    post.library.come(1, b"here")
    post.library.vain = 1
    assert post.mail.look()
    post.library.vain = 1
    assert post.receive() == [(1, [b"here"])]


def test_no_message_overtakes_an_earlier_one_of_its_sender(post: Post) -> None:
    post.library.come(1, LARGE)
    post.library.come(1, b"later")
    post.library.come(2, b"of another")
    assert post.receive() == [(2, [b"of another"])]
    post.library.come(1, b"last")
    assert post.receive() == []
    post.library.fill(0, LARGE)
    assert post.receive() == [(1, [LARGE]), (1, [b"later"]), (1, [b"last"])]


def test_a_head_that_is_under_way_holds_up_what_comes_after_it(post: Post) -> None:
    post.library.eager = False
    post.library.come(1, b"first")
    assert post.receive() == []
    post.library.eager = True
    post.library.come(1, b"second")
    assert post.receive() == []
    assert not post.mail.look()
    post.library.head_requests[0].done = True
    assert post.mail.look()
    assert post.receive() == [(1, [b"first"]), (1, [b"second"])]


def test_bodies_are_received_in_the_order_of_their_heads(post: Post) -> None:
    post.library.eager = False
    for number in range(2):
        post.library.come(1, bytes([number]) * len(LARGE))
    assert post.receive() == []
    post.library.head_requests[1].done = True
    assert not post.mail.look()
    assert not post.library.receives
    post.library.head_requests[0].done = True
    assert not post.mail.look()
    for number in range(2):
        post.library.fill(number, bytes([number]) * len(LARGE))
    assert [frames[0][0] for _, frames in post.receive()] == [0, 1]


# Messages out.


def test_what_is_not_out_yet_is_kept_and_its_receiver_told_when_it_is(post: Post) -> None:
    post.library.eager = False
    post.mail.send(3, [b"x" * 50])
    assert post.mail.sending
    assert post.mail.receivers() == {3}
    assert post.mail.load >= 50
    assert not post.mail.look()
    assert post.mail.sending
    assert post.late == []
    post.library.sends[0].done = True
    assert not post.mail.look()
    assert not post.mail.sending
    assert post.late == [3]


def test_nobody_waits_for_what_the_dead_do_not_take_or_send(post: Post) -> None:
    post.library.come(1, LARGE)
    post.library.eager = False
    post.mail.send(1, [b"to the dead"])
    post.mail.send(2, [b"to the living"])
    assert post.receive() == []
    post.mail.abandon(1)
    assert post.mail.receivers() == {2}
    assert not post.mail.look()
    post.library.sends[1].done = True
    assert post.receive() == []
    assert post.late == [2]


class Memory(bytearray):
    """Memory that can be watched."""


def test_memory_that_mpi_may_write_to_or_read_is_kept_for_ever(post: Post) -> None:
    post.library.eager = False
    content = Memory(LARGE)
    kept = weakref.ref(content)
    post.mail.send(1, [content])
    del content
    post.mail.abandon(1)
    gc.collect()
    assert kept() is not None


# The manager: who sleeps is rung, and who sleeps long has looked again.


class Noted:
    """Mail and bell of a manager; what is called is noted in ``steps``."""

    sending = False
    load = 0

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.found: list[bool] = []
        self.traffic = 0

    def look(self) -> bool:
        self.steps.append("look")
        return self.found.pop(0) if self.found else False

    def send(self, rank: int, _frames: Any) -> None:
        self.steps.append(f"send to {rank}")

    def receive(self) -> list[Any]:
        self.steps.append("receive")
        return []

    def ring(self, rank: int) -> None:
        self.steps.append(f"ring {rank}")

    def ask_for_bells(self) -> None:
        self.steps.append("ask")


class Quiet(MpiManager):
    """A manager that has joined nobody, on which all has been quiet for long."""

    def __init__(self, noted: Any) -> None:
        self.rank, self.size = 0, 3
        self._mpi = Library  # type: ignore[assignment]
        self._mail = self._bell = noted
        self._lock = threading.Lock()
        self._asleep = self._far = False
        self._spin = 0.0
        self._news = []
        self._gone = set()
        self._traffic_seen = 0
        self._stirred = monotonic() - 1000.0
        self.wakes = 0

    def wake(self) -> None:
        self.wakes += 1


def test_who_is_sent_to_is_rung_after_the_message() -> None:
    noted = Noted()
    Quiet(noted).send(2, [b"x"])
    assert noted.steps == ["send to 2", "ring 2"]


def test_before_a_long_sleep_a_rank_asks_for_bells_and_looks_again() -> None:
    noted = Noted()
    manager = Quiet(noted)
    deadline = monotonic() + 1000.0
    assert manager._look(deadline)
    assert noted.steps == ["look", "ask", "look"]
    assert manager._look(deadline)
    assert noted.steps == ["look", "ask", "look", "look"]


def test_what_came_before_the_bells_were_asked_for_ends_the_wait() -> None:
    noted = Noted()
    noted.found = [False, True]
    assert Quiet(noted)._look(monotonic() + 1000.0) is None


@pytest.mark.parametrize("call", ["send", "receive"])
def test_a_sleeping_leader_is_woken_when_something_is_under_way(call: str) -> None:
    noted = Noted()
    manager = Quiet(noted)
    args = (1, [b"x"]) if call == "send" else ()
    getattr(manager, call)(*args)
    manager._asleep = True
    getattr(manager, call)(*args)
    assert manager.wakes == 0
    noted.load = 70
    getattr(manager, call)(*args)
    assert manager.wakes == 1


# The bell itself.


@pytest.fixture
def bells() -> Iterator[list[Doorbell]]:
    """Three bells of one machine, whose ranks are awake."""
    made = [Doorbell(3) for _ in range(3)]
    try:
        for rank, bell in enumerate(made):
            bell.meet(rank, [each.card for each in made])
        if not all(bell.neighbours for bell in made):
            pytest.skip("ranks cannot ring each other on this system")
        yield made
    finally:
        for bell in made:
            bell.close()


def rung(bell: Doorbell) -> bool:
    """Tell whether bells wait, and read them."""
    assert bell._socket is not None
    try:
        bell._socket.recv(1)
    except BlockingIOError:
        return False
    bell.drain()
    return True


def test_only_who_has_asked_is_rung(bells: list[Doorbell]) -> None:
    one, two, three = bells
    two.ask_for_bells()
    for _ in range(3):
        one.ring(1)
    one.ring(2)
    assert rung(two)
    assert not rung(two)
    assert not rung(three)
    two.decline_bells()
    three.ring(1)
    assert not rung(two)
