"""The report: figures that are right, sentences that say what to change, a page that opens."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.traces import write_trace
from dtm.core.messages import MESSAGES
from dtm.run.advice import advice
from dtm.run.recording import CALL, REST, SEND, STRIP, WAIT, Recorder
from dtm.trace.charts import MOST_BARS, timeline, where_it_went
from dtm.trace.findings import Findings, find, histogram
from dtm.trace.page import write_report
from dtm.trace.recorded import read_run
from dtm.trace.segments import IDLE, MAIN
from tests.launch import environment, run

GRANT = [each.__name__ for each in MESSAGES].index("Grant")
NASTY = "map(<b>f</b></script><script>document.body.dataset.bad='yes'</script>)"


class Written:
    """A trace written event by event."""

    def __init__(self, directory: Path, size: int, hosts: int = 1) -> None:
        self.directory = directory
        self.recorders = [
            Recorder(str(directory), rank, size, f"node{rank * hosts // size}")
            for rank in range(size)
        ]

    def strip(
        self, rank: int, begin: float, end: float, function: str, index: int = 0, count: int = 1,
        own: float | None = None,
    ) -> None:  # fmt: skip
        recorder = self.recorders[rank]
        number = recorder.function(function)
        recorder.record(CALL, begin, count, 0, 0, number, 0, number)
        recorder.record(
            STRIP, begin, end, end - begin if own is None else own, index, number, count
        )

    def found(self, end: float) -> Findings:
        for recorder in self.recorders:
            recorder.began, recorder.ended = 0.0, end
            recorder.close()
        return find(read_run(str(self.directory)))


@pytest.fixture
def one_long_item(tmp_path: Path) -> Findings:
    """Three workers, 10 s: main computes for 1 s, then one item takes 8 s and others 2 s each."""
    trace = Written(tmp_path, 3)
    trace.recorders[0].record(WAIT, 1.0, 10.0)
    trace.strip(0, 1.0, 9.0, "map(evaluate)", 17)
    trace.strip(1, 1.0, 3.0, "map(evaluate)", 3)
    trace.strip(2, 1.0, 3.0, "map(evaluate)", 4)
    for rank in (1, 2):
        trace.recorders[rank].record(REST, 0.0, 1.0)
        trace.recorders[rank].record(REST, 3.0, 10.0)
    trace.recorders[0].record(REST, 9.0, 10.0)
    trace.recorders[0].record(SEND, 1.0, 1.0, 0, 100, 1, 5, 1, GRANT)
    trace.recorders[0].record(SEND, 1.0, 1.0, 0, 100, 1, 7, 2, GRANT)
    return trace.found(10.0)


def test_core_seconds_are_where_they_went(one_long_item: Findings) -> None:
    figures = one_long_item.figures
    assert figures.duration == 10.0
    assert figures.busy == {0: 8.0, 1: 2.0, 2: 2.0}
    assert figures.resting == {0: 1.0, 1: 8.0, 2: 8.0}
    assert figures.serial == pytest.approx(1.0)
    shares = {name: share for name, share, _ in where_it_went(one_long_item)}
    assert shares["items"] == pytest.approx(0.4)
    assert shares["waiting for main"] == pytest.approx(2 / 30)
    assert sum(shares.values()) == pytest.approx(1.0)


def test_the_first_sentence_names_the_item_that_all_wait_for(one_long_item: Findings) -> None:
    assert advice(one_long_item.figures)[0] == (
        "60% of the time all other workers wait for one item of map(evaluate) (index 17, 8 s): "
        "order long items first, or split it"
    )


def test_the_efficiencies_multiply(one_long_item: Findings) -> None:
    pop = one_long_item.pop
    assert pop.parallel == pytest.approx(13 / 30)
    assert pop.balance == pytest.approx(13 / 27)
    assert pop.communication == pytest.approx(0.9)
    assert pop.parallel == pytest.approx(pop.balance * pop.communication)
    assert pop.communication == pytest.approx(pop.serialisation * pop.transfer)


def test_shares_over_time_add_up(one_long_item: Findings) -> None:
    width = one_long_item.times[1] - one_long_item.times[0]
    items, main, nothing = (one_long_item.shares * 3 * width).sum(axis=1)
    assert (items, main, nothing) == (
        pytest.approx(12.0), pytest.approx(1.0), pytest.approx(17.0)
    )  # fmt: skip
    half = len(one_long_item.times) // 2
    assert one_long_item.shares[0][half + 2] == pytest.approx(1 / 3)


def test_the_matrix_says_who_stole_from_whom(one_long_item: Findings) -> None:
    assert one_long_item.stolen.tolist() == [[0, 5, 7], [0, 0, 0], [0, 0, 0]]


def test_time_belongs_to_the_innermost_strip(tmp_path: Path) -> None:
    trace = Written(tmp_path, 1)
    trace.recorders[0].record(WAIT, 0.0, 10.0)
    trace.strip(0, 2.0, 6.0, "map(inner)")
    trace.strip(0, 1.0, 8.0, "map(outer)")
    trace.recorders[0].record(REST, 6.5, 7.0)
    found = trace.found(10.0)
    outer, inner = (found.run.functions.index(name) for name in ("map(outer)", "map(inner)"))
    pieces = found.segments
    assert list(zip(pieces.begin.tolist(), pieces.end.tolist(), pieces.what.tolist())) == [
        (1.0, 2.0, outer), (2.0, 6.0, inner), (6.0, 6.5, outer), (6.5, 7.0, IDLE),
        (7.0, 8.0, outer),
    ]  # fmt: skip


def test_what_main_does_between_its_waits_is_its_own(tmp_path: Path) -> None:
    trace = Written(tmp_path, 1)
    for begin in (1.0, 4.0):
        trace.recorders[0].record(WAIT, begin, begin + 2.0)
    pieces = trace.found(9.0).segments
    assert pieces.what.tolist() == [MAIN] * 3
    assert pieces.begin.tolist() == [0.0, 3.0, 6.0]
    assert pieces.end.tolist() == [1.0, 4.0, 9.0]


def test_the_histogram_counts_items(tmp_path: Path) -> None:
    trace = Written(tmp_path, 1)
    trace.strip(0, 0.0, 1.0, "map(f)", 0, 1)
    trace.strip(0, 1.0, 2.0, "map(f)", 1, 1000)
    edges, counts = histogram(trace.found(2.0), "map(f)")
    assert counts.sum() == 1001
    assert counts[0] == 1000
    assert edges[0] < 1e-3 < 1.0 < edges[-1]


def test_a_long_trace_is_drawn_coarsely_with_its_seconds_kept(tmp_path: Path) -> None:
    trace = Written(tmp_path, 2)
    random = np.random.default_rng(1)
    for rank, recorder in enumerate(trace.recorders):
        trace.strip(rank, 0.0, 0.001, "map(f)")
        now = 0.001
        for length in random.exponential(1e-3, 40_000).tolist():
            recorder.record(STRIP, now, now + length, length, 0, 1, 1)
            now += length
        recorder.record(REST, now, 60.0)
    trace.recorders[0].record(WAIT, 0.0, 60.0)
    found = trace.found(60.0)
    figure, note = timeline(found)
    assert "too many to draw" in note
    drawn = {each["name"]: each for each in figure["data"] if each.get("mode") == "lines"}
    bars = sum(len(each["x"]) // 3 for each in drawn.values())
    assert 2 <= bars <= MOST_BARS
    for name, seconds in (
        ("map(f)", sum(found.figures.busy.values())),
        ("nothing to run", sum(found.figures.resting.values())),
    ):
        x = np.asarray(drawn[name]["x"]).reshape(-1, 3)
        assert (x[:, 1] - x[:, 0]).sum() == pytest.approx(seconds, rel=0.01)


def test_a_killed_run_has_a_report_that_says_so(tmp_path: Path) -> None:
    trace = Written(tmp_path, 2)
    for rank in (0, 1):
        trace.strip(rank, 0.0, 1.0, "map(f)")
        trace.recorders[rank].flush()
    file = io.StringIO()
    write_report(find(read_run(str(tmp_path))), file)
    assert "the traces of 2 workers have no end: killed, or the disk was full" in file.getvalue()


def test_a_worker_that_never_came_was_starting_all_the_time(tmp_path: Path) -> None:
    trace = Written(tmp_path, 2)
    trace.strip(0, 0.0, 4.0, "map(f)")
    trace.recorders[0].record(WAIT, 0.0, 4.0)
    (tmp_path / "worker-00001.dtmtrace").unlink()
    found = trace.found(4.0)
    assert found.figures.starting == pytest.approx(4.0)
    assert found.run.gaps == ["1 worker left no trace"]
    file = io.StringIO()
    write_report(found, file)
    assert "1 host; efficiency 50%; 1 worker left no trace<" in file.getvalue()


def test_scaling_is_told_against_another_run(tmp_path: Path) -> None:
    traces = []
    for size, length in ((1, 4.0), (2, 2.5)):
        trace = Written(tmp_path / str(size), size)
        for rank in range(size):
            trace.strip(rank, 0.0, length, "map(f)")
        trace.recorders[0].record(WAIT, 0.0, length)
        traces.append(trace.found(length))
    file = io.StringIO()
    write_report(traces[1], file, traces[0])
    assert re.search(r"computation scaling</summary>.*?<td>80.0%</td>", file.getvalue())


# In a browser.

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture
def browser() -> Any:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = next((path for path in CHROMIUMS if Path(path).exists()), None)
    if chromium is None:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=chromium, args=FLAGS)
        yield found
        found.close()


CHROMIUMS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")


def opened(
    browser: Any, path: Path, scheme: str = "light", before: str = ""
) -> tuple[Any, list[str]]:
    """Open a page; return it and whatever it complained of or asked of the network.

    ``before`` is a script that runs in it first.
    """
    page = browser.new_page(viewport={"width": 1200, "height": 1000}, color_scheme=scheme)
    page.add_init_script(before)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on(
        "request", lambda asked: None if asked.url.startswith(("file:", "data:", "blob:"))
        else complaints.append(asked.url)
    )  # fmt: skip
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-drawn=yes]", timeout=60_000)
    return page, complaints


@pytest.fixture
def page_file(tmp_path: Path) -> Path:
    trace = Written(tmp_path / "trace", 2)
    trace.strip(0, 0.5, 4.0, NASTY, 7)
    trace.recorders[0].record(WAIT, 0.5, 4.0)
    trace.strip(1, 0.5, 1.0, "map(quick)", 8)
    trace.recorders[1].record(REST, 1.0, 4.0)
    trace.recorders[0].text(
        "slow", {"call": 1, "index": 7, "seconds": 3.5, "item": "<img src=x onerror=alert(1)>"}
    )
    path = tmp_path / "report.html"
    with path.open("w", encoding="utf-8") as file:
        write_report(trace.found(4.0), file)
    return path


def test_the_page_opens_without_network_and_shows_all_charts(browser: Any, page_file: Path) -> None:
    page, complaints = opened(browser, page_file)
    assert complaints == []
    for chart in ("places", "timeline", "lengths", "steals"):
        assert page.locator(f"#{chart} svg.main-svg").count() > 0, chart
    assert page.locator("ol.advice li").first.inner_text().startswith("75% of the time")


def test_names_from_the_program_are_text_in_the_page(browser: Any, page_file: Path) -> None:
    page, _ = opened(browser, page_file)
    assert page.evaluate("document.body.dataset.bad") is None
    assert page.locator("img").count() == 0
    assert NASTY in page.locator("table").nth(2).inner_text()
    assert "<b>f</b>" in page.locator("#timeline .legend").text_content()


def test_a_definition_is_a_click_away(browser: Any, page_file: Path) -> None:
    page, _ = opened(browser, page_file)
    definition = page.locator("details", has_text="Low: some have more to do")
    height = definition.bounding_box()["height"]
    definition.locator("summary").click()
    assert definition.get_attribute("open") is not None
    assert definition.bounding_box()["height"] > height + 10


def zoomed(page: Any) -> tuple[float, float]:
    """Drag over the second quarter of the timeline; return the seconds that it then shows."""
    page.locator("#timeline").scroll_into_view_if_needed()
    box = page.locator("#timeline .nsewdrag").first.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.25, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, middle, steps=5)
    page.mouse.up()
    page.wait_for_function(
        "document.getElementById('timeline').layout.xaxis.range[0] > 0.01", timeout=20_000
    )
    low, high = page.evaluate("document.getElementById('timeline').layout.xaxis.range")
    return low, high


@pytest.mark.slow
def test_the_timeline_zooms(browser: Any, page_file: Path) -> None:
    page, _ = opened(browser, page_file)
    low, high = zoomed(page)
    assert 0.9 < low < 1.1 < 1.9 < high < 2.1


# An entry of the type "paint" comes from the compositor when it likes: frames come in order.
ORDER = """
window.order = [];
requestAnimationFrame(function frame() {
  if (document.getElementById('steals')) order.push('text');
  else requestAnimationFrame(frame);
});
new MutationObserver(seen => order.push(...seen.map(each => each.target.id)))
  .observe(document, {subtree: true, attributeFilter: ['data-drawn']});
