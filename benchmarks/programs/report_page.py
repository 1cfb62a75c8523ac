"""The report of a run with a million events: it is made, opened in Chromium, and zoomed.

``what=made`` is the time from the recorded files to the page; ``what=opened`` from navigation until
the timeline is drawn; ``what=zoomed`` from the release of the mouse, after a drag over a quarter of
the timeline, until that part is drawn.

The browser is driven by its debugging protocol.  While that is attached, an exception costs a look
at the whole stack: one that plotly's script throws and catches costs 0.4 s of processor time then,
for which nobody waits who just opens the page.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from benchmarks.programs.harness import Request, Result, play, result
from benchmarks.programs.libraries import Library

EVENTS, FEWER_EVENTS = 1_000_000, 50_000
WORKERS = 64
TIMES = 5
CHROMIUMS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SHOWN = "#timeline[data-drawn=yes]"
RANGE = "document.getElementById('timeline').layout.xaxis.range"


def make(directory: str, page: Path) -> float:
    """Write the page; return how long it took."""
    from dtm.trace.findings import find
    from dtm.trace.page import write_report
    from dtm.trace.recorded import read_run

    began = perf_counter()
    with page.open("w", encoding="utf-8") as file:
        write_report(find(read_run(directory)), file)
    return perf_counter() - began


@contextmanager
def chromium() -> Iterator[Any]:
    """Start a browser without a window."""
    from playwright.sync_api import sync_playwright

    path = next(filter(os.path.exists, CHROMIUMS), None)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def opened(browser: Any, page: Path) -> tuple[Any, float]:
    """Open the page; return it and the seconds until the timeline is drawn."""
    shown = browser.new_page(viewport={"width": 1200, "height": 1000})
    began = perf_counter()
    shown.goto(page.as_uri(), wait_until="commit")
    shown.wait_for_selector(SHOWN)
    return shown, perf_counter() - began


def zoomed(shown: Any) -> float:
    """Zoom; return the seconds that it took."""
    shown.wait_for_selector("body[data-drawn=yes]")
    shown.locator("#timeline").scroll_into_view_if_needed()
    box = shown.locator("#timeline .nsewdrag").first.bounding_box()
    middle = box["y"] + 20
    shown.mouse.move(box["x"] + box["width"] * 0.25, middle)
    shown.mouse.down()
    shown.mouse.move(box["x"] + box["width"] * 0.5, middle, steps=5)
    began = perf_counter()
    shown.mouse.up()
    shown.wait_for_function(f"{RANGE}[0] > 0.01")
    shown.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    return perf_counter() - began


def measure(_library: Library, request: Request) -> Result:
    from benchmarks.traces import write_trace

    what, times = request.settings["what"], 1 if request.quick else TIMES
    with TemporaryDirectory() as directory:
        events = write_trace(directory, WORKERS, FEWER_EVENTS if request.quick else EVENTS)
        page = Path(directory) / "report.html"
        seconds = [make(directory, page) for _ in range(times if what == "made" else 1)]
        if what != "made":
            seconds = []
            with chromium() as browser:
                for _ in range(times):
                    shown, took = opened(browser, page)
                    seconds.append(took if what == "opened" else zoomed(shown))
                    shown.close()
        note = f"{events:,} events, {page.stat().st_size / 1e6:.1f} MB"
    return result(seconds, note=note)


if __name__ == "__main__":
    play(measure)
