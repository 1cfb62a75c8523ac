"""What other programs are given of a recorded run is what was recorded: read back, one by one."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtm.run.recording import CALL, KEY, PART, RECEIVE, RUN, SEND, STRIP, WAIT, Recorder
from dtm.trace.chrome import write_chrome
from dtm.trace.files import INSTANTS, read_directory
from dtm.trace.lanes import KIND_NAMES, shown_events
from dtm.trace.perfetto import write_perfetto
from dtm.trace.recorded import RecordedRun, merge, read_run
from dtm.trace.tables import COLUMNS, write_csv, write_parquet
from tests.launch import PROGRAMS, environment, run
from tests.test_trace_recording import conversation, traced

Key = tuple[int, str, int, int]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trace")
    done = traced(directory)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="module")
def recorded(directory: Path) -> RecordedRun:
    return read_run(str(directory))


def expected(run: RecordedRun) -> Counter[Key]:
    """Return all events, by worker, kind, beginning and end in nanoseconds."""
    found = Counter[Key]()
    for event in run.events:
        begin = round(float(event["begin"]) * 1e9)
        end = begin if event["kind"] in INSTANTS else round(float(event["end"]) * 1e9)
        found[int(event["rank"]), KIND_NAMES[int(event["kind"])], begin, max(begin, end)] += 1
    return found


class ReadBack:
    """What Perfetto's own definitions find in a file."""

    def __init__(self, data: bytes) -> None:
        protos = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
        trace = protos.Trace()
        trace.ParseFromString(data)
        self.names: dict[int, str] = {}
        self.parents: dict[int, int] = {}
        self.processes: dict[int, str] = {}
        self.events = Counter[Key]()
        self.sent: dict[int, Key] = {}
        self.came: dict[int, Key] = {}
        self.details: list[tuple[str, str, dict[str, Any]]] = []
        self._open: dict[int, list[tuple[Any, int]]] = {}
        for packet in trace.packet:
            if packet.HasField("track_descriptor"):
                self._track(packet.track_descriptor)
            else:
                self._event(packet.timestamp, packet.track_event)
        assert not any(self._open.values()), "slices without an end"

    def _track(self, track: Any) -> None:
        self.names[track.uuid] = track.name
        self.parents[track.uuid] = track.parent_uuid
        if track.HasField("process"):
            self.processes[track.uuid] = track.process.process_name

    def _event(self, when: int, event: Any) -> None:
        track = event.track_uuid
        assert track in self.names, "an event on a track that was not described before"
        stack = self._open.setdefault(track, [])
        if event.type == event.TYPE_SLICE_END:
            begun, began = stack.pop()
            if stack:
                assert stack[-1][1] <= began, "slices do not nest"
            self._note(begun, began, when)
        elif event.type == event.TYPE_SLICE_BEGIN:
            stack.append((event, when))
        else:
            assert event.type == event.TYPE_INSTANT
            self._note(event, when, when)

    def _note(self, event: Any, begin: int, end: int) -> None:
        process = self.processes[self.parents[event.track_uuid]]
        rank = int(process.split()[1])
        key = (rank, event.categories[0], begin, end)
        self.events[key] += 1
        for number in event.flow_ids:
            assert number not in self.sent
            self.sent[number] = key
        for number in event.terminating_flow_ids:
            assert number not in self.came
            self.came[number] = key
        notes = {
            note.name: getattr(note, note.WhichOneof("value")) for note in event.debug_annotations
        }
        self.details.append((event.categories[0], event.name, notes))


@pytest.fixture(scope="module")
def perfetto(recorded: RecordedRun) -> ReadBack:
    file = io.BytesIO()
    write_perfetto(recorded, file)
    return ReadBack(file.getvalue())


def test_perfetto_has_every_event_once_at_its_time(
    perfetto: ReadBack, recorded: RecordedRun
) -> None:
    assert perfetto.events == expected(recorded)


def test_perfetto_has_a_process_a_worker_in_order(
    perfetto: ReadBack, recorded: RecordedRun
) -> None:
    assert list(perfetto.processes.values()) == [recorded.called(rank) for rank in (0, 1, 2)]
    assert {"run", "messages", "calls", "main thread"} <= set(perfetto.names.values())


def test_perfetto_has_an_arrow_for_each_message(perfetto: ReadBack, recorded: RecordedRun) -> None:
    messages, events = recorded.messages, recorded.events
    assert len(perfetto.sent) == len(perfetto.came) == len(messages.sent) > 10
    arrows = Counter[tuple[Key, Key]]()
    for number, key in perfetto.sent.items():
        arrows[key, perfetto.came[number]] += 1
    wanted = Counter[tuple[Key, Key]]()
    for sent, came in zip(events[messages.sent], events[messages.came]):
        wanted[_key(sent, "send"), _key(came, "receive")] += 1
    assert arrows == wanted


def _key(event: Any, kind: str) -> Key:
    begin, end = (round(float(event[each]) * 1e9) for each in ("begin", "end"))
    return int(event["rank"]), kind, begin, end


