"""The end of a run that has lost workers: nobody waits for them."""

from __future__ import annotations

import json
import os
import socket
import sys

import pytest

from dtm.launch.hosts import Host
from dtm.launch.launcher import Launcher, Run, Stage
from dtm.launch.loop import Loop
from dtm.launch.messages import Address, Ended, Job, Lost, Message
from dtm.launch.node import Node
from dtm.launch.plan import placed
from dtm.launch.processes import Crew
from dtm.launch.remote import Starting
from dtm.launch.remote_agent import Stage as Agent
from dtm.launch.root import HomeLine, Root
from tests.tcp_programs import run_of


def test_the_launcher_waits_for_nobody_whom_the_root_has_lost() -> None:
    run = Run(placed([Host("localhost", 3)], 3), ["-c", ""], ".", [], Starting("python"))
    launcher = Launcher(run)
    launcher._go("all hosts ready")
    launcher._take(Lost([2]))
    launcher._take(Ended(1, 0))
    assert launcher._left == {0, 2}
    launcher._take(Ended(0, 1))
    assert launcher.stage is Stage.OVER
    assert launcher._status == 1
    launcher._loop.close()


def test_a_root_tells_whom_it_has_lost() -> None:
    ours, theirs = socket.socketpair()
    with ours, run_of(3, kind=Root) as (root, _):
        assert isinstance(root, Root)
        root.listen_home(theirs, b"")
        root._lose(2, "no answer")
        root._lose(2, "once is enough")
        assert _lines(ours) == [root.address, [2]]


def _lines(line: socket.socket) -> list[object]:
    return [json.loads(each) for each in line.recv(1 << 16).splitlines()]


def test_what_a_root_told_last_is_read_though_it_has_ended() -> None:
    source = (
        "import os, socket\n"
        "from dtm.launch.invitation import accept_invitation\n"
        "_, home, _ = accept_invitation()\n"
        "from dtm.launch.root import HomeLine\n"
        "line = HomeLine(home, b'', print)\n"
        "line.tell('tcp://127.0.0.1:1')\n"
        "line.tell([1, 2])\n"
        "os._exit(0)\n"
    )
    loop = Loop()
    heard: list[Message] = []

    def take(message: Message) -> None:
        heard.append(message)
        if isinstance(message, Ended):
            loop.stop()

    invitation = {"credentials": "", "size": 1, "hosts": ["a"], "tls": False}
    crew = Crew(loop, [0], [sys.executable, "-c", source], dict(os.environ), invitation, take)
    crew.start(None)
    loop.run()
    loop.close()
    assert heard == [Address("tcp://127.0.0.1:1"), Lost([1, 2]), Ended(0, 0)]


def test_a_line_home_that_nobody_reads_is_no_error() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    line = HomeLine(theirs, b"", print)
    line.tell([1])
    line.close()


def test_an_agent_that_has_fallen_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop()
    heard: list[Message] = []
    starting = Starting("python", ssh="/bin/sh -c 'exec sleep 100'")
    job = Job(".", [], [], "", {}, {}, {}, starting.written())
    node = Node(loop, [], placed([Host("n1", 1)], 1), job, heard.append)
    (branch,) = node._branches
    branch.start()
    branch.stage = Agent.WORKING
    dismissed: list[None] = []
    monkeypatch.setattr(branch, "dismiss", lambda: dismissed.append(None))
    assert not branch.silent
    branch._heard -= 3.0
    branch.pause(reading=False)
    assert not branch.silent  # nobody listens
    branch.pause(reading=True)
    branch._heard -= 3.0
    node.end()
    assert branch.left
    assert dismissed == []
    loop.close()
