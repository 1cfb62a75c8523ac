"""Large frames go through shared memory, whole and in order, and nothing of it is left behind."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtm.comm import segments
from dtm.comm.base import CommunicationManager, Frame, LostPeer
from dtm.comm.segments import Segments
from dtm.comm.serial import SingleManager
from dtm.comm.sharing import Sharing, shared
from dtm.testing.conformance import Scenario, check_communication_manager
from tests.local_programs import local_factory

pytestmark = pytest.mark.skipif(not segments.available(), reason="this system has no such memory")


class Post(CommunicationManager):
    """A manager for several ranks in one thread: what is sent lies in the receiver's box."""

    def __init__(self, rank: int, boxes: list[deque[tuple[int, list[Frame]]]]) -> None:
        self.rank, self.size, self.hosts = rank, len(boxes), ("here",) * len(boxes)
        self.boxes = boxes
        self.sent_bytes = 0
        self.dead: list[LostPeer] = []
        self.closed = False

    def send(self, rank: int, frames: Sequence[Frame]) -> None:
        if rank == self.rank or not 0 <= rank < self.size:
            raise ValueError(rank)
        self.sent_bytes += sum(memoryview(frame).nbytes for frame in frames)
        self.boxes[rank].append((self.rank, list(frames)))

    def receive(self) -> list[tuple[int, list[Frame]]]:
        box = self.boxes[self.rank]
        came = [*box]
        box.clear()
        return came

    def wait(self, timeout: float) -> None: ...

    def wake(self) -> None: ...

    def lost(self) -> list[LostPeer]:
        dead, self.dead = self.dead, []
        return dead

    def close(self, timeout: float) -> None:
        self.closed = True


class Crew:
    """Ranks that share memory over a manager of the tests."""

    def __init__(self, size: int = 2, *, large: int = 1000, idle_bytes: int = 1 << 20) -> None:
        boxes: list[deque[tuple[int, list[Frame]]]] = [deque() for _ in range(size)]
        self.posts = [Post(rank, boxes) for rank in range(size)]
        self.ranks = [Sharing(post, idle_bytes, large) for post in self.posts]

    def meet(self) -> None:
        """Let each have a message of each other."""
        for one in self.ranks:
            for rank in range(one.size):
                if rank != one.rank:
                    one.send(rank, [b"hello"])
        for _ in range(3):
            for one in self.ranks:
                one.receive()

    def carry(self, *frames: Frame, to: int = 1) -> list[Frame]:
        """Send a message from rank 0; return it as it arrives."""
        self.ranks[0].send(to, frames)
        [(source, came)] = self.ranks[to].receive()
        assert source == 0
        return came

    def settle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let everything be told that is owed."""
        monkeypatch.setattr("dtm.comm.sharing._OWED_SECONDS", 0.0)
        for _ in range(3):
            for one in self.ranks:
                assert one.receive() == []


@pytest.fixture
def crew() -> Iterator[Crew]:
    made = Crew()
    made.meet()
    yield made
    for one in made.ranks:
        one.close(1.0)


def block(number: int, size: int = 5000) -> bytes:
    return bytes((number + i) % 256 for i in range(256)) * (size // 256 + 1)


def test_a_large_frame_is_not_sent_but_mapped(crew: Crew) -> None:
    before = crew.posts[0].sent_bytes
    came = crew.carry(b"head", block(1), b"", bytearray(block(2)), memoryview(block(3)))
    assert [bytes(frame) for frame in came] == [b"head", block(1), b"", block(2), block(3)]
    assert crew.posts[0].sent_bytes - before < 1000


def test_frames_of_any_format_arrive_as_bytes(crew: Crew) -> None:
    numbers = memoryview(block(1, 8000)).cast("Q")
    square = memoryview(block(2, 8192)[:8192]).cast("B", (64, 128))
    assert crew.carry(numbers, square) == [bytes(numbers), bytes(square)]


def test_who_changes_what_came_changes_it_for_nobody_else() -> None:
    crew = Crew(3)
    crew.meet()
    frame = memoryview(bytearray(block(7)))
    first, second = crew.carry(frame)[0], crew.carry(frame, to=2)[0]
    assert isinstance(first, memoryview)
    first[:] = bytes(len(first))
    assert frame == block(7)
    assert second == block(7)
    assert crew.carry(frame, to=2) == [block(7)]


def test_a_frame_that_goes_to_several_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Crew(4)
    crew.meet()
    written = []
    write = segments.Segment.write
    monkeypatch.setattr(
        segments.Segment, "write", lambda one, data: (written.append(len(data)), write(one, data))
    )
    frame = memoryview(block(1))
    for rank in (1, 2, 3):
        assert crew.carry(frame, to=rank) == [frame]
    assert written == [len(frame)]
    other = memoryview(bytearray(block(2)))
    assert crew.carry(other) == [other]
    assert len(written) == 2


def test_before_they_have_met_frames_go_as_they_are() -> None:
    crew = Crew()
    assert crew.carry(b"head", block(1)) == [b"head", block(1)]
    assert crew.posts[0].sent_bytes >= len(block(1))


@pytest.mark.parametrize("rest", [[], [b""], [b"", b"x"], [block(1)], [b"", block(2), b""]])
def test_a_message_may_begin_with_an_empty_frame(crew: Crew, rest: list[bytes]) -> None:
    assert crew.carry(b"", *rest) == [b"", *rest]
    assert Crew().carry(b"", *rest) == [b"", *rest]


def _nobody(*_: object) -> None:
    return None


def test_who_cannot_open_the_card_is_sent_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Crew()
    monkeypatch.setattr(segments, "opened", _nobody)
    crew.meet()
    monkeypatch.undo()
    before = crew.posts[0].sent_bytes
    assert crew.carry(block(1)) == [block(1)]
    assert crew.posts[0].sent_bytes - before >= len(block(1))


def test_a_descriptor_of_another_file_is_not_taken_for_a_segment(tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with (tmp_path / "file").open("rb") as other:
        card = os.getpid(), other.fileno(), "dtm-00-0"
        assert segments.opened(card) is None
    assert segments.opened((2**22 + 1, 3, "dtm-00-0")) is None
    own = Segments(0)
    process, descriptor, name = own.card
    assert segments.opened((process, descriptor, f"{name}1")) is None
    found = segments.opened(own.card)
    assert found is not None
    os.close(found)
    own.close()


def test_what_cannot_be_opened_comes_by_the_manager_and_in_order(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader has no descriptor left, say, or the writer has changed its user."""
    one, other = crew.ranks
    messages = [[b"0", block(0)], [b"1"], [b"", block(2), b"x", block(3)], [block(4)], [b"5"]]
    for message in messages[:3]:
        one.send(1, message)
    monkeypatch.setattr(segments, "opened", _nobody)
    assert other.receive() == []
    for message in messages[3:]:
        one.send(1, message)
    assert other.receive() == []
    monkeypatch.undo()
    assert one.receive() == []
    assert [frames for _, frames in other.receive()] == messages
    before = crew.posts[0].sent_bytes
    assert crew.carry(block(6)) == [block(6)]
    assert crew.posts[0].sent_bytes - before >= len(block(6))


