"""The live view: who may see it, that it tells the truth, and that it can be clicked through."""

from __future__ import annotations

import http.client
import json
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dtm.commands import run as command
from dtm.errors import OptionError
from dtm.options import Options
from dtm.trace.history import MOST_LANES, MOST_NAMES, History
from dtm.trace.live_server import MOST_AT_ONCE
from tests import launch
from tests.launch import PROGRAMS, Started, environment
from tests.test_trace_report import CHROMIUMS, FLAGS

PROGRAM = str(PROGRAMS / "watched.py")
PLACES = ("/", "/state", "/metrics")
URL = re.compile(r"live view, on \S+: (http://127\.0\.0\.1:\d+/\?token=\S+)")
SECONDS = 40.0


class View:
    """A view that is served: where, and how to ask it."""

    def __init__(self, program: Started) -> None:
        self.program = program
        program.wait_for_error(URL.pattern)
        self.url = URL.search(program.stderr)[1]
        self.port = urlsplit(self.url).port
        self.token = self.url.partition("token=")[2]

    def ask(
        self, path: str = "/", method: str = "GET", token: str | None = None, **headers: str
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        """Ask with the right token, unless another is given."""
        given = {"Authorization": f"Bearer {self.token if token is None else token}", **headers}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, headers=given)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers

    def raw(self, *lines: str) -> str:
        """Send lines as they are; return the first of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), 20) as connection:
            connection.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode())
            return connection.makefile("rb").readline().decode().strip()

    def state(self, path: str = "/state") -> dict[str, Any]:
        return json.loads(self.ask(path)[1])

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until something holds of the state."""
        deadline = time.monotonic() + SECONDS
        while not holds(state := self.state()):
            assert time.monotonic() < deadline, state
            time.sleep(0.2)
        return state


@contextmanager
def served(launcher: launch.Launcher, end: Path, *words: str) -> Iterator[View]:
    """Run the program until the block ends."""
    with launcher.started(PROGRAM, str(end), *words, env={"DTM_LIVE": "1"}) as program:
        try:
            view = View(program)
            program.wait_for("counted")
            yield view
        finally:
            end.touch()
        assert program.wait() == 0, program.stderr
        assert f"sum {4 * len(str(end))}" in program.stdout
        with pytest.raises(OSError, match=r"[Rr]efused"):
            socket.create_connection(("127.0.0.1", view.port), 5)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    with served(launch.Launcher("local", 2), tmp_path_factory.mktemp("live") / "end") as found:
        yield found


pytestmark = pytest.mark.xdist_group("live")


# Who may see it.


def test_nothing_is_told_without_the_token(view: View) -> None:
    for place in (*PLACES, "/other"):
        for wrong in ("", "x", view.token[:-1], view.token + "x", "ü"):
            with closing(http.client.HTTPConnection("127.0.0.1", view.port, timeout=20)) as asking:
                asking.request("GET", place, headers={"Authorization": f"Bearer {wrong}".encode()})
                answer = asking.getresponse()
                assert answer.status == 401, (place, wrong)
                assert b"dtm_" not in answer.read()
    for query in (
        "",
        "?token=",
        "?token=x",
        f"?token={view.token}&token={view.token}",
        "?token=%ff",
    ):
        line = view.raw(f"GET /state{query} HTTP/1.1", f"Host: localhost:{view.port}")
        assert " 401 " in line, query


def test_the_token_is_taken_from_the_address_or_a_header(view: View) -> None:
    for place in PLACES:
        assert view.ask(place)[0] == 200
        line = view.raw(f"GET {place}?token={view.token} HTTP/1.1", f"Host: localhost:{view.port}")
        assert " 200 " in line, place
    assert view.ask("/other")[0] == 404


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost@evil.example:80",
     "127.0.0.1:", "127.0.0.1:x", "", "[::1", "10.0.0.1:80"],
)  # fmt: skip
def test_a_host_of_others_is_refused(view: View, host: str) -> None:
    assert view.ask("/state", Host=host)[0] == 421


