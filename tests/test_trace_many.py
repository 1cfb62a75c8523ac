"""A trace of many workers: nothing is lost, and they stand in order wherever they are shown."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from dtm.run.recording import STRIP
from dtm.trace.charts import timeline
from dtm.trace.findings import find
from dtm.trace.page import write_report
from dtm.trace.recorded import RecordedRun, read_run
from tests.launch import PROGRAMS, environment, run
from tests.test_trace_formats import ReadBack, expected, write_perfetto
from tests.test_trace_report import Written, browser, opened

__all__ = ["browser"]
WORKERS = 64
ITEMS = 100_000

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("many"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RecordedRun:
    directory = tmp_path_factory.mktemp("trace")
    command = [sys.executable, "-m", "dtm", "run", "-n", str(WORKERS), "--trace", str(directory)]
    done = run([*command, str(PROGRAMS / "many_naps.py"), str(ITEMS)], environment(), 200)
    assert (done.returncode, done.stdout, done.stderr) == (0, "all there\n", "")
    return read_run(str(directory))


def test_every_worker_is_there_and_every_item_once(recorded: RecordedRun) -> None:
    assert recorded.ranks == list(range(WORKERS))
    assert recorded.whole == set(range(WORKERS))
    times = np.zeros(ITEMS, int)
    for strip in recorded.of_kind(STRIP):
        times[strip["index"] : strip["index"] + strip["count"]] += 1
    assert (times == 1).all()


def test_a_viewer_has_them_in_order_with_each_event(recorded: RecordedRun) -> None:
    file = io.BytesIO()
    write_perfetto(recorded, file)
    found = ReadBack(file.getvalue())
    assert list(found.processes.values()) == [recorded.called(rank) for rank in range(WORKERS)]
    assert found.events == expected(recorded)


def test_the_page_has_them_in_order(browser: object, recorded: RecordedRun, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    with path.open("w", encoding="utf-8") as out:
        write_report(find(recorded), out)
    page, complaints = opened(browser, path)
    shown = page.locator("#timeline .ytick text").all_text_contents()
    host = recorded.hosts[0]
    assert [each for each in shown if "%" not in each] == [
        f"{rank} {host}" for rank in range(WORKERS)
    ]
    assert complaints == []


def test_lanes_of_several_hosts_stand_by_rank_with_their_host(tmp_path: Path) -> None:
    trace = Written(tmp_path, 6, hosts=3)
    for rank in range(6):
        trace.strip(rank, 0.0, 1.0, "map(f)")
    figure, _ = timeline(trace.found(1.0))
    axis = figure["layout"]["yaxis"]
    assert axis["ticktext"] == [
        "0 node0", "1 node0", "2 node1", "3 node1", "4 node2", "5 node2"
    ]  # fmt: skip
    assert list(axis["tickvals"]) == list(range(6))
    assert axis["range"][0] > axis["range"][1]