def test_perfetto_says_what_each_strip_was(perfetto: ReadBack, recorded: RecordedRun) -> None:
    strips = Counter(
        (name, notes["first item"], notes["items"], notes["failed"])
        for kind, name, notes in perfetto.details
        if kind == "strip"
    )
    wanted = Counter(
        (recorded.functions[each["function"]], each["index"], each["count"], bool(each["flag"]))
        for each in recorded.of_kind(STRIP)
    )
    assert strips == wanted


def test_chrome_has_every_event_once_at_its_time(recorded: RecordedRun) -> None:
    file = io.StringIO()
    write_chrome(recorded, file)
    events = json.loads(file.getvalue())["traceEvents"]
    found = Counter[Key]()
    flows: dict[str, set[int]] = {"s": set(), "f": set()}
    for event in events:
        if event["ph"] in ("X", "i"):
            begin, duration = round(event["ts"] * 1000), round(event.get("dur", 0) * 1000)
            found[event["pid"] - 1, event["cat"], begin, begin + duration] += 1
        elif event["ph"] != "M":
            assert event["id"] not in flows[event["ph"]]
            flows[event["ph"]].add(event["id"])
    assert found == expected(recorded)
    assert flows["s"] == flows["f"] == set(range(1, len(recorded.messages.sent) + 1))
    named = [each["args"]["name"] for each in events if each["name"] == "process_name"]
    assert named == [recorded.called(rank) for rank in (0, 1, 2)]


def test_csv_has_a_row_an_event(recorded: RecordedRun) -> None:
    file = io.StringIO()
    write_csv(recorded, file)
    file.seek(0)
    rows = list(csv.DictReader(file))
    assert len(rows) == len(recorded.events)
    for row, event in zip(rows, recorded.events):
        kind = int(event["kind"])
        assert row["kind"] == KIND_NAMES[kind]
        assert (int(row["worker"]), float(row["begin"])) == (event["rank"], event["begin"])
        if kind == STRIP:
            assert row["function"] == recorded.functions[event["function"]]
            assert (int(row["first_item"]), int(row["items"])) == (event["index"], event["count"])
            assert float(row["own_seconds"]) == pytest.approx(float(event["own"]))
        elif kind in (SEND, RECEIVE):
            assert (int(row["bytes"]), int(row["peer"])) == (event["index"], event["peer"])
            assert row["message"] in recorded.message_names
        elif kind in (CALL, PART, KEY):
            assert row["end"] == ""


def test_parquet_says_what_csv_says(recorded: RecordedRun) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    binary, text = io.BytesIO(), io.StringIO()
    write_parquet(recorded, binary)
    write_csv(recorded, text)
    text.seek(0)
    binary.seek(0)
    table = parquet.read_table(binary)
    assert table.column_names == [name for name, *_ in COLUMNS]
    for row, said in zip(table.to_pylist(), csv.DictReader(text)):
        assert {name: "" if value is None else str(value) for name, value in row.items()} == said


def test_threads_of_the_programs_own_get_tracks_in_which_nothing_overlaps(tmp_path: Path) -> None:
    recorder = Recorder(str(tmp_path), 0, 1, "here")
    for begin, end in ((0.0, 2.0), (1.0, 3.0), (2.0, 4.0), (2.5, 2.6)):
        recorder.record(STRIP, begin, end, peer=0xFFFF)
    recorder.close()
    found = merge(read_directory(str(tmp_path)))
    strips = [each for each in shown_events(found) if each.kind == STRIP]
    tracks = {each.begin - strips[0].begin: each.track for each in strips}
    assert len(set(tracks.values())) == 3
    assert tracks[0] == tracks[2_000_000_000]


def test_messages_between_hosts_are_arrows_too() -> None:
    file = io.BytesIO()
    write_perfetto(merge(conversation([5.0, -4.0, 0.3], [0.0] * 3, 1.0, 500, 1)), file)
    found = ReadBack(file.getvalue())
    assert len(found.sent) == len(found.came) == 500


@pytest.mark.parametrize("form", ["perfetto", "chrome", "csv"])
def test_the_command_writes_a_file(directory: Path, tmp_path: Path, form: str) -> None:
    path = tmp_path / "out"
    words = ["trace", "export", "--format", form, "-o", str(path), str(directory)]
    done = run([sys.executable, "-m", "dtm", *words], environment(), 60)
    assert done.returncode == 0, done.stderr
    assert "events of 3 workers" in done.stdout
    assert path.stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{empty}"], "no trace in"),
        (["-o", "{empty}/no/file", "{trace}"], "cannot write"),
        (["--format", "xml", "{trace}"], "invalid choice"),
    ],
)
def test_the_command_refuses_with_a_sentence(
    directory: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    named = [word.format(empty=tmp_path, trace=directory) for word in words]
    done = run([sys.executable, "-m", "dtm", "trace", "export", *named], environment(), 60)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_program_of_these_tests_waits_and_ends(recorded: RecordedRun) -> None:
    assert PROGRAMS.joinpath("traced.py").exists()
    kinds = set(np.unique(recorded.events["kind"]).tolist())
    assert {RUN, STRIP, SEND, RECEIVE, CALL, PART, KEY, WAIT} <= kinds
