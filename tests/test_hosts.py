"""Files of hosts: what they may say, and what is said of those that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtm.errors import OptionError
from dtm.launch.hosts import Host, merged, read_hosts


def read(tmp_path: Path, text: str) -> tuple[Host, ...]:
    path = tmp_path / "hosts.txt"
    path.write_text(text, encoding="utf-8")
    return read_hosts(str(path))


@pytest.mark.parametrize(
    ("line", "host"),
    [
        ("node01", Host("node01")),
        ("node01 slots=4", Host("node01", 4)),
        ("node01 slots=4 max_slots=8", Host("node01", 4)),
        ("node01:4", Host("node01", 4)),
        ("  node01:4   # the big one", Host("node01", 4)),
        ("me@node01", Host("node01", user="me")),
        ("me@realm@node01", Host("node01", user="me@realm")),
        ("node01 user=me port=2222", Host("node01", user="me", port=2222)),
        ("node01 PORT=22", Host("node01", port=22)),
        ("node01 python=/opt/py3/bin/python3", Host("node01", python="/opt/py3/bin/python3")),
        ('node01 python="/opt/py 3/python"', Host("node01", python="/opt/py 3/python")),
        ("me@node-1.example.org:2 port=22", Host("node-1.example.org", 2, "me", 22)),
        ("[::1]:4", Host("::1", 4)),
        ("[fe80::1%eth0] slots=2", Host("fe80::1%eth0", 2)),
        ("me@[2001:db8::7]", Host("2001:db8::7", user="me")),
        ("10.0.0.7:3", Host("10.0.0.7", 3)),
        ("n_1", Host("n_1")),
    ],
)
def test_a_line_is_understood(tmp_path: Path, line: str, host: Host) -> None:
    assert read(tmp_path, line + "\n") == (host,)


def test_a_file_keeps_its_order_without_comments_and_blank_lines(tmp_path: Path) -> None:
    text = "\ufeff# all of them\r\n\r\nb slots=2\r\n   \r\na:3 # last\r\n"
    assert read(tmp_path, text) == (Host("b", 2), Host("a", 3))


def test_a_host_that_stands_twice_has_the_slots_of_both(tmp_path: Path) -> None:
    assert read(tmp_path, "a:2\nb\nA slots=3\n") == (Host("a", 5), Host("b"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-oProxyCommand=x", "'-oProxyCommand=x' is no name of a host"),
        ("a;reboot", "'a;reboot' is no name of a host"),
        ("$(reboot)", "no name of a host"),
        ("a`b`", "no name of a host"),
        ("a|b", "no name of a host"),
        ("ä", "'ä' is no name of a host"),
        ("a" * 256, "no name of a host"),
        ("::1", "an IPv6 address goes in brackets"),
        ("fe80::1:4", "an IPv6 address goes in brackets"),
        ("[::1", "'[::1' is not understood"),
        ("[node]:4", "'node' is no IPv6 address"),
        ("[::1%a b]", "is not understood"),
        ("[::1%a;b]", "is no IPv6 address"),
        ("a:", "slots must be a whole number, not ''"),
        ("a:x", "slots must be a whole number, not 'x'"),
        ("a slots=0", "slots must be from 1 to 100000, not 0"),
        ("a slots=-1", "slots must be from 1 to 100000, not -1"),
        ("a slots=²", "slots must be a whole number"),
        ("a slots=100001", "slots must be from 1 to 100000"),
        ("a slots=9999999999999", "slots must be from 1 to 100000, not 9999999999999"),
        ("a slots=99999999999999999999", "slots must be a whole number"),
        ("a slots=1.5", "slots must be a whole number"),
        ("a port=-22", "port must be from 1 to 65535, not -22"),
        ("300.1.1.1", "'300.1.1.1' is no name of a host"),
        ("10.0.0.1.2", "'10.0.0.1.2' is no name of a host"),
        ("a..b", "'a..b' is no name of a host"),
        ("me@localhost port=22", "need no login, so user=, port= has no meaning"),
        ("127.0.0.1 python=/opt/python", "python= has no meaning"),
        ("a slots=4 max_slots=2", "slots=4 is more than max_slots=2"),
        ("a:2 slots=4", "slots is given twice"),
        ("me@a user=you", "user is given twice"),
        ("-x@a", "'-x' is no name of a user"),
        ("a user=x;y", "'x;y' is no name of a user"),
        ("a port=70000", "port must be from 1 to 65535, not 70000"),
        ("a python=-c", "'-c' is no path of a Python interpreter"),
        ("a python=", "'' is no path of a Python interpreter"),
        ("a slot=4", "'slot=4' is not understood; there are slots=, max_slots=, user="),
        ("a b", "'b' is not understood"),
        ('a python="x', "No closing quotation"),
        ("@a", "'' is no name of a user"),
    ],
)
def test_a_wrong_line_is_named_with_what_is_wrong(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        read(tmp_path, f"good\n\n{line}\n")
    assert str(caught.value).startswith(f"{tmp_path}/hosts.txt, line 3: ")
    assert said in str(caught.value)


def test_a_host_named_again_as_another_user_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="line 2: host a is named again with another user"):
        read(tmp_path, "me@a\nyou@a\n")


@pytest.mark.parametrize("text", ["", "\n\n", "# nobody\n"])
def test_a_file_without_hosts_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(OptionError, match="names no host"):
        read(tmp_path, text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no_file cannot be read"):
        read_hosts(str(tmp_path / "no_file"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OptionError, match="binary cannot be read"):
        read_hosts(str(tmp_path / "binary"))


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "127.0.0.1", "::1"])
def test_this_machine_is_known_by_its_name(name: str) -> None:
    assert Host(name).is_local
    assert not Host("node1").is_local


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,8}(\.[A-Za-z0-9_-]{1,8}){0,2}", fullmatch=True)
hosts = st.builds(
    Host,
    names | st.ip_addresses(v=6).map(str),
    st.integers(1, 1000),
    st.none() | st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True),
    st.none() | st.integers(1, 65535),
    st.none() | st.sampled_from(["python3", "/opt/py 3/bin/python", "it's#it"]),
).filter(lambda host: not host.is_local or host == Host(host.name, host.slots))


def line_of(host: Host) -> str:
    from shlex import quote

    name = f"[{host.name}]" if ":" in host.name else host.name
    words = [f"{name} slots={host.slots}"]
    for setting in ("user", "port"):
        value = getattr(host, setting)
        words += [f"{setting}={value}"] if value is not None else []
    words += [f"python={quote(host.python)}"] if host.python is not None else []
    return " ".join(words)


@given(st.lists(hosts, min_size=1, max_size=20, unique_by=lambda host: host.name.lower()))
def test_hosts_that_are_written_are_read_again(listed: list[Host]) -> None:
    from tempfile import NamedTemporaryFile

    with NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write("\n".join(map(line_of, listed)))
        file.flush()
        assert read_hosts(file.name) == tuple(listed)


@given(st.text(max_size=40))
def test_any_text_is_hosts_or_an_error_with_its_place(text: str) -> None:
    from tempfile import NamedTemporaryFile

    with NamedTemporaryFile("w", encoding="utf-8", errors="replace") as file:
        file.write(text)
        file.flush()
        try:
            assert all(host.slots >= 1 for host in read_hosts(file.name))
        except OptionError as error:
            assert file.name in str(error)


def test_merging_keeps_the_place_of_the_first() -> None:
    assert merged([Host("b"), Host("a"), Host("b", 3)]) == (Host("b", 4), Host("a"))
