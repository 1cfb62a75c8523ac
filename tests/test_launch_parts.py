"""The parts of a launch: messages, placing, quoting, settings, the loop."""

from __future__ import annotations

import os
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtm.errors import CommunicationError, OptionError
from dtm.launch import messages, settings
from dtm.launch.channel import Channel, hello
from dtm.launch.hosts import Host
from dtm.launch.loop import Loop
from dtm.launch.messages import Ended, Lines, Output, Pulse, decode, encode
from dtm.launch.plan import branches, names, placed, read
from dtm.launch.remote import Starting, ssh_command
from dtm.launch.secret import SecretFile

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
    heads = branches(sites, fan_out)
    assert [site.host.name for head in heads for site in head.all()] == [
        site.host.name for site in sites
    ]
    for site in (site for head in heads for site in head.all()):
        assert len(site.below) <= fan_out
        assert read(site.written()) == site
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
    found = settings.settings(
        {"DTM_PORTS": "4000-4010", "DTM_TLS": "no", "DTM_BIND": "::1", "DTM_JOIN_SLOTS": "0"}
    )
    assert found.ports == (4000, 4010)
    assert found.tls is False
    assert found.bind == "::1"
    assert found.join_slots == 0
    assert settings.settings({"DTM_TLS": ""}) == settings.Settings()


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
        settings.settings({variable: text})


# The loop and channels.


def channel_pair(loop: Loop) -> tuple[Channel, list[object], int, int]:
    """Return a channel, what it gets, and the two descriptors of its other side."""
    reading, theirs = os.pipe()
    readable, writing = os.pipe()
    got: list[object] = []
    made = Channel(loop, reading, writing, got.append, got.append, got.append)
    return made, got, theirs, readable


def test_a_channel_passes_over_greetings_and_ends_with_its_file() -> None:
    loop = Loop()
    channel, got, theirs, readable = channel_pair(loop)
    os.write(theirs, b"Welcome!\n\xff\n" + hello() + encode(Pulse()) + encode(Ended(3, -9))[:-4])
    loop.run_until(lambda: len(got) == 2, 10.0)
    os.write(theirs, encode(Ended(3, -9))[-4:])
    os.close(theirs)
    assert loop.run_until(lambda: len(got) == 4, 10.0)
    assert str(got[0]).startswith("dtm ")
    assert got[1:] == [Pulse(), Ended(3, -9), "the connection ended"]
    channel.close()
    os.close(readable)
    loop.close()


def test_a_channel_finds_messages_among_what_others_write() -> None:
    loop = Loop()
    reading, theirs = os.pipe()
    readable, writing = os.pipe()
    got: list[object] = []
    noise: list[str] = []
    channel = Channel(
        loop, reading, writing, got.append, got.append, got.append, on_noise=noise.append
    )
    os.write(
        theirs, b"Welcome!\n\nlogin> " + hello() + b"To all: " + encode(Pulse()) + b"end\nask? "
    )
    assert loop.run_until(lambda: len(noise) == 4, 10.0)
    os.write(theirs, b'["no message\n')
    assert loop.run_until(lambda: len(got) == 3, 10.0)
    assert noise == ["Welcome!", "login>", "To all:", "end", "ask?"]
    assert got[1] == Pulse()
    assert got[2] == "no message: b'[\"no message'"
    os.close(theirs)
    os.close(readable)
    channel.close()
    loop.close()


def test_a_channel_ends_at_what_is_no_message() -> None:
    loop = Loop()
    channel, got, theirs, readable = channel_pair(loop)
    os.write(theirs, hello() + b"no message\n" + encode(Pulse()))
    assert loop.run_until(lambda: len(got) == 2, 10.0)
    assert "no message" in str(got[1])
    channel.close()
    os.close(theirs)
    os.close(readable)
    loop.close()


def test_a_channel_queues_what_nobody_reads_yet() -> None:
    loop = Loop()
    channel, _, theirs, readable = channel_pair(loop)
    sent = [Output(number, "stdout", "x" * 10_000) for number in range(100)]
    for message in sent:
        channel.send(message)
    assert channel.queued
    channel.close_output()
    received = b""

    def read() -> None:
        nonlocal received
        received += os.read(readable, 1 << 16)

    loop.read(readable, read)
    assert loop.run_until(lambda: received.count(b"\n") == 100, 10.0)
    loop.read(readable, None)
    assert [decode(line) for line in received.splitlines()] == sent
    assert os.read(readable, 1) == b""
    channel.close()
    os.close(theirs)
    os.close(readable)
    loop.close()


def test_timers_ring_in_their_order() -> None:
    loop = Loop()
    rung: list[str] = []
    loop.later(0.02, lambda: rung.append("second"))
    loop.later(0.0, lambda: rung.append("first"))
    loop.later(0.04, loop.stop)
    loop.run()
    assert rung == ["first", "second"]
    assert not loop.run_until(lambda: False, 0.01)
    loop.close()


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
    file.remove()
    file.write()
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert credentials.secret.hex() not in file.how_to_join("tcp://[::1]:5", 1, "prog.py")
    assert Credentials.from_file(path) == credentials
    with pytest.raises(CommunicationError, match="secret"):
        SecretFile(path, credentials).write()
    file.remove()
    assert not os.path.exists(path)
