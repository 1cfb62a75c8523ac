"""Predictions: the tree of tasks is that of the run, and the times are those that were measured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from dtm.errors import TraceError
from dtm.run.recording import CALL, KEY, PART, RECEIVE, REST, SEND, STRIP, WAIT, Recorder
from dtm.testing import Calls, total_work
from dtm.trace.files import read_directory
from dtm.trace.prediction import between_items, measured, network_of, predict
from dtm.trace.recorded import RecordedRun, merge, read_run
from dtm.trace.segments import cut
from dtm.trace.tree import program_of
from tests.launch import PROGRAMS, environment, run


def recorders(directory: Path, size: int, hosts: int = 1) -> list[Recorder]:
    return [
        Recorder(str(directory), rank, size, f"node{rank * hosts // size}") for rank in range(size)
    ]


def closed(directory: Path, each: list[Recorder], end: float) -> RecordedRun:
    for recorder in each:
        recorder.began, recorder.ended = 0.0, end
        recorder.close()
    return merge(read_directory(str(directory)))


def steps(task: Any) -> list[Any]:
    return [step if isinstance(step, float) else type(step)(step) for step in task.steps()]


def test_the_tree_is_that_of_the_run(tmp_path: Path) -> None:
    """main works 1 s, maps over two items; the second, run by worker 1, maps over three."""
    root, helper = recorders(tmp_path, 2)
    root.function("map(outer)")
    helper.function("map(outer)")
    helper.function("map(inner)")
    root.record(CALL, 1.0, 2, 0, 0, 1, 0, 1)
    root.record(KEY, 1.1, 9, number=1)
    root.record(STRIP, 1.0, 3.0, 2.0, 0, 1, 1)
    root.record(WAIT, 1.0, 8.0, number=1)
    helper.record(PART, 1.2, 9, 0, 1, 1, 1, 0)
    helper.record(CALL, 2.0, 3, 1, 1, 2, 1, 2)
    helper.record(STRIP, 2.0, 5.0, 3.0, 0, 2, 3)
    helper.record(STRIP, 1.5, 7.0, 1.25, 1, 1, 1)
    found = closed(tmp_path, [root, helper], 10.0)
    program = program_of(found, cut(found))
    first, mapped, last = steps(program)
    assert (first, last) == (pytest.approx(1.0), pytest.approx(2.0))
    assert mapped[0] == pytest.approx(2.0)
    assert steps(mapped[1]) == [pytest.approx(0.5), [pytest.approx(1.0)] * 3, pytest.approx(0.75)]
    assert total_work(program) == pytest.approx(3.0 + 2.0 + 1.25 + 3.0)


def test_calls_that_were_under_way_together_are_one_step(tmp_path: Path) -> None:
    (root,) = recorders(tmp_path, 1)
    root.function("apply(f)")
    for number, made in ((1, 0.0), (2, 0.1), (3, 5.0)):
        root.record(CALL, made, 1, 0, 0, number, 0, 1)
    for number, begin in ((1, 1.0), (2, 2.0), (3, 5.0)):
        root.record(STRIP, begin, begin + 1.0, 1.0, 0, number, 1)
    root.record(WAIT, 0.2, 3.0)
    root.record(WAIT, 5.0, 6.0)
    found = closed(tmp_path, [root], 6.0)
    _, both, between, single, _ = steps(program_of(found, cut(found)))
    assert type(both) is Calls
    assert both == (1.0, 1.0)
    assert between == pytest.approx(2.2)
    assert single == [1.0]


def test_the_time_between_items_is_added(tmp_path: Path) -> None:
    (root,) = recorders(tmp_path, 1)
    root.function("map(f)")
    root.record(CALL, 0.0, 50, 0, 0, 1, 0, 1)
    for index in range(50):
        root.record(STRIP, index * 1.0, index + 1.0 - 4e-6, 1.0, index, 1, 1)
    root.record(WAIT, 0.0, 50.0)
    found = closed(tmp_path, [root], 50.0)
    assert between_items(found) == pytest.approx(4e-6, rel=0.01)
    program = program_of(found, cut(found), between_items(found))
    assert total_work(program) == pytest.approx(50.0 + 50 * 4e-6)


def test_the_network_is_the_recorded_one(tmp_path: Path) -> None:
    both = recorders(tmp_path, 4, hosts=2)
    for number in range(40):
        now = number * 1e-3
        both[0].record(SEND, now, now + 2e-6, 0, 10, 0, 0, 1)
        both[1].record(RECEIVE, now + 32e-6, now + 36e-6, 0, 10, 0, 0, 0)
        both[0].record(SEND, now + 1e-4, now + 1e-4, 0, 10, 0, 0, 3)
        both[3].record(RECEIVE, now + 3e-4, now + 3e-4, 0, 10, 0, 0, 0)
    network = network_of(closed(tmp_path, both, 1.0))
    assert network.near == pytest.approx(30e-6, rel=0.01)
    assert network.far == pytest.approx(200e-6, rel=0.01)
    assert network.host == 2


def test_who_rests_hears_later_than_who_works(tmp_path: Path) -> None:
    """Messages take 30 us to a worker that is busy, and 200 us to one that rests."""
    root, helper = recorders(tmp_path, 2)
    for number in range(20):
        now = number * 1e-2
        for sent, took in ((now, 30e-6), (now + 5e-3, 200e-6)):
            root.record(SEND, sent, sent, 0, 10, 0, 0, 1)
            helper.record(RECEIVE, sent + took, sent + took, 0, 10, 0, 0, 0)
        helper.record(STRIP, now, now + 4e-3, 4e-3, number, 1, 1)
        helper.record(REST, now + 4e-3, now + 5e-3 + 190e-6)
    network = network_of(closed(tmp_path, [root, helper], 1.0))
    assert network.near == pytest.approx(30e-6, rel=0.01)
    assert network.wake == pytest.approx(170e-6, rel=0.01)


def test_many_equal_items_go_as_fast_as_there_are_workers(tmp_path: Path) -> None:
    (root,) = recorders(tmp_path, 1)
    root.function("map(f)")
    root.record(CALL, 0.0, 1024, 0, 0, 1, 0, 1)
    for index in range(1024):
        root.record(STRIP, index * 0.1, index * 0.1 + 0.1, 0.1, index, 1, 1)
    root.record(WAIT, 0.0, 102.4)
    found = closed(tmp_path, [root], 102.4)
    seconds = {each.workers: each.seconds for each in predict(found, [1, 16, 128])}
    assert seconds[1] == pytest.approx(102.4, rel=0.01)
    assert seconds[16] == pytest.approx(6.4, rel=0.05)
    assert seconds[128] == pytest.approx(0.8, rel=0.3)


def test_the_late_start_of_workers_is_told_apart(tmp_path: Path) -> None:
    both = recorders(tmp_path, 2)
    for recorder, began in zip(both, (0.0, 1.0)):
        recorder.began, recorder.ended = began, 10.0
        recorder.record(REST, began, 10.0)
        recorder.close()
    found = measured(merge(read_directory(str(tmp_path))))
    assert found == (2, 9.5, 0.5)


def test_a_run_without_calls_is_refused(tmp_path: Path) -> None:
    found = closed(tmp_path, recorders(tmp_path, 1), 1.0)
    with pytest.raises(TraceError, match="made no call"):
        list(predict(found, [2]))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_a_prediction_for_the_recorded_number_is_what_was_measured(
    tmp_path: Path, workers: int
) -> None:
    command = [sys.executable, str(PROGRAMS / "napping.py")]
    variables = {"DTM_TRACE": str(tmp_path), "DTM_WORKERS": str(workers)}
    done = run(command, environment(variables), 60)
    assert done.returncode == 0, done.stderr
    found = read_run(str(tmp_path))
    (prediction,) = predict(found, [workers])
    was = measured(found)
    assert prediction.seconds == pytest.approx(was.seconds, rel=0.25)


def test_the_command_prints_and_draws(tmp_path: Path) -> None:
    both = recorders(tmp_path / "trace", 1)
    both[0].function("map(f)")
    both[0].record(CALL, 0.0, 8, 0, 0, 1, 0, 1)
    for index in range(8):
        both[0].record(STRIP, index * 1.0, index + 1.0, 1.0, index, 1, 1)
    both[0].record(WAIT, 0.0, 8.0)
    closed(tmp_path / "trace", both, 8.0)
    page = tmp_path / "page.html"
    words = ["predict", "--workers", "2,4", "--plot", str(page), str(tmp_path / "trace")]
    done = run([sys.executable, "-m", "dtm", *words], environment(), 60)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()[1:4]]
    assert [int(line[0]) for line in lines] == [1, 2, 4]
    assert [float(line[3]) for line in lines] == [
        pytest.approx(each, rel=0.1) for each in (1, 2, 4)
    ]
    assert "recorded: 8 s" in done.stdout
    assert 'id="speedup"' in page.read_text(encoding="utf-8")


def test_a_reader_that_wants_no_more_ends_the_command_without_a_word(tmp_path: Path) -> None:
    (root,) = recorders(tmp_path / "trace", 1)
    root.function("map(f)")
    root.record(CALL, 0.0, 1, 0, 0, 1, 0, 1)
    root.record(STRIP, 0.0, 1.0, 1.0, 0, 1, 1)
    closed(tmp_path / "trace", [root], 1.0)
    command = f"{sys.executable} -m dtm predict --workers 1,2 {tmp_path / 'trace'} | true"
    done = run(["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"], environment(), 60)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("numbers", "said"), [("0", "from 1 to"), ("a", "no whole numbers"), ("70000", "from 1 to")]
)
def test_impossible_numbers_of_workers_are_refused(numbers: str, said: str) -> None:
    words = ["predict", "--workers", numbers, "nowhere"]
    done = run([sys.executable, "-m", "dtm", *words], environment(), 60)
    assert done.returncode == 2
    assert said in done.stderr
