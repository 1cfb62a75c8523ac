"""Handles of shared objects: whoever has one can look, and nothing stays when all are gone."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dtm import dtm
from dtm.core.messages import Found, Message
from dtm.errors import RunStateError, SerializationError
from dtm.handle import Handle, collecting_pickled, here
from dtm.run import handles as module
from dtm.run.handles import FAN_OUT, Handles
from tests.launch import Launcher, launchers

PROGRAM = Path(__file__).parent / "programs" / "shared_objects.py"


class Site:
    """A worker that only has handles."""

    def __init__(self, crew: Crew, rank: int, hosts: list[str]) -> None:
        self.crew, self.rank = crew, rank
        self.lock = threading.RLock()
        self.ended = False
        self.handles = Handles(self, rank, hosts)
        self.variables: list[Handle[Any]] = []

    def send(self, to: int, message: Message) -> None:
        assert to != self.rank
        self.crew.ways.setdefault((self.rank, to), deque()).append(message)

    def service(self) -> None:
        self.crew.deliver()


class Crew:
    """Workers of one process, with messages that stay in order between each two."""

    def __init__(self, hosts: str, seed: int = 0) -> None:
        self.random = Random(seed)
        self.ways: dict[tuple[int, int], deque[Any]] = {}
        self.sites = [Site(self, rank, [*hosts]) for rank in range(len(hosts))]
        self.given: dict[tuple[int, int], int] = {}

    @contextmanager
    def at(self, rank: int) -> Iterator[Site]:
        """Be one of the workers."""
        before, here.table = here.table, self.sites[rank].handles
        try:
            yield self.sites[rank]
        finally:
            here.table = before

    def share(self, rank: int, value: Any) -> None:
        with self.at(rank) as site:
            handle = Handle(value)
            site.handles.adopt(handle)
            site.variables.append(handle)

    def give(self, rank: int, to: int, handle: Handle[Any]) -> None:
        """Send a handle as the wire does."""
        gathered: list[Handle[Any]] = []
        with self.at(rank) as site:
            data = collecting_pickled(gathered, pickle.dumps, handle)
        site.handles.pin(to, gathered)
        site.send(to, (data, [each.key for each in gathered]))  # type: ignore[arg-type]

    def deliver(self) -> bool:
        """Deliver a message of any two; False if there is none."""
        ready = [way for way, messages in self.ways.items() if messages]
        if not ready:
            return False
        source, to = self.random.choice(ready)
        message = self.ways[source, to].popleft()
        with self.at(to) as site, site.lock:
            if type(message) is tuple:
                site.variables.append(pickle.loads(message[0]))
                site.handles.came(source, message[1])
            else:
                if isinstance(message, Found) and message.frames:
                    self.given[source, to] = self.given.get((source, to), 0) + 1
                site.handles.hear(source, message)
            site.handles.settle()
        return True

    def settle(self) -> None:
        """Let all be said that anybody has to say."""
        for _ in range(4):
            for site in self.sites:
                site.handles.settle()
            while self.deliver():
                pass

    def look(self, rank: int, handle: Handle[Any]) -> Any:
        with self.at(rank):
            return handle.value

    def nothing_is_left(self) -> bool:
        """Whether no worker knows of any handle."""
        return not any(
            getattr(site.handles, name)
            for site in self.sites
            for name in ("_recent", "_unneeded", "_refs", "_own", "_held", "_confirmed", "_pins",
                         "_unkept", "_fetching", "_asking", "_loose")
        )  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.0)


ACTS = st.tuples(st.sampled_from(["share", "give", "give", "drop", "look", "deliver", "deliver"]),
                 st.integers(0, 3), st.integers(0, 3), st.integers(0, 5))  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(st.lists(ACTS, max_size=80), st.sampled_from(["aaaa", "aabb", "abcd"]), st.integers(0, 99))
@example(
    [("share", 1, 0, 0), ("give", 1, 0, 0), *[("deliver", 0, 0, 0)] * 3, ("drop", 0, 0, 0)],
    "aaaa",
    0,
)
def test_whoever_has_a_handle_can_look_and_nothing_stays(
    acts: list[tuple[str, int, int, int]], hosts: str, seed: int
) -> None:
    crew = Crew(hosts, seed)
    made = 0
    for act, rank, to, which in acts:
        mine = crew.sites[rank].variables
        if act == "share":
            crew.share(rank, ("value", made := made + 1))
        elif act == "deliver":
            crew.deliver()
        elif not mine:
            continue
        elif act == "drop":
            del mine[which % len(mine)]
        elif act == "look":
            assert crew.look(rank, mine[which % len(mine)])[0] == "value"
        elif rank != to:
            crew.give(rank, to, mine[which % len(mine)])
    while crew.deliver():
        pass
    for site in crew.sites:
        assert all(crew.look(site.rank, one)[0] == "value" for one in site.variables)
        site.variables.clear()
    crew.settle()
    assert crew.nothing_is_left()


def test_an_object_goes_once_to_a_worker_and_is_one_there() -> None:
    crew = Crew("aa")
    crew.share(0, {"table": np.arange(10_000.0)})
    (mine,) = crew.sites[0].variables
    for _ in range(3):
        crew.give(0, 1, mine)
    crew.settle()
    first, second, third = crew.sites[1].variables
    assert first is second is third
    value = crew.look(1, first)
    assert crew.look(1, second) is value
    assert crew.given == {(0, 1): 1}
    assert crew.look(0, mine)["table"].flags.writeable
    assert not value["table"].flags.writeable
    assert (value["table"] == np.arange(10_000.0)).all()


def test_hosts_get_an_object_once_down_a_tree() -> None:
    names = "abcdefghijk"
    crew = Crew("".join(name * 3 for name in names))
    crew.share(0, "all need it")
    (mine,) = crew.sites[0].variables
    for rank in range(1, len(crew.sites)):
        crew.give(0, rank, mine)
    crew.settle()
    for site in crew.sites[1:]:
        (handle,) = site.variables
        assert crew.look(site.rank, handle) == "all need it"
    across = [(one, other) for one, other in crew.given if names[one // 3] != names[other // 3]]
    assert len(across) == len(names) - 1
    assert sorted(other // 3 for _, other in across) == list(range(1, len(names)))
    for giver in {one for one, _ in across}:
        assert sum(one == giver for one, _ in across) <= FAN_OUT


def test_who_was_to_hand_it_on_may_have_dropped_it() -> None:
    crew = Crew("abb")
    crew.share(0, "x")
    (mine,) = crew.sites[0].variables
    for rank in (1, 2):
        crew.give(0, rank, mine)
    crew.settle()
    assert crew.look(1, crew.sites[1].variables[0]) == "x"
    crew.sites[1].variables.clear()
    crew.settle()
    assert crew.look(2, crew.sites[2].variables[0]) == "x"


def test_the_owner_keeps_what_others_hold() -> None:
    crew = Crew("aa")
    crew.share(0, "kept")
    crew.give(0, 1, crew.sites[0].variables.pop())
    gc.collect()
    crew.settle()
    (handle,) = crew.sites[1].variables
    assert crew.look(1, handle) == "kept"
    assert len(crew.sites[0].handles._own) == 1


def test_a_handle_that_nobody_knew_of_says_so() -> None:
    crew = Crew("aa")
    crew.share(0, "x")
    with crew.at(0) as site:
        data = pickle.dumps(site.variables[0])  # to be kept in a file, say
    crew.sites[0].variables.clear()
    crew.settle()
    for rank in (0, 1):
        with crew.at(rank):
            late = pickle.loads(data)
            with pytest.raises(RunStateError, match="freed"):
                late.value  # noqa: B018


def test_after_the_end_or_in_the_middle_of_messages_nobody_waits() -> None:
    crew = Crew("aa")
    crew.share(0, "x")
    crew.give(0, 1, crew.sites[0].variables[0])
    crew.settle()
    (handle,) = crew.sites[1].variables
    with crew.at(1) as site, site.lock, pytest.raises(RunStateError, match="pickled or loaded"):
        handle.value  # noqa: B018
    crew.sites[1].ended = True
    with crew.at(1), pytest.raises(RunStateError, match="run is over"):
        handle.value  # noqa: B018
    with pytest.raises(RunStateError, match="as long as the run"):
        handle.value  # noqa: B018


def test_what_cannot_be_loaded_or_sent_is_named() -> None:
    crew = Crew("aa")
    with pytest.raises(SerializationError, match=r"a dict cannot be shared: .*lock"):
        crew.share(0, {"guard": threading.Lock()})
    crew.share(0, Spiteful())
    crew.give(0, 1, crew.sites[0].variables[0])
    crew.settle()
    with pytest.raises(SerializationError, match="ZeroDivisionError"):
        crew.look(1, crew.sites[1].variables[0])


class Spiteful:
    """Cannot be loaded."""

    def __reduce__(self) -> Any:
        return divmod, (1, 0)


def test_outside_of_a_run_a_handle_holds_its_object() -> None:
    value = [1, 2]
    handle = dtm.share(value)
    assert handle.value is value
    assert dtm.map(lambda one: handle.value[one], range(2)) == value
    assert copy.deepcopy([handle])[0] is handle
    assert pickle.loads(pickle.dumps(handle)).value == value
    assert repr(handle) == "<dtm.Handle of a list>"


@pytest.mark.parametrize("launcher", launchers("local-2", "mpi-4", "tcp-3", "local-1"))
def test_handles_in_runs(launcher: Launcher) -> None:
    done = launcher.run(PROGRAM, timeout=110)
    assert done.returncode == 0, (done.stdout, done.stderr)
    verdicts = dict(line.split() for line in done.stdout.splitlines())
    assert len(verdicts) >= 9
    assert set(verdicts.values()) == {"True"}, (done.stdout, done.stderr)
