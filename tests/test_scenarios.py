"""Scenarios: small situations as text, and what must be seen in them.

Each file of ``tests/scenarios`` says what it is about, how the world is, what ``main`` does
and, below ``---``, every message that is sent and what becomes of ``main``, with times in
milliseconds.  A difference is shown as a diff.  After a change that is meant,
``DTM_REWRITE_SCENARIOS=1`` writes down what is seen now; read the diff before you commit it.

The language of ``main``: ``3ms`` works, ``map(4 x 2ms)`` maps over four leaves, ``map(2 x (1ms
map(3 x 1ms)))`` over two tasks that do the same, ``map(1ms, fail, 2ms)`` over different ones.
An unknown setting or fault is an error that names the file, the line and what there is.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtm.core.messages import Cancel, Grant, Refusal, Results, StealRequest
from dtm.errors import DtmError
from dtm.testing import (
    Crawl,
    Death,
    Delay,
    Fault,
    Freeze,
    Network,
    Script,
    Simulation,
    Suspicion,
)
from dtm.testing.mail import Mail
from dtm.testing.simulated_worker import Simulated

FILES = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))
SETTINGS = {"workers", "speeds", "seed", "patience", "host", "known", "relay", "main", "fault"}
FAULTS = {
    "dies": "dies RANK EVENT",
    "suspected": "suspected RANK EVENT",
    "freezes": "freezes RANK EVENT MILLISECONDS",
    "crawls": "crawls RANK EVENT TIMES",
    "slow": "slow FROM TO MILLISECONDS",
}
TOKEN = re.compile(r"\s*(\d+(?:\.\d+)?ms|\d+|map|fail|x|[(),])")


class Parser:
    """Reads what ``main`` does."""

    def __init__(self, text: str) -> None:
        self.tokens = TOKEN.findall(text)
        if unread := TOKEN.sub("", text).strip():
            raise ValueError(
                f"cannot read {unread!r}; there are: 3ms, map(...), fail, 4 x ..., (...)"
            )

    def peek(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def take(self, expected: str = "") -> str:
        token = self.tokens.pop(0)
        assert not expected or token == expected, f"{expected} expected, {token} found"
        return token

    def steps(self) -> Iterator[Any]:
        while self.peek() not in ("", ")", ","):
            token = self.take()
            if token == "map":
                self.take("(")
                yield list(self.items())
                self.take(")")
            elif token == "fail":
                yield ValueError("planned")
            else:
                yield float(token.removesuffix("ms")) / 1e3

    def items(self) -> Iterator[Any]:
        while True:
            count = 1
            if self.peek().isdigit():
                count = int(self.take())
                self.take("x")
            one = self.item()
            yield from [one] * count
            if self.peek() != ",":
                return
            self.take(",")

    def item(self) -> Any:
        if self.peek() == "(":
            self.take("(")
            steps = list(self.steps())
            self.take(")")
        else:
            steps = list(self.steps())
        return steps[0] if len(steps) == 1 and isinstance(steps[0], float) else Script(*steps)


def fault(text: str) -> Fault:
    """Read one fault."""
    kind, *words = text.split()
    if kind not in FAULTS:
        raise ValueError(f"unknown fault {kind!r}; there are: {', '.join(FAULTS.values())}")
    if len(words) != len(FAULTS[kind].split()) - 1:
        raise ValueError(f"{text!r} should be: {FAULTS[kind]}")
    first, second, last = (float(word) for word in [*words, "0"][:3])
    if kind == "dies":
        return Death(int(second), int(first))
    if kind == "suspected":
        return Suspicion(int(second), int(first))
    if kind == "freezes":
        return Freeze(int(second), int(first), last / 1e3)
    if kind == "crawls":
        return Crawl(int(second), int(first), last)
    return Delay(last / 1e3, source=int(first), to=int(second))


def shown(mail: Mail) -> str:
    """Say a message in words."""
    message = mail.message
    if isinstance(message, StealRequest):
        weight = f" for {message.weight}" if message.weight > 1 else ""
        return ("waits here" if message.stays else "asks for work") + weight
    if isinstance(message, Grant):
        return "gives " + ", ".join(
            f"{part.call.owner}:{part.call.key}[{part.lo}, {part.hi})" for part in message.parts
        )
    if isinstance(message, Refusal):
        return "has nothing"
    if isinstance(message, Results):
        return "results " + ", ".join(
            f"{segment.key}[{segment.lo}, {segment.lo + len(segment.values)})"
            + (" and a failure" if segment.failure else "")
            for segment in message.segments
        )
    if isinstance(message, Cancel):
        return f"cancels {message.owner}:{message.key} from {message.limit}"
    return type(message).__name__.lower()


def play(settings: dict[str, list[str]]) -> list[str]:
    """Run a scenario; return what is seen."""

    def number(name: str, default: float) -> float:
        return float(settings.get(name, [str(default)])[0])

    workers = int(number("workers", 2))
    speeds = [float(word) for word in settings.get("speeds", ["1 " * workers])[0].split()]
    known = settings.get("known")
    simulation = Simulation(
        workers,
        Script(*Parser(settings["main"][0]).steps()),
        speeds=speeds,
        seed=int(number("seed", 1)),
        patience=number("patience", 0.0) / 1e3,
        network=Network(host=int(number("host", 64)), seconds_a_byte=0.0),
        known=float(known[0].removesuffix("ms")) / 1e3 if known else None,
        faults=[fault(text) for text in settings.get("fault", [])],
        relay_from=int(number("relay", 512)),
    )
    world = simulation.world
    lines: list[str] = []
    post = world.post

    def spy(sender: Simulated, to: int, mail: Mail) -> None:
        when = f"{sender.clock * 1e3:9.3f}"
        lines.append(f"{when}  {sender.rank} to {to}: {shown(mail)}")
        post(sender, to, mail)

    world.post = spy  # type: ignore[method-assign]
    try:
        report = simulation.run(20_000)
    except DtmError as error:
        return [*lines, f"{type(error).__name__}: {error}"]
    ending = "returns" if report.failure is None else f"raises {report.failure!r}"
    tasks = f"{report.executed} tasks"
    return [*lines, f"main {ending} after {report.makespan * 1e3:.3f} ms, {tasks}"]


def read(path: Path) -> tuple[str, dict[str, list[str]], list[str]]:
    """Return the head of a scenario as text, its settings and what must be seen."""
    head, _, seen = path.read_text(encoding="utf-8").partition("---\n")
    settings: dict[str, list[str]] = {}
    for number, line in enumerate(head.splitlines(), 1):
        if line.startswith("#") or not line.strip():
            continue
        try:
            name, value = read_line(line)
        except ValueError as error:
            raise ValueError(f"{path.name}, line {number}: {error}") from error
        settings.setdefault(name, []).append(value)
    if "main" not in settings:
        raise ValueError(f"{path.name}: there is no line `main: ...`")
    return head, settings, seen.splitlines()


def read_line(line: str) -> tuple[str, str]:
    """Read one line of the head."""
    name, colon, value = (part.strip() for part in line.partition(":"))
    if not colon or name not in SETTINGS:
        raise ValueError(f"unknown setting {name!r}; there are: {', '.join(sorted(SETTINGS))}")
    if not value:
        raise ValueError(f"{name} has no value")
    if name == "fault":
        fault(value)
    elif name == "main":
        Parser(value)
    return name, value


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_what_must_be_seen_is_seen(path: Path) -> None:
    head, settings, expected = read(path)
    assert head.startswith("# "), "say what it is about"
    seen = play(settings)
    if os.environ.get("DTM_REWRITE_SCENARIOS"):
        path.write_text(head + "---\n" + "\n".join(seen) + "\n", encoding="utf-8")
        return
    diff = difflib.unified_diff(expected, seen, "must be seen", "is seen", lineterm="")
    assert seen == expected, "\n".join([f"{path.name}: {head.splitlines()[0]}", *diff])


def test_there_are_scenarios_enough() -> None:
    assert len(FILES) >= 20


WRONG = [
    ("workrs: 5", "line 2: unknown setting 'workrs'; there are: fault, host, known, main"),
    ("workers 5", "line 2: unknown setting 'workers 5'"),
    ("workers:", "line 2: workers has no value"),
    ("fault: explodes 1 30", "line 2: unknown fault 'explodes'; there are: dies RANK EVENT"),
    ("fault: dies 1", "line 2: 'dies 1' should be: dies RANK EVENT"),
    ("fault: dies one 30", "line 2: could not convert string to float: 'one'"),
    ("fault: dies 1 0", "line 2: event must be"),
    ("main: mop(3 x 1ms)", "line 2: cannot read 'mop'"),
    ("# main is missing", "there is no line `main"),
]


@pytest.mark.parametrize(("line", "message"), WRONG, ids=[line for line, _ in WRONG])
def test_what_a_scenario_gets_wrong_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.txt"
    path.write_text(f"# A test.\n{line}\n---\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"wrong\.txt.*" + re.escape(message)):
        read(path)
