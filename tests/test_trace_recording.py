"""What a run records of itself, on disk and by one clock, whatever happens to it."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from dtm.core.messages import MESSAGES
from dtm.errors import TraceError
from dtm.run.recording import (
    BLOCK,
    CALL,
    EVENT,
    KINDS,
    MAGIC,
    RECEIVE,
    REST,
    RUN,
    SEND,
    STRIP,
    WAIT,
    Recorder,
    file_of,
)
from dtm.trace.clocks import estimate_clocks, pair_messages
from dtm.trace.files import FIELDS, INSTANTS, WorkerFile, read_directory, read_file
from dtm.trace.recorded import RecordedRun, merge, read_run
from dtm.trace.segments import _SPANS
from tests.launch import PROGRAMS, Completed, environment, run

PROGRAM = PROGRAMS / "traced.py"
ITEMS = 400 + 10 + 200 + 1 + 5


def traced(directory: Path, *words: str, workers: int = 3) -> Completed:
    command = [sys.executable, "-m", "dtm", "run", "-n", str(workers), "--trace", str(directory)]
    return run([*command, str(PROGRAM), *words], environment(), 60)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RecordedRun:
    directory = tmp_path_factory.mktemp("trace")
    done = traced(directory)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return read_run(str(directory))


def test_each_item_is_recorded_once(recorded: RecordedRun) -> None:
    strips = recorded.of_kind(STRIP)
    assert strips["count"].sum() == ITEMS
    by_function = Counter[str]()
    for strip in strips:
        by_function[recorded.functions[strip["function"]]] += int(strip["count"])
    assert by_function == {"map(spin)": 600, "map(inner)": 10, "apply(spin)": 1, "map(slow)": 5}


def test_each_call_is_recorded_with_its_size(recorded: RecordedRun) -> None:
    assert sorted(recorded.of_kind(CALL)["end"].tolist()) == sorted([400, 10, *[20] * 10, 1, 5])


def test_every_worker_has_a_beginning_and_an_end(recorded: RecordedRun) -> None:
    assert recorded.whole == {0, 1, 2}
    assert recorded.of_kind(RUN)["rank"].tolist() == [0, 1, 2]
    assert sorted(recorded.hosts) == [0, 1, 2]


def test_messages_are_found_at_both_ends(recorded: RecordedRun) -> None:
    messages, events = recorded.messages, recorded.events
    sent, came = events[messages.sent], events[messages.came]
    assert len(sent) > 10
    assert (sent["kind"] == SEND).all()
    assert (came["kind"] == RECEIVE).all()
    assert (sent["index"] == came["index"]).all()  # bytes
    assert (sent["flag"] == came["flag"] & 127).all()
    assert (sent["number"] == came["number"]).all()
    assert (sent["end"] <= came["begin"]).all()  # one machine, one clock
    grants = sent[sent["flag"] == [each.__name__ for each in MESSAGES].index("Grant")]
    assert grants["count"].sum() > 0


def test_own_seconds_leave_out_what_ran_on_top(recorded: RecordedRun) -> None:
    strips = recorded.of_kind(STRIP)
    inner = strips[strips["function"] == recorded.functions.index("map(inner)")]
    assert (inner["own"] <= inner["end"] - inner["begin"] + 1e-6).all()
    assert inner["own"].sum() < (inner["end"] - inner["begin"]).sum() / 2
    assert (recorded.of_kind(REST)["end"] >= recorded.of_kind(REST)["begin"]).all()


def test_the_root_waits_once_for_each_call_of_main(recorded: RecordedRun) -> None:
    waits = recorded.of_kind(WAIT)
    assert set(waits["rank"].tolist()) == {0}
    assert len(waits) == 4


def test_the_slowest_items_have_their_arguments(recorded: RecordedRun) -> None:
    slowest = recorded.slow[0]
    assert (slowest["function"], slowest["index"], slowest["item"]) == ("map(slow)", 3, "6")
    assert slowest["seconds"] >= 0.3


def test_an_event_takes_at_most_40_bytes(tmp_path: Path) -> None:
    recorder = Recorder(str(tmp_path), 0, 1, "here")
    size = os.path.getsize(file_of(str(tmp_path), 0))
    for number in range(5000):
        recorder.record(STRIP, number, number + 1.0)
    recorder.close()
    assert (os.path.getsize(file_of(str(tmp_path), 0)) - size) / 5001 <= 40


def test_a_run_that_was_killed_leaves_readable_files(tmp_path: Path) -> None:
    done = traced(tmp_path, "kill")
    assert done.returncode != 0
    found = read_run(str(tmp_path))
    assert len(found.whole) < 3
    assert found.of_kind(STRIP)["count"].sum() > 300
    assert set(found.of_kind(STRIP)["rank"].tolist()) == {0, 1, 2}


def test_the_item_in_which_a_run_was_killed_is_known(tmp_path: Path) -> None:
    words = ["run", "-n", "2", "--trace", str(tmp_path), str(PROGRAMS / "killed_late.py")]
    assert run([sys.executable, "-m", "dtm", *words], environment(), 60).returncode != 0
    found = read_run(str(tmp_path))
    assert found.whole == frozenset()
    strips = found.of_kind(STRIP)
    (long,) = strips[strips["own"] > 0.25]
    assert (long["index"], long["count"]) == (3, 1)
    assert found.functions[long["function"]] == "map(work)"
    (wait,) = found.of_kind(WAIT)
    assert wait["end"] - wait["begin"] > 0.25


def test_what_was_under_way_is_taken_back_by_what_came_later(tmp_path: Path) -> None:
    recorder = Recorder(str(tmp_path), 0, 1, "here")
    recorder.record(CALL, 0.0, 9, number=1)
    recorder.text("under way", {"at": 1.0, "waits": 0.1, "call": 1, "item": 4, "since": 0.2})
    recorder.flush()
    first = read_file(file_of(str(tmp_path), 0)).events
    assert first["kind"].tolist() == [CALL, WAIT, STRIP]
    assert first["end"][1:].tolist() == [1.0, 1.0]
    assert first["own"][2] == pytest.approx(0.8)
    recorder.record(STRIP, 0.2, 1.5, 1.3, 4, 1, 1)
    recorder.flush()
    assert read_file(file_of(str(tmp_path), 0)).events["kind"].tolist() == [CALL, STRIP, WAIT]
    recorder.record(WAIT, 0.1, 1.6)
    recorder.flush()
    assert read_file(file_of(str(tmp_path), 0)).events["kind"].tolist() == [CALL, STRIP, WAIT]
    recorder.close()
    assert read_file(file_of(str(tmp_path), 0)).events["kind"].tolist() == [CALL, STRIP, WAIT, RUN]


def test_a_file_cut_anywhere_is_read_up_to_its_last_whole_event(tmp_path: Path) -> None:
    recorder = Recorder(str(tmp_path), 0, 1, "here")
    header = os.path.getsize(file_of(str(tmp_path), 0))
    for number in range(10):
        recorder.record(STRIP, number, number + 1.0)
    recorder.close()
    data = Path(file_of(str(tmp_path), 0)).read_bytes()
    for length in range(header, len(data) + 1):
        cut = tmp_path / "cut"
        cut.write_bytes(data[:length])
        whole = max(0, (length - header - BLOCK.size) // EVENT.size)
        assert read_file(str(cut)).events["begin"][:10].tolist() == list(range(min(whole, 10)))


def test_a_directory_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = traced(tmp_path / "file" / "trace", workers=3)
    assert done.returncode == 0
    assert done.stdout == "done\n"
    (line,) = done.stderr.splitlines()
    assert "worker 0 records no more of its trace" in line
    assert "Not a directory; option traceDir" in line


def test_what_only_others_cannot_write_is_said_once_at_the_end(tmp_path: Path) -> None:
    for rank in (1, 2):
        Path(file_of(str(tmp_path), rank)).symlink_to("/dev/full")
    done = traced(tmp_path)
    assert (done.returncode, done.stdout) == (0, "done\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith("dtm: 2 workers (1, 2) have recorded only a part of the trace")
    assert "No space left on device; option traceDir" in line


def test_a_full_disk_ends_the_trace_and_not_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(file_of(str(tmp_path), 0)).symlink_to("/dev/full")
    recorder = Recorder(str(tmp_path), 0, 4, "here")
    for number in range(5000):
        recorder.record(STRIP, number, number + 1.0)
    recorder.close()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "worker 0" in said
    assert "No space left on device" in said
    assert recorder.problem == errno.ENOSPC


def test_what_another_run_has_left_in_the_directory_is_passed_by(tmp_path: Path) -> None:
    before = [Recorder(str(tmp_path), rank, 3, "here") for rank in range(3)]
    for recorder in before:
        recorder.close()
    now = [Recorder(str(tmp_path), rank, 3, "here") for rank in (0, 2)]  # 1 has not come
    for recorder in now:
        recorder.close()
    assert read_run(str(tmp_path)).ranks == [0, 2]


@pytest.mark.parametrize(("later", "kept"), [(30.0, [0, 1]), (1000.0, [0])])
def test_files_of_other_machines_are_of_the_run_if_their_clocks_say_so_roughly(
    tmp_path: Path, later: float, kept: list[int]
) -> None:
    recorders = [Recorder(str(tmp_path), rank, 2, f"node{rank}") for rank in range(2)]
    for recorder in recorders:
        recorder.close()
    path = Path(file_of(str(tmp_path), 1))
    data = path.read_bytes()[len(MAGIC) :]
    _, length = BLOCK.unpack_from(data)
    header = json.loads(data[BLOCK.size : BLOCK.size + length])
    header |= {"machine": "another", "time": header["time"] + later}
    text = json.dumps(header).encode()
    rest = data[BLOCK.size + length :]
    path.write_bytes(MAGIC + BLOCK.pack(b"T", len(text)) + text + rest)
    assert [each.rank for each in read_directory(str(tmp_path))] == kept


def test_numbers_too_large_are_recorded_as_the_largest(tmp_path: Path) -> None:
    recorder = Recorder(str(tmp_path), 0, 1, "here")
    recorder.record(SEND, 0.0, 1.0, index=1 << 40)
    recorder.close()
    assert read_file(file_of(str(tmp_path), 0)).events["index"][0] == 0xFFFFFFFF


def test_what_is_no_trace_is_said(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no trace in"):
        read_directory(str(tmp_path))
    with pytest.raises(TraceError, match="No such file"):
        read_directory(str(tmp_path / "nowhere"))
    Path(file_of(str(tmp_path), 0)).write_bytes(b"something else")
    with pytest.raises(TraceError, match="begins otherwise"):
        read_run(str(tmp_path))
    Path(file_of(str(tmp_path), 0)).write_bytes(MAGIC)
    with pytest.raises(TraceError, match="before it says whose"):
        read_run(str(tmp_path))


def test_a_run_that_is_not_watched_does_not_load_what_watches() -> None:
    code = (
        "import sys\nfrom dtm import dtm\n"
        "dtm.setOptions(workers=1)\ndtm.start(lambda: dtm.map(abs, [1]))\n"
        "print(sorted(m for m in sys.modules if m.startswith(('dtm.trace', 'dtm.run.obs',"
        " 'dtm.run.rec'))))"
    )
    done = run([sys.executable, "-c", code], environment(), 60)
    assert done.stdout == "[]\n", done.stderr


# Clocks.


def worker_file(rank: int, machine: str, events: list[tuple[Any, ...]], size: int) -> WorkerFile:
    header = {
        "rank": rank, "size": size, "host": machine, "machine": machine, "clock": 0.0, "time": 0.0,
        "messages": [each.__name__ for each in MESSAGES],
    }  # fmt: skip
    return WorkerFile(header, np.array(events, FIELDS), {})


def conversation(
    aheads: list[float], drifts: list[float], seconds: float, count: int, seed: int
) -> list[WorkerFile]:
    """Return traces of workers on machines whose clocks differ, that talk to their neighbours."""
    random = Random(seed)
    size = len(aheads)
    events: list[list[tuple[float, tuple[Any, ...]]]] = [[] for _ in aheads]

    def clock(rank: int, now: float) -> float:
        return now * (1.0 + drifts[rank]) + aheads[rank]

    last = dict[tuple[int, int], float]()
    for number in range(count):
        now = seconds * number / count
        source = random.randrange(size)
        target = source + 1 if source == 0 or (source < size - 1 and random.random() < 0.5) else (
            source - 1
        )  # fmt: skip
        came = max(now + 20e-6 + random.expovariate(1 / 50e-6), last.get((source, target), 0.0))
        last[source, target] = came
        sent_by, came_by = clock(source, now), clock(target, came)
        out = (sent_by, sent_by, 0.0, 9, 0, 0, target, SEND, 0)
        got = (came_by, came_by, 0.0, 9, 0, 0, source, RECEIVE, 0)
        events[source].append((sent_by, out))
        events[target].append((came_by, got))
    return [
        worker_file(rank, f"m{rank}", [event for _, event in sorted(each)], size)
        for rank, each in enumerate(events)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_clocks_of_machines_are_brought_together(seed: int) -> None:
    aheads = [1000.0, 1003.7, 12.0, 1000.002]
    files = conversation(aheads, [0.0] * 4, 1.0, 4000, seed)
    clocks = estimate_clocks(files, pair_messages(files))
    for rank, ahead in enumerate(aheads):
        clock = clocks[f"m{rank}"]
        wrong = clock.ahead - (ahead - aheads[0])
        assert abs(wrong) <= clock.error + 1e-9
        assert abs(wrong) < 100e-6


def test_clocks_that_drift_are_followed() -> None:
    drifts = [0.0, 20e-6, -15e-6]
    files = conversation([0.0, 5.0, -3.0], drifts, 600.0, 40_000, 1)
    clocks = estimate_clocks(files, pair_messages(files))
    for rank, ahead in enumerate([0.0, 5.0, -3.0]):
        for now in (0.0, 300.0, 600.0):
            theirs = np.array([now * (1.0 + drifts[rank]) + ahead])
            assert clocks[f"m{rank}"].straight(theirs)[0] == pytest.approx(now, abs=100e-6)


def test_messages_of_a_merged_trace_go_forward_in_time() -> None:
    found = merge(conversation([7.0, -2.0], [0.0, 0.0], 1.0, 2000, 3))
    sent = found.events["end"][found.messages.sent]
    came = found.events["begin"][found.messages.came]
    assert len(sent) == 2000
    assert (came - sent > -50e-6).all()
    assert found.duration == pytest.approx(1.0, abs=0.01)


def test_a_machine_that_nobody_heard_has_its_date_and_an_infinite_error() -> None:
    files = [worker_file(0, "a", [], 2), worker_file(1, "b", [], 2)]
    files[1].header["clock"] = 40.0
    clock = estimate_clocks(files, pair_messages(files))["b"]
    assert (clock.ahead, clock.error) == (40.0, float("inf"))


def test_files_left_over_from_a_larger_run_are_passed_by(tmp_path: Path) -> None:
    Recorder(str(tmp_path), 5, 6, "here").close()
    both = [Recorder(str(tmp_path), rank, 2, "here") for rank in (0, 1)]
    for recorder in both:
        recorder.close()
    assert [each.rank for each in read_directory(str(tmp_path))] == [0, 1]


def test_texts_are_read_back(tmp_path: Path) -> None:
    recorder = Recorder(str(tmp_path), 0, 1, "here")
    recorder.text("function", {"number": 1, "name": "map(<b>)"})
    recorder.close()
    found = read_file(file_of(str(tmp_path), 0))
    assert found.texts == {"function": [{"number": 1, "name": "map(<b>)"}]}
    assert json.dumps(found.header)


def test_the_rest_in_which_a_worker_ends_is_recorded(recorded: RecordedRun) -> None:
    """The last item takes 0.3 s, so the others have nothing to run when the run ends."""
    runs, rests = recorded.of_kind(RUN), recorded.of_kind(REST)
    end = runs["end"][0]
    for rank in {1, 2} - {recorded.slow[0]["rank"]}:
        if runs["begin"][rank] < end - 0.2:
            assert rests["end"][rests["rank"] == rank].max(initial=0.0) >= end - 0.05


def test_each_kind_of_event_is_placed_where_traces_are_read() -> None:
    """A new kind: into ``INSTANTS`` if its end is no time, into ``_SPANS`` if it is main's time."""
    placed = [*INSTANTS, *_SPANS, RUN, SEND, RECEIVE]
    assert sorted(placed) == sorted(KINDS.values())
