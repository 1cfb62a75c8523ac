"""The parts of a launch: messages, placing, quoting, settings, channels."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtm.errors import CommunicationError, OptionError
from dtm.launch import messages
from dtm.launch.channel import Channel, Lines, hello
from dtm.launch.hosts import Host
from dtm.launch.messages import Ended, Message, Output, Pulse, decode, encode
from dtm.launch.plan import Starting, grouped, names, placed, read_site, ssh_command
from dtm.launch.tcp_worker import SecretFile
from dtm.options import Settings, settings

TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=200)


@given(st.integers(0, 10**6), TEXT)
def test_a_message_is_one_line_and_comes_back_as_it_was(rank: int, text: str) -> None:
    sent = Output(rank, "stdout", text)
    line = encode(sent)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line) == sent


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{}", b"[]", b"nothing", b'["Nobody", {}]', b'["Ended", {"rank": 1}]', b"[" * 5000,
        b'["Ended", {"rank": 1, "status": 2, "more": 3}]', b'["Ended", 5]', b"\xff\xfe",
        b"[[], {}]",
    ],
)  # fmt: skip
def test_what_is_no_message_is_an_error_of_the_connection(line: bytes) -> None:
    with pytest.raises(CommunicationError, match="no message"):
        decode(line)


@given(st.lists(st.binary(max_size=50)), st.integers(1, 40))
def test_lines_are_cut_where_they_end(pieces: list[bytes], longest: int) -> None:
    lines = Lines(longest, strict=False)
    cut = [lines.feed(piece) for piece in pieces]
    assert b"".join((*cut, lines.rest())) == b"".join(pieces)
    for part in filter(None, cut):
        assert part.endswith(b"\n") or len(part) > longest


def test_a_message_without_an_end_is_an_error() -> None:
    lines = Lines(100, strict=True)
    lines.feed(b"x" * 100)
    with pytest.raises(CommunicationError, match="no message"):
        lines.feed(b"x")


# Placing.


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=200),
    st.integers(1, 20),
    st.integers(1, 100),
)
def test_each_rank_is_placed_once_and_each_host_started_once(
    slots: list[int], fan_out: int, workers: int
) -> None:
    hosts = [Host(f"h{number}", count) for number, count in enumerate(slots)]
    workers = min(workers, sum(slots))
    sites = placed(hosts, workers)
    assert [rank for site in sites for rank in site.ranks] == list(range(workers))
    assert len(names(sites)) == workers
    heads = grouped(sites, fan_out)
    assert [site.host.name for head in heads for site in head.all()] == [
        site.host.name for site in sites
    ]
    for site in (site for head in heads for site in head.all()):
        assert len(site.below) <= fan_out
        assert read_site(site.written()) == site
    assert len(heads) <= fan_out


def test_more_workers_than_slots_are_an_error() -> None:
    with pytest.raises(OptionError, match="3 workers are more than the 2 slots"):
        placed([Host("a", 2)], 3)


# Quoting.


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)))
def test_words_reach_the_other_side_as_they_are(arguments: list[str]) -> None:
    *before, host, text = ssh_command(Host("alpha"), ["printf", "%s\\0", *arguments])
    assert before[-1] == "--"
    assert host == "alpha"
    assert shlex.split(text) == ["printf", "%s\\0", *arguments]


def test_a_shell_reads_them_so_too() -> None:
    words = ["two words", "it's", '"', "$HOME", "`id`", "\\", ";", "\n", "*", "é"]
    text = ssh_command(Host("alpha"), ["printf", "%s\\0", *words])[-1]
    done = subprocess.run(["sh", "-c", text], capture_output=True, check=True, timeout=30)
    assert done.stdout.decode().split("\0")[:-1] == words


@pytest.mark.parametrize("name", ["-oProxyCommand=id", "a b", "$(id)", "a;b", "", "a\nb"])
def test_a_host_that_could_be_an_option_or_a_command_is_refused(name: str) -> None:
    with pytest.raises(OptionError):
        Host(name)


def test_a_batch_systems_starter_replaces_ssh() -> None:
    starting = Starting("/usr/bin/python3", starters={"n1": ["srun", "-w", "n1"]})
    agent = ["/usr/bin/python3", "-m", "dtm.launch.agent"]
    assert starting.command(Host("n1")) == ["srun", "-w", "n1", *agent]
    assert starting.command(Host("n2"))[0] == "ssh"


# Settings.


def test_the_environment_says_how_a_run_is_reached() -> None:
    found = settings(
        {"DTM_PORTS": "4000-4010", "DTM_TLS": "no", "DTM_BIND": "::1", "DTM_JOIN_SLOTS": "0"}
    )
    assert found.ports == (4000, 4010)
    assert found.tls is False
    assert found.bind == "::1"
    assert found.join_slots == 0
    assert settings({"DTM_TLS": ""}) == Settings()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("DTM_PORTS", "0"), ("DTM_PORTS", "5-4"), ("DTM_PORTS", "1-65536"), ("DTM_TLS", "maybe"),
        ("DTM_BIND", "localhost"), ("DTM_JOIN_SLOTS", "-1"), ("DTM_FAN_OUT", "0"),
        ("DTM_CONNECT_TIMEOUT", "inf"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(variable: str, text: str) -> None:
    with pytest.raises(OptionError, match=variable):
        settings({variable: text})


# Channels.

LIMIT = 60.0


class Side:
    """A channel, what it has got, and the descriptors of its other side."""

    def __init__(self) -> None:
        reading, self.theirs = os.pipe()
        self.readable, writing = os.pipe()
        self.noise: list[str] = []
        self.channel = Channel(reading, writing, self.noise.append)

    def write(self, data: bytes) -> None:
        os.write(self.theirs, data)

    async def receive(self) -> Message:
        return await asyncio.wait_for(self.channel.receive(), LIMIT)

    def close(self) -> None:
        self.channel.close()
        os.close(self.theirs)
        os.close(self.readable)


def test_a_channel_passes_over_greetings_and_ends_with_its_file() -> None:
    async def act() -> None:
        side = Side()
        last = encode(Ended(3, -9))
        side.write(b"Welcome!\n\xff\n" + hello() + encode(Pulse()) + last[:-4])
        assert (await asyncio.wait_for(side.channel.hello(), LIMIT)).startswith("dtm ")
        assert await side.receive() == Pulse()
        side.write(last[-4:])
        assert await side.receive() == Ended(3, -9)
        os.close(side.theirs)
        with pytest.raises(CommunicationError, match="the connection ended"):
            await side.receive()
        side.theirs = os.open(os.devnull, os.O_WRONLY)
        side.close()

    asyncio.run(act())


def test_a_channel_finds_messages_among_what_others_write() -> None:
    async def act() -> None:
        side = Side()
        side.write(b"Welcome!\n\nlogin> " + hello())
        side.write(b"To all: " + encode(Pulse()) + b"end\nask? " + b'["no message\n')
        await asyncio.wait_for(side.channel.hello(), LIMIT)
        assert await side.receive() == Pulse()
        with pytest.raises(CommunicationError, match=r"no message: b'\[\"no message'"):
            await side.receive()
        assert side.noise == ["Welcome!", "login>", "To all:", "end", "ask?"]
        side.close()

    asyncio.run(act())


def test_a_channel_from_above_ends_at_what_is_no_message() -> None:
    async def act() -> None:
        side = Side()
        channel = Channel(os.dup(side.channel._reading), os.open(os.devnull, os.O_WRONLY))
        side.write(b"no message\n" + encode(Pulse()))
        with pytest.raises(CommunicationError, match="no message"):
            await asyncio.wait_for(channel.receive(), LIMIT)
        channel.close()
        side.close()

    asyncio.run(act())


def test_a_channel_queues_what_nobody_reads_yet() -> None:
    async def act() -> None:
        side = Side()
        sent = [Output(number, "stdout", "x" * 10_000) for number in range(100)]
        for message in sent:
            side.channel.send(message)
        assert not side.channel.room.is_set()
        side.channel.close_output()
        received = b""
        while received.count(b"\n") < 100:
            received += await asyncio.to_thread(os.read, side.readable, 1 << 16)
        assert [decode(line) for line in received.splitlines()] == sent
        assert await asyncio.to_thread(os.read, side.readable, 1) == b""
        assert side.channel.room.is_set()
        side.close()

    asyncio.run(asyncio.wait_for(act(), LIMIT))


def test_every_kind_of_message_has_its_name() -> None:
    kinds = messages._KINDS
    assert len(kinds) == 13
    assert all(kind.__name__ == name for name, kind in kinds.items())


# The secret.


def test_the_secrets_file_is_for_its_owner_alone(tmp_path: object) -> None:
    from dtm.comm.tcp.credentials import Credentials

    path = f"{tmp_path}/secret"
    credentials = Credentials.fresh()
    file = SecretFile(path, credentials)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert credentials.secret.hex() not in file.how_to_join("tcp://[::1]:5", 1, "prog.py")
    assert Credentials.from_file(path) == credentials
    with pytest.raises(CommunicationError, match="secret"):
        SecretFile(path, credentials)
    file.remove()
    assert not os.path.exists(path)