"""


def test_what_is_said_is_there_before_the_charts_and_they_in_their_order(
    browser: Any, page_file: Path
) -> None:
    page, _ = opened(browser, page_file, before=ORDER)
    order = page.evaluate("order.filter(each => each)")
    assert order == ["text", "places", "timeline", "lengths", "steals"]


@pytest.mark.slow
def test_a_million_events_open_and_zoom(browser: Any, tmp_path: Path) -> None:
    workers = 64
    events = write_trace(str(tmp_path / "trace"), workers, 1_000_000)
    run = read_run(str(tmp_path / "trace"))
    assert len(run.events) == events >= 1_000_000
    path = tmp_path / "report.html"
    with path.open("w", encoding="utf-8") as file:
        write_report(find(run), file)
    assert path.stat().st_size < 15_000_000
    page, complaints = opened(browser, path)
    lanes = page.evaluate(
        "[...new Set(document.getElementById('timeline').data"
        ".filter(each => !each.yaxis).flatMap(each => [...each.y]))].sort((a, b) => a - b)"
    )
    assert lanes == list(range(workers))
    bars = "document.querySelector('#timeline .scatterlayer path.js-line').getAttribute('d')"
    before = page.evaluate(bars)
    low, high = zoomed(page)
    whole = run.duration
    assert (low, high) == (pytest.approx(whole / 4, rel=0.1), pytest.approx(whole / 2, rel=0.1))
    page.wait_for_function(f"before => {bars} !== before", arg=before, timeout=20_000)
    page.locator("#timeline .nsewdrag").first.dblclick()
    page.wait_for_function(
        "document.getElementById('timeline').layout.xaxis.range[0] === 0", timeout=20_000
    )
    assert complaints == []


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_page_is_readable_in_light_and_dark(
    browser: Any, page_file: Path, scheme: str, dark: bool
) -> None:
    page, _ = opened(browser, page_file, scheme)
    shown = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,"
        " getComputedStyle(document.querySelector('#timeline .xtick text')).fill]"
    )
    paper, ink, ticks = (sum(map(int, re.findall(r"\d+", each)[:3])) / 765 for each in shown)
    assert (paper < 0.3) is dark
    assert abs(paper - ink) > 0.6
    assert abs(paper - ticks) > 0.6


def test_the_command_writes_the_page_and_says_what_to_change(tmp_path: Path) -> None:
    trace = Written(tmp_path / "trace", 2)
    trace.strip(0, 0.0, 4.0, "map(f)", 7)
    trace.recorders[0].record(WAIT, 0.0, 4.0)
    trace.recorders[1].record(REST, 0.0, 4.0)
    trace.found(4.0)
    path = tmp_path / "out.html"
    words = ["report", "-o", str(path), str(tmp_path / "trace")]
    done = run([sys.executable, "-m", "dtm", *words], environment(), 60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("100% of the time all other workers wait for one item of map(f)")
    assert path.stat().st_size < 6_000_000
    assert "http-equiv" not in path.read_text(encoding="utf-8")[:2000]
    refused = run([sys.executable, "-m", "dtm", "report", str(tmp_path)], environment(), 60)
    assert refused.returncode == 1
    assert "there is no trace in" in refused.stderr
