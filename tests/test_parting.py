"""The end of a run that has lost workers: nobody waits for them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from threading import Timer

import pytest

from dtm.comm.base import LostPeer
from dtm.comm.tcp.manager import TcpManager
from dtm.launch.agent import Node
from dtm.launch.hosts import Host
from dtm.launch.launcher import Launcher, Stage
from dtm.launch.messages import Address, Ended, Job, Lost, Message
from dtm.launch.plan import Run, Starting, placed
from dtm.launch.processes import Workers
from dtm.launch.remote_agent import Stage as Agent
from dtm.launch.tcp_worker import LauncherLine, Root
from tests.tcp_programs import pump, run_of, running


def test_the_launcher_waits_for_nobody_whom_the_root_has_lost() -> None:
    run = Run(placed([Host("localhost", 3)], 3), ["-c", ""], ".", [], Starting("python"))
    launcher = Launcher(run)
    launcher._go("all hosts ready")
    launcher._take(Lost([2]))
    launcher._take(Ended(1, 0))
    assert launcher._left == {0, 2}

    async def end() -> None:
        launcher._take(Ended(0, 1))

    asyncio.run(end())
    assert launcher.stage is Stage.OVER
    assert launcher._status == 1


def test_a_root_tells_whom_it_has_lost() -> None:
    ours, theirs = socket.socketpair()
    with ours, run_of(3, kind=Root) as (root, _):
        assert isinstance(root, Root)
        root.hear_launcher(theirs)
        root._lose(2, "no answer")
        root._lose(2, "once is enough")
        assert _lines(ours) == [root.address, [2]]


@pytest.mark.parametrize("unread", [[], [b"unread"]], ids=["at its end", "reset"])
def test_how_a_worker_was_killed_is_waited_for_however_its_connection_ends(
    unread: list[bytes],
) -> None:
    """The kernel resets the connection of a process that is killed with input unread."""
    ours, theirs = socket.socketpair()
    with ours, run_of(2, kind=Root) as (root, credentials):
        assert isinstance(root, Root)
        with running(root):
            worker = TcpManager.join(root.address, credentials)
        root.hear_launcher(theirs)
        for message in unread:
            root.send(1, [message])
        os.dup2(theirs.fileno(), worker._routes[0].fileno())  # closes it without a farewell

        def tell() -> None:
            ours.send(b'[[1], "killed by SIGKILL"]\n')

        late = Timer(0.1, tell)
        late.start()
        pump(root, lambda: 1 in root._gone)
        late.join()
        assert root.lost() == [LostPeer(1, "killed by SIGKILL")]
        worker.close(0.0)


def _lines(line: socket.socket) -> list[object]:
    return [json.loads(each) for each in line.recv(1 << 16).splitlines()]


def test_what_a_root_told_last_is_read_though_it_has_ended() -> None:
    source = (
        "import os, socket\n"
        "from dtm.launch.tcp_worker import LauncherLine, accept_invitation\n"
        "_, line = accept_invitation()\n"
        "line = LauncherLine(line, print)\n"
        "line.tell('tcp://127.0.0.1:1')\n"
        "line.tell([1, 2])\n"
        "os._exit(0)\n"
    )
    heard: list[Message] = []

    async def run() -> None:
        invitation = {"credentials": "", "size": 1, "hosts": ["a"], "tls": False}
        command = [sys.executable, "-c", source]
        room = asyncio.Event()  # it is full: nothing but the end of a worker is waited for
        workers = Workers([0], command, dict(os.environ), invitation, heard.append, room)
        async with asyncio.TaskGroup() as tasks:
            workers.start(tasks, None)

    asyncio.run(asyncio.wait_for(run(), 60.0))
    assert heard == [Address("tcp://127.0.0.1:1"), Lost([1, 2]), Ended(0, 0)]


def test_a_line_home_that_nobody_reads_is_no_error() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    line = LauncherLine(theirs, print)
    line.tell([1])
    line.close()


def test_an_agent_that_has_fallen_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Message] = []
    dismissed: list[None] = []

    async def run() -> None:
        starting = Starting("python", ssh="/bin/sh -c 'exec sleep 100'")
        job = Job(".", [], [], "", {}, {}, {}, starting._asdict())
        room = asyncio.Event()
        node = Node([], placed([Host("n1", 1)], 1), job, heard.append, room)
        (agent,) = node._agents
        monkeypatch.setattr(agent, "dismiss", lambda: dismissed.append(None))
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(node.serve(tasks, "", ""))
            await asyncio.sleep(0.0)
            agent.stage = Agent.WORKING
            agent._heard -= 3.0
            assert not agent.silent  # nobody listens
            room.set()
            assert agent.silent
            serving.cancel()
            await node.end()
        assert agent.stage is Agent.GONE

    asyncio.run(asyncio.wait_for(run(), 60.0))
    assert dismissed == []
    assert heard == []