def test_the_host_must_be_there_once(view: View) -> None:
    asked = f"GET /state?token={view.token} HTTP/1.1"
    assert " 421 " in view.raw(asked)
    assert " 421 " in view.raw(asked, "Host: localhost", "Host: localhost")
    for host in (f"127.0.0.1:{view.port}", "localhost:9000", "LOCALHOST", "[::1]:9000", "[::1]"):
        assert " 200 " in view.raw(asked, f"Host: {host}"), host


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_nothing_can_be_changed(view: View, method: str) -> None:
    for place in PLACES:
        status, _, headers = view.ask(place, method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_a_head_has_no_body(view: View) -> None:
    status, body, headers = view.ask("/", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 1000


def test_it_listens_at_the_loopback_address_only(view: View) -> None:
    with pytest.raises(OSError, match=r"[Rr]efused"):
        socket.create_connection(("127.0.0.2", view.port), 5)


def test_the_page_runs_no_script_of_others(view: View) -> None:
    _, body, headers = view.ask("/")
    policy = headers["Content-Security-Policy"]
    nonce = re.search(r"script-src 'nonce-([^']+)'", policy)[1]
    assert body.decode().count(f'<script nonce="{nonce}">') == body.count(b"<script") == 1
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert nonce not in view.ask("/")[1].decode()
    assert b"http" not in body
    for place in PLACES:
        sent = view.ask(place)[2]
        assert (sent["X-Content-Type-Options"], sent["Cache-Control"]) == ("nosniff", "no-store")


def test_strange_requests_do_no_harm(view: View) -> None:
    assert " 400 " in view.raw("GET http://[ HTTP/1.1", "Host: localhost")
    elsewhere = f"GET http://evil.example/?token={view.token} HTTP/1.1"
    assert " 421 " in view.raw(elsewhere, "Host: evil.example")
    assert " 414 " in view.raw("GET /" + "x" * 70_000 + " HTTP/1.1")
    many = "&".join(f"a{i}=1" for i in range(50))
    assert " 400 " in view.raw(f"GET /?{many} HTTP/1.1", "Host: localhost")
    for text in ("-1", "x", "9" * 30, "", "%D9%A3"):
        assert view.state(f"/state?since={text}&first={text}")["first"] == 0
    assert view.state("/state?first=77")["lanes"] == []


def test_silent_connections_do_not_block_it_for_ever(view: View) -> None:
    silent = [
        socket.create_connection(("127.0.0.1", view.port), 5) for _ in range(MOST_AT_ONCE + 8)
    ]
    for each in silent:
        each.close()
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            assert view.ask("/state")[0] == 200
            break
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < deadline
            time.sleep(0.1)


# What it tells.


def counts(view: View) -> dict[tuple[str, str], float]:
    """Return what Prometheus's own parser reads: name and worker, or call."""
    parser = pytest.importorskip("prometheus_client.parser")
    _, body, headers = view.ask("/metrics")
    assert headers["Content-Type"].startswith("text/plain; version=")
    found = {}
    for family in parser.text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            label = sample.labels.get("worker") or sample.labels.get("call") or ""
            found[sample.name, label] = sample.value
    return found


def holding(state: dict[str, Any]) -> int:
    """Return how many workers run an item of the second map."""
    return sum((lane.get("task") or [""])[0].startswith("map(<img") for lane in state["lanes"])


def told_truly(view: View, workers: int) -> None:
    """Check that what is told of the map that is over, and of that under way, is true."""
    view.until(lambda state: holding(state) == workers)
    found = counts(view)
    ranks = [str(rank) for rank in range(workers)]
    assert found["dtm_workers", ""] == workers
    assert sum(found["dtm_items_total", rank] for rank in ranks) == 500
    held = next(label for name, label in found if name == "dtm_call_items")
    assert found["dtm_call_items", held] == 4
    assert found["dtm_call_items_done", held] == 0
    assert sum(found["dtm_steals_total", rank] for rank in ranks) >= 1
    assert sum(found["dtm_grants_total", rank] for rank in ranks) >= 1
    assert all(1e6 < found["dtm_resident_memory_bytes", rank] < 1e10 for rank in ranks)
    assert all(0.0 <= found["dtm_busy_ratio", rank] <= 1.0 for rank in ranks)
    assert all(found["dtm_cpu_seconds_total", rank] > 0.0 for rank in ranks)


def test_prometheus_reads_the_true_counts(view: View) -> None:
    told_truly(view, 2)


@pytest.mark.parametrize("launcher", launch.launchers("mpi-3", "tcp-3"))
def test_other_managers_are_watched_too(launcher: launch.Launcher, tmp_path: Path) -> None:
    with served(launcher, tmp_path / "end") as view:
        told_truly(view, 3)


def test_one_worker_alone_is_watched_too(tmp_path: Path) -> None:
    with served(launch.Launcher("local", 1), tmp_path / "end") as view:
        state = view.until(lambda state: holding(state) == 1)
        assert state["lanes"][0]["items"] == 500
        assert state["calls"][0]["items"] == 4


def test_the_state_says_what_runs_where(view: View) -> None:
    state = view.until(lambda state: holding(state) == 2)
    for lane in state["lanes"]:
        assert lane["place"] == "runs"
        assert 0 <= lane["task"][1] < 4
    rounds = state["rounds"]
    assert [serial for serial, *_ in rounds] == list(range(1, state["serial"] + 1))
    later = view.until(lambda each: each["serial"] > state["serial"])
    since = view.state(f"/state?since={state['serial']}")
    assert since["rounds"][0][0] == state["serial"] + 1
    assert later["lanes"][0]["task"][2] > state["lanes"][0]["task"][2]
    assert [rank for rank, _, _ in since["rounds"][0][2]] == [0, 1]


# When it cannot be.


def test_a_port_that_is_taken_is_told_and_the_run_goes_on() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        words = ["-m", "dtm", "-n", "2", "--live", port, PROGRAM, "/", "fork"]
        done = launch.run([sys.executable, *words], environment(), 60)
    assert done.returncode == 0, done.stderr
    assert f"there is no live view, and the run goes on: port {port}" in done.stderr
    assert done.stdout.startswith("ports")


def test_without_the_client_library_a_sentence_says_what_to_install(tmp_path: Path) -> None:
    with served(launch.Launcher("local", 2), tmp_path / "end", "without") as view:
        assert "pip install 'dtm[live]'" in view.program.stderr
        status, body, _ = view.ask("/metrics")
        assert status == 503
        assert b"pip install 'dtm[live]'" in body
        assert view.state()["workers"] == 2


def test_a_child_that_a_task_forks_lets_go_of_the_port() -> None:
    launcher = launch.Launcher("local", 1)
    done = launcher.run(PROGRAM, "/", "fork", env={"DTM_LIVE": "1"})
    assert (done.returncode, done.stdout) == (0, "ports 1 0\n"), done.stderr


def test_a_run_that_nobody_wants_to_watch_serves_nothing() -> None:
    done = launch.Launcher("local", 1).run(PROGRAM, "/", "fork", env={"DTM_LIVE": "0"})
    assert (done.stdout, done.stderr) == ("ports 0 0\n", "")


# How it is asked for.


@pytest.mark.parametrize(
    ("words", "live", "program"),
    [
        ("--live prog.py --live 9", "1", ["prog.py", "--live", "9"]),
        ("--live 8765 prog.py", "8765", ["prog.py"]),
        ("--live=8765 prog.py", "8765", ["prog.py"]),
        ("-n 2 --live -m prog", "1", ["prog"]),
        ("--li prog.py", "1", ["prog.py"]),
        ("--summary --comm tcp --live --no-tls prog.py -n 3", "1", ["prog.py", "-n", "3"]),
        ("-n2 --live prog.py", "1", ["prog.py"]),
        ("--comm=tcp prog.py --live x", None, ["prog.py", "--live", "x"]),
    ],
)
def test_a_program_is_not_taken_for_the_port(
    words: str, live: str | None, program: list[str]
) -> None:
    from argparse import ArgumentParser

    parser = ArgumentParser()
    command.add_arguments(parser)
    given = parser.parse_args(command.prepare(parser, words.split()))
    assert (given.live, [given.program, *given.arguments]) == (live, program)


@pytest.mark.parametrize("value", ["yes", -1, 70_000, 1.5, None, []])
def test_an_impossible_port_is_refused(value: object) -> None:
    with pytest.raises(OptionError, match="live"):
        Options(live=value)


def test_the_option_and_its_variable() -> None:
    assert Options(live=1).live is True
    assert Options().overridden({"DTM_LIVE": "0"}).live is False
    assert Options().overridden({"DTM_LIVE": "8765"}).live == 8765


# What is kept.


def said(**more: Any) -> dict[str, Any]:
    counters = dict.fromkeys(
        ("items", "queued", "ranges", "memory", "steals_asked", "steals_won", "messages", "bytes"),
        0,
    )
    return {
        **counters,
        "idle": 0.0,
        "place": "runs",
        "task": ("map(f)", 3, 0.5),
        "calls": (),
        **more,
    }


def test_rates_follow_from_two_reports() -> None:
    history = History(["here", "there"], 0.0)
    history.take([(1, 1.0, said(items=10, idle=0.5))], 1.1)
    history.take([(1, 3.0, said(items=50, idle=1.0))], 3.1)
    known = history.known[1]
    assert known.rate == pytest.approx(20.0)
    assert known.busy == pytest.approx(0.75)
    assert history.totals()["rate"] == pytest.approx(20.0)
    assert history.seen(1, 0, 4.0)["rounds"] == [[2, 3.1, [[1, 0.75, 2]]]]
    assert history.seen(0, 0, 4.0)["answering"] == 1


def test_equal_calls_of_several_workers_are_told_together() -> None:
    history = History(["a", "b"], 0.0)
    history.take(
        [
            (0, 1.0, said(calls=(("map(f)", 0, 1, 10, 4), ("map(g)", 1, 2, 8, 1)))),
            (1, 1.0, said(calls=(("map(g)", 1, 1, 4, 2),))),
        ],
        1.0,
    )
    assert history.calls() == [
        {"name": "map(f)", "depth": 0, "calls": 1, "items": 10, "done": 4},
        {"name": "map(g)", "depth": 1, "calls": 3, "items": 12, "done": 3},
    ]


def test_a_large_run_is_shown_in_parts_and_kept_within_bounds() -> None:
    size = 16_384
    history = History(["host"] * size, 0.0)
    for number in range(60):
        ranks = range(number * 300, min(size, number * 300 + 300))
        history.take(
            [(rank, number + 1.0, said(task=(f"map(f{rank})", 0, 0.0))) for rank in ranks], number
        )
    seen = history.seen(0, 128, 60.0)
    assert [lane["rank"] for lane in seen["lanes"]] == list(range(128, 128 + MOST_LANES))
    assert len(seen["names"]) <= MOST_NAMES + 1
    assert len(seen["rounds"]) == 12
    assert len(json.dumps(seen)) < 100_000


# In a browser.


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = next((path for path in CHROMIUMS if Path(path).exists()), None)
    if chromium is None:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=chromium, args=FLAGS)
        yield found
        found.close()


@contextmanager
def opened(browser: Any, view: View, scheme: str = "light") -> Iterator[Any]:
    """Open the page; it may complain of nothing, and ask nothing of others."""
    page = browser.new_page(viewport={"width": 1200, "height": 1000}, color_scheme=scheme)
    complaints: list[str] = []
    own = f"http://127.0.0.1:{view.port}/"
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda told: complaints.append(told.text) if told.type == "error" else None)
    page.on(
        "request",
        lambda asked: None if asked.url.startswith((own, "data:"))
        else complaints.append(asked.url),
    )  # fmt: skip
    page.goto(view.url)
    page.wait_for_selector("body[data-drawn=yes]", timeout=60_000)
    yield page
    assert complaints == []
    page.close()


