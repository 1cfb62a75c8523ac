"""Compressed lists of hosts, as Slurm and Flux write them."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtm.errors import OptionError
from dtm.launch.hosts import compress, expand


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("node1", ["node1"]),
        ("a,b-2,c.example.org", ["a", "b-2", "c.example.org"]),
        ("gnode[10,20,25,37]", ["gnode10", "gnode20", "gnode25", "gnode37"]),
        ("n[01-03,7],gpu[1-2]-ib0", ["n01", "n02", "n03", "n7", "gpu1-ib0", "gpu2-ib0"]),
        ("n[8-11]", ["n8", "n9", "n10", "n11"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
        ("r[1-2]n[0-1]", ["r1n0", "r1n1", "r2n0", "r2n1"]),
        ("n[3,1-2,3]", ["n3", "n1", "n2", "n3"]),
        ("[1-2]", ["1", "2"]),
    ],
)
def test_a_list_is_expanded(text: str, names: list[str]) -> None:
    assert expand(text) == names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n[1-", "is no list of hosts, from '[1-' on"),
        ("n1]", "is no list of hosts, from ']' on"),
        ("a,,b", "is no list of hosts, from ',b' on"),
        (",a", "is no list of hosts, from ',a' on"),
        ("a,", "is no list of hosts, from ',' on"),
        ("n[]", "[] is no range of numbers"),
        ("n[1-2-3]", "[1-2-3] is no range of numbers"),
        ("n[a-c]", "[a-c] is no range of numbers"),
        ("n[1,]", "[1,] is no range of numbers"),
        ("n[5-3]", "the range 5-3 in [5-3] runs backwards"),
        ("n[[1-2]]", "is no list of hosts"),
        ("n[0-100000]", "of more than 100000 hosts"),
        ("n[0-9999999999999]", "of more than 100000 hosts"),
        ("n[0-999][0-999][0-999]", "there are more than 100000 hosts in 'n[0-999]"),
        ("n[0-99999],m", "there are more than 100000 hosts"),
    ],
)
def test_what_is_no_list_is_refused(text: str, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        expand(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["n1"], "n1"),
        (["n01", "n02", "n03", "n7"], "n[01-03,7]"),
        (["n9", "n10"], "n[9-10]"),
        (["n1", "m1", "n2"], "n1,m1,n2"),
        (["n2", "n1"], "n[2,1]"),
        (["n1", "n1"], "n[1,1]"),
        (["gpu1-ib", "gpu2-ib"], "gpu[1-2]-ib"),
        (["a", "a"], "a,a"),
    ],
)
def test_names_are_compressed(names: list[str], text: str) -> None:
    assert compress(names) == text


# Few letters and digits, so that neighbours often differ in their number alone.
names = st.from_regex(r"[ab]{1,2}[089]{0,3}(-[ab][0-9])?", fullmatch=True)
runs = st.builds(
    lambda stem, first, count, width: [f"{stem}{n:0{width}d}" for n in range(first, first + count)],
    st.sampled_from(["n", "n1-", "rack2n", ""]),
    st.integers(0, 1100),
    st.integers(1, 30),
    st.integers(1, 4),
)


@given(st.lists(names, max_size=30) | st.lists(runs, max_size=5).map(lambda x: list(chain(*x))))
def test_what_was_compressed_expands_to_the_same(listed: list[str]) -> None:
    assert expand(compress(listed)) == listed


@given(st.text("n[]-,019", max_size=30))
def test_any_text_expands_or_is_refused(text: str) -> None:
    try:
        names = expand(text)
    except OptionError:
        return
    assert expand(compress(names)) == names
