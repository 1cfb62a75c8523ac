"""What tasks print: whole lines, each once, those of two threads apart."""

from __future__ import annotations

import io
import threading

from dtm.run.output import Lines


def in_thread(lines: Lines, text: str) -> None:
    thread = threading.Thread(target=lines.write, args=(text,))
    thread.start()
    thread.join()


def test_threads_do_not_share_a_line() -> None:
    emitted: list[str] = []
    lines = Lines("stdout", io.StringIO(), lambda _, text: emitted.append(text), eager=False)
    release, written = threading.Event(), threading.Event()

    def other() -> None:
        lines.write("one ")
        written.set()
        assert release.wait(60.0)
        lines.write("two\n")

    thread = threading.Thread(target=other)
    thread.start()
    assert written.wait(60.0)
    lines.write("three\n")
    release.set()
    thread.join(60.0)
    assert emitted == ["three\n", "one two\n"]


def test_a_line_leaves_when_it_is_whole_and_once() -> None:
    emitted: list[tuple[str, str]] = []
    lines = Lines("stderr", io.StringIO(), lambda *both: emitted.append(both), eager=False)
    for text in ("a", "b\nc", "d\ne\n", "f"):
        assert lines.write(text) == len(text)
    lines.flush()
    assert emitted == [("stderr", "ab\n"), ("stderr", "cd\ne\n")]
    lines.finish()
    assert emitted[2:] == [("stderr", "f")]


def test_the_end_passes_on_the_lines_of_all_threads() -> None:
    emitted: list[str] = []
    lines = Lines("stdout", io.StringIO(), lambda _, text: emitted.append(text), eager=False)
    lines.write("here")
    in_thread(lines, "there")
    lines.finish()
    lines.finish()
    assert sorted(emitted) == ["here", "there"]


def test_a_flush_of_the_root_passes_on_the_line_of_its_own_thread() -> None:
    emitted: list[str] = []
    lines = Lines("stdout", io.StringIO(), lambda _, text: emitted.append(text), eager=True)
    in_thread(lines, "there")
    lines.write("here")
    lines.flush()
    assert emitted == ["here"]