@pytest.fixture
def page(browser: Any, view: View) -> Iterator[Any]:
    with opened(browser, view) as found:
        yield found


def becomes_true(page: Any, expression: str) -> None:
    """Wait for it; ``wait_for_function`` is what the page's policy forbids."""
    deadline = time.monotonic() + SECONDS
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(100)


def test_the_page_shows_lanes_calls_and_workers_as_they_move(page: Any, view: View) -> None:
    becomes_true(
        page,
        "document.querySelectorAll('#workers tbody tr').length === 2 && "
        "[...document.querySelectorAll('#workers tbody tr')].every(each => "
        "each.cells[2].textContent.startsWith('map(<img'))",
    )
    assert "0 %" in page.locator("#calls tbody tr").first.inner_text()
    assert page.locator("#calls progress").first.get_attribute("max") == "4"
    assert "500" in page.locator("#totals").inner_text()
    before = page.evaluate("serial")
    becomes_true(page, f"serial > {before} && rounds.length > 1")
    drawn = page.evaluate(
        "(() => { const lanes = at('lanes'), pen = lanes.getContext('2d');"
        "const data = pen.getImageData(0, 0, lanes.width, lanes.height).data;"
        "const found = new Set();"
        "for (let i = 0; i < data.length; i += 4)"
        " found.add(data[i] + ' ' + data[i+1] + ' ' + data[i+2]);"
        "return found.has('68 119 170'); })()"
    )
    assert drawn, "the first function has its colour in the lanes"
    assert page.locator("#legend").inner_text().startswith("map(<img") or "main" in (
        page.locator("#legend").inner_text()
    )
    assert view.program.process.poll() is None


