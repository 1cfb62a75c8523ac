"""Exceptions that travel: type, text, cause and notes, whatever the exception is like."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest

from dtm.errors import RemoteTraceback, SerializationError
from dtm.wire.failures import TEXT_LIMIT, annotate, pack_failure, unpack_failure

WHERE = "map(op), on worker 3 (host)"


def travel(exc: BaseException, index: int | None = 7) -> BaseException:
    return unpack_failure(pack_failure(exc, index, WHERE))


def notes_of(exc: BaseException) -> list[str]:
    return list(getattr(exc, "__notes__", []))


class PlainError(Exception):
    pass


class OwnMessageError(Exception):
    def __init__(self, code: int, detail: str = "none") -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


class KeywordError(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class TwiceToldError(Exception):
    def __init__(self, what: str) -> None:
        super().__init__(f"failed: {what}")


class BrokenTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class BrokenReduceError(Exception):
    def __reduce__(self) -> Any:
        raise SystemExit(3)


class OddReduceError(Exception):
    def __reduce__(self) -> Any:
        return int, ("5",)


class BrokenStateError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    def __setstate__(self, state: Any) -> None:
        raise ValueError("no state")


class SlottedError(Exception):
    __slots__ = ("__private", "place")

    def __init__(self, place: Any, lock: Any) -> None:
        super().__init__("slots")
        self.place = place
        self.__private = lock

    @property
    def private(self) -> Any:
        return self.__private


class FrozenError(Exception):
    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(name)


class OddSystemError(OSError):
    def __init__(self, path: str, *, reason: str) -> None:
        super().__init__(errno.ENOENT, reason, path)


def raised(exc: BaseException) -> BaseException:
    try:
        raise exc
    except BaseException as caught:
        return caught


def test_an_exception_arrives_with_type_arguments_note_and_remote_traceback() -> None:
    exc = travel(raised(ValueError("bad", 3)))
    assert type(exc) is ValueError
    assert exc.args == ("bad", 3)
    assert notes_of(exc) == ["in item 7 of map(op), on worker 3 (host)"]
    assert isinstance(exc.__cause__, RemoteTraceback)
    assert "in raised" in str(exc.__cause__)
    assert "ValueError: ('bad', 3)" in exc.__cause__.text


def test_without_an_index_the_note_says_only_where() -> None:
    assert notes_of(travel(ValueError(), None)) == ["in map(op), on worker 3 (host)"]


def test_the_remote_traceback_is_printed_with_the_exception() -> None:
    printed = "".join(traceback.format_exception(travel(raised(PlainError("boom")))))
    assert "in raised" in printed


def test_the_text_holds_the_chain_of_causes() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise PlainError("outer") from inner
    except PlainError as outer:
        cause = travel(outer).__cause__
    assert "KeyError: 'inner'" in str(cause)
    assert "direct cause" in str(cause)


def test_an_exception_that_travels_twice_tells_of_both_workers() -> None:
    exc = unpack_failure(pack_failure(raised(travel(raised(PlainError("x")))), 1, "map(outer)"))
    assert notes_of(exc) == ["in item 7 of " + WHERE, "in item 1 of map(outer)"]
    assert str(exc.__cause__).count("in raised") >= 2


@pytest.mark.parametrize(
    "exc",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopIteration(4),
        FileNotFoundError(errno.ENOENT, "no such file", "/nowhere"),
        OSError(errno.EXDEV, "link", "/a", None, "/b"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        ImportError("no", name="thing", path="/nowhere"),
        SyntaxError("bad", ("file.py", 3, 4, "x =")),
        KeyError(("a", 1)),
        OwnMessageError(4),
        KeywordError(code=5),
        TwiceToldError("once"),
        BrokenStateError(6),
        OddReduceError("odd"),
        OddSystemError("/nowhere", reason="why not"),
        MemoryError(),
        RecursionError("deep"),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_type_text_and_attributes_survive(exc: BaseException) -> None:
    copy = travel(exc)
    assert type(copy) is type(exc)
    assert str(copy) == str(exc)
    for name in "code value errno filename filename2 object start name lineno".split():
        assert getattr(copy, name, None) == getattr(exc, name, None), name


@pytest.mark.parametrize("kind", [BrokenTextError, BrokenReduceError, FrozenError])
def test_methods_that_raise_do_not_get_in_the_way(kind: type[Exception]) -> None:
    copy = travel(raised(kind("a", 2)))
    assert type(copy) is kind
    assert copy.args == ("a", 2)
    assert isinstance(copy.__cause__, RemoteTraceback)
    assert notes_of(copy) == ["in item 7 of " + WHERE]


def test_what_cannot_be_pickled_of_an_exception_becomes_its_text() -> None:
    lock = threading.Lock()
    exc: Any = PlainError("held", lock)
    raised(exc)
    exc.lock, exc.frame, exc.nothing, exc.number = lock, sys._getframe(), None, 5
    exc.trace = exc.__traceback__
    copy: Any = travel(exc)
    assert (type(copy), copy.args) == (PlainError, ("held", repr(lock)))
    assert copy.lock == repr(lock)
    assert copy.frame.startswith("<frame at")
    assert copy.trace.startswith("<traceback")
    assert (copy.nothing, copy.number) == (None, 5)


def test_slots_are_carried_too() -> None:
    copy: Any = travel(SlottedError("here", threading.Lock()))
    assert type(copy) is SlottedError
    assert copy.place == "here"
    assert "lock" in copy.private


def test_an_exception_that_holds_itself_travels() -> None:
    exc = PlainError("loop")
    exc.args = ("loop", exc)
    copy = travel(exc)
    assert type(copy) is PlainError
    assert copy.args[0] == "loop"


def test_a_class_made_in_a_function_is_the_same_class_at_the_caller() -> None:
    class LocalError(Exception):
        def __init__(self, *, code: int) -> None:
            super().__init__(code)
            self.code = code

    with pytest.raises(LocalError) as caught:
        raise travel(LocalError(code=4))
    assert caught.value.code == 4


def test_a_class_that_cannot_travel_becomes_its_nearest_base_and_says_so() -> None:
    lock = threading.Lock()

    class StuckError(PlainError):
        def method(self) -> object:
            return lock

    exc = raised(StuckError("why"))
    annotate(exc, "own note")
    copy = travel(exc)
    assert type(copy) is PlainError
    assert "StuckError: why" in str(copy)
    own, was, where = notes_of(copy)
    assert own == "own note"
    assert "StuckError" in was
    assert where == "in item 7 of " + WHERE


def test_a_stuck_class_with_a_demanding_base_falls_to_one_that_takes_a_text() -> None:
    lock = threading.Lock()

    class StuckError(UnicodeDecodeError):
        def method(self) -> object:
            return lock

    copy = travel(StuckError("utf-8", b"\xff", 0, 1, "bad byte"))
    assert type(copy) is UnicodeError
    assert "bad byte" in str(copy)


def test_groups_keep_their_members() -> None:
    lock = threading.Lock()
    group: Any = ExceptionGroup
    inner = group("inner", [KeywordError(code=3), PlainError(lock)])
    copy: Any = travel(group("outer", [ValueError(1), inner]))
    assert type(copy) is group
    assert copy.message == "outer"
    first, second = copy.exceptions
    assert (type(first), first.args) == (ValueError, (1,))
    assert [type(member) for member in second.exceptions] == [KeywordError, PlainError]
    assert second.exceptions[0].code == 3
    assert second.exceptions[1].args == (repr(lock),)


def test_existing_notes_are_kept_and_none_is_added_twice() -> None:
    exc = PlainError("x")
    annotate(exc, "first")
    annotate(exc, "first")
    copy = travel(exc)
    annotate(copy, "in item 7 of " + WHERE)
    assert notes_of(copy) == ["first", "in item 7 of " + WHERE]


def test_annotate_replaces_notes_that_are_no_list() -> None:
    exc: Any = PlainError("x")
    exc.__notes__ = 5
    annotate(exc, "note")
    assert notes_of(exc) == ["note"]


def test_a_long_traceback_is_cut_in_the_middle() -> None:
    exc = travel(PlainError("a" * 300_000 + "z"))
    text = str(exc.__cause__)
    assert len(text) < TEXT_LIMIT + 100
    assert "characters left out" in text
    assert text.rstrip().endswith("z")


def test_an_exception_that_cannot_be_loaded_here_says_so_with_its_text(tmp_path: Path) -> None:
    (tmp_path / "faraway.py").write_text("class FarError(Exception): pass\n")
    program = (
        "import sys, faraway\nfrom dtm.wire.failures import pack_failure\n"
        "sys.stdout.buffer.write(pack_failure(faraway.FarError('far'), 2, 'map(f)'))"
    )
    paths = [str(tmp_path), *sys.path]
    packed = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {paths!r}\n{program}"],
        check=True,
        capture_output=True,
        timeout=60,
    ).stdout
    exc = unpack_failure(packed)
    assert type(exc) is SerializationError
    assert "faraway.FarError: far" in str(exc)
    assert "No module named 'faraway'" in str(exc)
    assert notes_of(exc) == ["in item 2 of map(f)"]
    assert isinstance(exc.__cause__, RemoteTraceback)