def test_what_cannot_be_mapped_is_read(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "mapped", _nobody)
    before = crew.posts[0].sent_bytes
    [came] = crew.carry(block(1))
    assert came == block(1)
    assert isinstance(came, bytearray)
    assert crew.posts[0].sent_bytes - before < 1000


@pytest.mark.parametrize("call", ["pwrite", "memfd_create"])
def test_without_memory_frames_go_as_they_are(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, call, full)
    before = crew.posts[0].sent_bytes
    assert crew.carry(b"head", block(1)) == [b"head", block(1)]
    assert crew.posts[0].sent_bytes - before >= len(block(1))
    monkeypatch.undo()
    before = crew.posts[0].sent_bytes
    assert crew.carry(block(2)) == [block(2)]
    assert crew.posts[0].sent_bytes - before < 1000


def _open_segments() -> int:
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}").startswith("/memfd:dtm-")
        except OSError:
            continue
    return count


def test_memory_is_used_again_and_bounded(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _open_segments()
    for number in range(1000):
        came = crew.carry(block(number, 100_000))
        assert came == [block(number, 100_000)]
        del came
        crew.ranks[0].receive()
    assert _open_segments() - before < 30
    crew.settle(monkeypatch)
    assert 0 < crew.ranks[0]._segments.held_bytes <= 1 << 20


def test_what_is_still_looked_at_is_not_written_again(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [crew.carry(block(number))[0] for number in range(50)]
    crew.settle(monkeypatch)
    for number in range(50, 100):
        crew.carry(block(number))
        crew.settle(monkeypatch)
    assert kept == [block(number) for number in range(50)]
    del kept
    crew.settle(monkeypatch)
    assert crew.ranks[0]._segments.held_bytes <= 1 << 20


def test_what_a_forked_child_may_see_is_not_written_again(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = crew.carry(block(1))
    ready, go = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(go)
            os.read(ready, 1)
            os._exit(0 if kept == [block(1)] else 1)
        finally:
            os._exit(2)
    os.close(ready)
    del kept
    crew.settle(monkeypatch)
    for number in range(2, 12):
        crew.carry(block(number))
        crew.settle(monkeypatch)
    os.close(go)
    assert os.waitpid(child, 0)[1] == 0


def test_more_segments_than_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "MOST_OPEN", 8)
    monkeypatch.setattr(segments, "MOST_MAPPED", 30)
    crew = Crew()
    crew.meet()
    before = _open_segments()
    kept = []
    for number in range(60):
        kept += crew.carry(block(number))
        assert _open_segments() - before < 60
        crew.settle(monkeypatch)
    assert kept == [block(number) for number in range(60)]
    assert len(crew.ranks[0]._segments._open) <= 9
    messages = [[block(number)] for number in range(20)]
    for message in messages:
        crew.ranks[0].send(1, message)
    assert [frames for _, frames in crew.ranks[1].receive()] == messages


def test_the_memory_of_a_dead_reader_is_let_go(crew: Crew) -> None:
    crew.ranks[0].send(1, [block(1)])
    crew.ranks[0].send(1, [block(2)])
    assert crew.ranks[0]._segments.held_bytes > 0
    crew.posts[0].dead = [LostPeer(1, "killed")]
    assert crew.ranks[0].lost() == [LostPeer(1, "killed")]
    assert crew.ranks[0]._segments.held_bytes == 0
    assert crew.ranks[0].lost() == []


def test_who_closes_leaves_the_bytes_behind(crew: Crew) -> None:
    one, other = crew.ranks
    came = crew.carry(b"a", block(1))
    one.send(1, [b"b", block(2)])
    one.close(1.0)
    assert crew.posts[0].closed
    assert came == [b"a", block(1)]
    assert other.receive() == [(0, [b"b", block(2)])]


def test_nothing_is_open_after_the_end() -> None:
    before = _open_segments()
    crew = Crew()
    crew.meet()
    for number in range(5):
        crew.carry(block(number))
    for one in crew.ranks:
        one.close(1.0)
    del crew, one  # and what was sent again
    assert _open_segments() == before


sizes = st.lists(st.sampled_from([0, 1, 999, 1000, 1001, 4096, 70_000]), min_size=1, max_size=4)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.booleans(), sizes, st.booleans(), st.booleans()), max_size=30))
def test_any_messages_arrive_as_sent(steps: list[tuple[bool, list[int], bool, bool]]) -> None:
    crew = Crew(idle_bytes=100_000)
    owed: list[list[list[bytes]]] = [[], []]
    kept: list[tuple[list[Frame], list[bytes]]] = []
    for number, (turn, lengths, reads, drops) in enumerate(steps):
        frames = [bytes([number % 256]) * length for length in lengths]
        crew.ranks[turn].send(not turn, frames)
        owed[not turn].append(frames)
        if reads:
            for rank in (0, 1):
                for _, came in crew.ranks[rank].receive():
                    kept.append((came, owed[rank].pop(0)))
        if drops:
            assert all(came == sent for came, sent in kept)
            kept.clear()
    for rank in (0, 1, 0, 1, 0, 1):
        for _, came in crew.ranks[rank].receive():
            assert came == owed[rank].pop(0)
    assert owed == [[], []]
    assert all(came == sent for came, sent in kept)
    for one in crew.ranks:
        one.close(1.0)


def test_where_nothing_can_be_shared_the_manager_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = SingleManager()
    assert shared(alone) is alone
    post = Post(0, [deque(), deque()])
    assert isinstance(shared(post), Sharing)
    monkeypatch.setattr(os, "memfd_create", _refused)
    assert shared(post) is post
    monkeypatch.delattr(os, "memfd_create")
    assert shared(post) is post


def _refused(*_: object) -> int:
    raise PermissionError


def _shared_scenario(scenario: Callable[..., None], manager: Any, **options: Any) -> None:
    scenario(Sharing(manager, large=1000), **options)


class SharingFactory:
    """Runs a scenario on managers of local processes with shared memory between them."""

    vanish = staticmethod(local_factory.vanish)

    def __call__(self, scenario: Scenario, size: int) -> None:
        inner = getattr(scenario, "func", scenario)
        options = getattr(scenario, "keywords", {})
        local_factory(partial(_shared_scenario, inner, **options), size)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_conformance_of_local_workers_that_share() -> None:
    verdict = check_communication_manager(SharingFactory())
    assert not verdict.not_tried