def test_names_from_the_program_are_text(page: Any) -> None:
    becomes_true(page, "document.body.textContent.includes('<img src=x')")
    assert page.locator("img").count() == 0
    assert page.evaluate("document.body.dataset.bad") is None


def test_a_click_shows_one_worker_and_another_hides_it(page: Any) -> None:
    assert not page.locator("#one").is_visible()
    page.locator("#workers tbody tr").nth(1).click()
    page.wait_for_selector("#one:not([hidden])", timeout=10_000)
    assert page.locator("#onename").inner_text().startswith("Worker 1 on ")
    assert "put aside" in page.locator("#onefacts").inner_text()
    page.locator("#workers tbody tr").nth(1).click()
    page.wait_for_selector("#one", state="hidden", timeout=10_000)
    page.locator("#lanes").click(position={"x": 300, "y": 5})
    page.wait_for_selector("#one:not([hidden])", timeout=10_000)
    assert page.locator("#onename").inner_text().startswith("Worker 0 on ")


def test_it_can_be_paused(page: Any) -> None:
    page.locator("#pause").click()
    becomes_true(page, "paused && !asking")
    asked: list[str] = []
    page.on("request", lambda each: asked.append(each.url))
    page.wait_for_timeout(2500)
    assert asked == []
    page.locator("#pause").click()
    before = page.evaluate("serial")
    becomes_true(page, f"serial > {before}")
    assert page.locator("#previous").is_disabled()
    assert page.locator("#next").is_disabled()


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_it_is_readable_in_light_and_dark(
    browser: Any, view: View, scheme: str, dark: bool
) -> None:
    with opened(browser, view, scheme) as page:
        shown = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.body).color,"
            " getComputedStyle(document.querySelector('#workers td')).color]"
        )
        paper, ink, cell = (sum(map(int, re.findall(r"\d+", each)[:3])) / 765 for each in shown)
        assert (paper < 0.3) is dark
        assert min(abs(paper - ink), abs(paper - cell)) > 0.6


def test_it_says_when_the_run_has_ended(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page()
    with served(launch.Launcher("local", 2), tmp_path / "end") as view:
        page.goto(view.url)
        page.wait_for_selector("body[data-drawn=yes]", timeout=60_000)
    becomes_true(page, "document.getElementById('state').textContent.includes('has ended')")
    page.close()
