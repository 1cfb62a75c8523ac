"""The report: one HTML file that needs nothing else, read in light and in dark.

Whatever comes from the program (names of functions, items, hosts) is escaped; the data of the
charts stand in blocks of JSON in which no tag can end.

The text is there at once; charts that are in sight are drawn first, the others when they come into
sight or the browser has nothing else to do.

What can go wrong: ``plotly`` is not there.

Threads: any.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import IO, TYPE_CHECKING, Any

from dtm.errors import TraceError
from dtm.run.advice import advice, seconds
from dtm.trace import charts
from dtm.trace.findings import Findings
from dtm.trace.recorded import counted

if TYPE_CHECKING:
    from dtm.trace.prediction import Measured, Prediction

MOST_SLOW = 20

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --soft: #667; --line: #d5d9de;
  --strong: #0b5394; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6ea; --paper: #15181c; --soft: #9aa3ad;
  --line: #3a4048; --strong: #7db7ee; } }
body { color: var(--ink); background: var(--paper); font: 15px/1.5 system-ui, sans-serif;
  max-width: 1180px; margin: 1.5em auto; padding: 0 1em; }
h1 { font-size: 1.5em; margin-bottom: 0; } h2 { font-size: 1.15em; margin-top: 2em; }
.facts, .note { color: var(--soft); } ol.advice { font-size: 1.1em; padding-left: 1.3em; }
ol.advice li:first-child { font-weight: 600; color: var(--strong); }
table { border-collapse: collapse; } td, th { padding: .2em .8em; border-bottom: 1px solid
  var(--line); text-align: right; vertical-align: top; } td:first-child, th:first-child,
  .text { text-align: left; } .text { overflow-wrap: anywhere; }
details { max-width: 46em; text-align: left; } summary { cursor: pointer; }
.chart { width: 100%; overflow-x: auto; }
"""
_SCRIPT = """
const idle = window.requestIdleCallback || setTimeout;
const blocks = [...document.querySelectorAll('script[type="application/json"]')];
const drawn = new Set();
function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const [ink, line] = ['--ink', '--line'].map(name => style.getPropertyValue(name).trim());
  const axis = {automargin: true, gridcolor: line, zerolinecolor: line, linecolor: line};
  const found = {paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
    font: {color: ink, family: 'system-ui, sans-serif'},
    margin: {l: 90, r: 20, t: 20, b: 45}, ...layout};
  for (const name of ['xaxis', 'yaxis', 'yaxis2'])
    if (layout[name]) found[name] = {...axis, ...layout[name]};
  return found;
}
function draw(block) {
  const chart = block.previousElementSibling, zooms = chart.id === 'timeline';
  const figure = JSON.parse(block.textContent);
  Plotly.react(chart, figure.data, themed(figure.layout),
    {responsive: true, displaylogo: false, displayModeBar: zooms ? 'hover' : false,
      scrollZoom: zooms});
  drawn.add(block);
  chart.dataset.drawn = 'yes';
  if (drawn.size === blocks.length) document.body.dataset.drawn = 'yes';
}
function rest() {
  const block = blocks.find(each => !drawn.has(each));
  if (block) { draw(block); idle(rest); }
}
const eyes = new IntersectionObserver(entries => {
  for (const {isIntersecting, target} of entries)
    if (isIntersecting && !drawn.has(target.nextElementSibling)) draw(target.nextElementSibling);
  idle(rest);
});
for (const block of blocks) eyes.observe(block.previousElementSibling);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => drawn.forEach(draw));
"""


def write_report(findings: Findings, file: IO[str], baseline: Findings | None = None) -> None:
    """Write the report of a run; ``baseline`` is the same program on fewer workers."""
    title = f"{counted(findings.figures.workers, 'worker')}, {seconds(findings.figures.duration)}"
    figure, note = charts.timeline(findings)
    body = [
        f"<h1>A run of dtm: {escape(title)}</h1>", _facts(findings),
        "<h2>What to change</h2>", _advice(findings),
        "<h2>Where the core time went</h2>", _chart("places", charts.core_seconds(findings)),
        _definitions(charts.where_it_went(findings)),
        "<h2>Workers over time</h2>",
        ("<p class=note>Drag to zoom, double-click for the whole; a click on a name in the legend "
        f"hides it. {escape(note)}</p>"),
        _chart("timeline", figure),
        "<h2>Efficiencies</h2>", _definitions(_efficiencies(findings, baseline)),
        "<h2>Functions</h2>", _functions(findings),
        _chart("lengths", charts.lengths(findings)),
        "<h2>Slowest items</h2>", _slowest(findings),
        "<h2>Who stole from whom</h2>", _chart("steals", charts.steals(findings)),
        "<h2>Workers</h2>", _workers(findings),
    ]  # fmt: skip
    _write_page(title, body, file)


def write_prediction(predictions: Sequence[Prediction], measured: Measured, file: IO[str]) -> None:
    """Write a page with what is predicted for numbers of workers."""
    body = [
        "<h1>Prediction for more workers</h1>",
        (
            f"<p class=facts>from a run of {counted(measured.workers, 'worker')} that took "
            f"{seconds(measured.seconds)}</p>"
        ),
        "<h2>Speed-up over the recorded run</h2>",
        _chart("speedup", charts.speed_up(predictions, measured)),
        "<h2>Efficiency</h2>",
        _chart("efficiency", charts.efficiency(predictions)),
        _table(
            ["workers", "time", "efficiency"],
            [[str(n), seconds(time), f"{share:.0%}"] for n, time, share in predictions],
        ),
    ]
    _write_page("prediction", body, file)


def _write_page(title: str, body: list[str], file: IO[str]) -> None:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise TraceError("pages need: pip install 'dtm[report]'") from None
    file.write(
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width">'
        f"<title>dtm: {escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
    )
    file.write("\n".join(body))
    file.write(f"\n<script>{get_plotlyjs()}</script>\n<script>{_SCRIPT}</script></body></html>\n")


def _chart(name: str, figure: dict[str, Any]) -> str:
    from plotly.io import to_json

    data = to_json(figure, validate=False).replace("<", "\\u003c")
    return (
        f'<div class=chart id="{name}" style="min-height: {figure["layout"]["height"]}px"></div>'
        f'<script type="application/json" data-chart="{name}">{data}</script>'
    )


def _facts(findings: Findings) -> str:
    run = findings.run
    hosts = len(set(run.hosts.values()))
    facts = [counted(len(run.events), "event"), counted(hosts, "host"),
             f"efficiency {findings.figures.efficiency:.0%}", *run.gaps]  # fmt: skip
    if len(run.clocks) > 1:
        worst = max(clock.error for clock in run.clocks.values())
        facts.append(f"clocks of {len(run.clocks)} machines agree within {seconds(worst)}")
    return f"<p class=facts>{escape('; '.join(facts))}</p>"


def _advice(findings: Findings) -> str:
    said = "".join(f"<li>{escape(each)}</li>" for each in advice(findings.figures))
    return f"<ol class=advice>{said}</ol>"


def _definitions(rows: list[tuple[str, float, str]]) -> str:
    """Return a table of shares, each with its definition a click away."""
    lines = (
        f"<tr><td><details><summary>{escape(name)}</summary>{escape(said)}</details></td>"
        f"<td>{share:.1%}</td></tr>"
        for name, share, said in rows
    )
    return f"<table>{''.join(lines)}</table>"


def _efficiencies(findings: Findings, baseline: Findings | None) -> list[tuple[str, float, str]]:
    pop = findings.pop
    rows = [
        ("parallel efficiency", pop.parallel,
         ("The mean of the workers' useful seconds (items, and main itself) by the duration: load "
         "balance times communication efficiency.")),
        ("load balance", pop.balance,
         "The mean of the workers' useful seconds by their maximum. Low: some have more to do."),
        ("communication efficiency", pop.communication,
         ("The maximum of the workers' useful seconds by the duration: serialisation times "
         "transfer.")),
        ("serialisation", pop.serialisation,
         ("What communication efficiency would be if messages cost nothing. Low: even the busiest "
         "worker waits, for others or for main.")),
        ("transfer", pop.transfer,
         ("What is left of the duration without the time that the busiest worker spends on "
         "messages and on dtm's own work. Low: items are too small, or they are given too much.")),
    ]  # fmt: skip
    if baseline is not None:
        scaling = float(baseline.useful.sum()) / max(float(findings.useful.sum()), 1e-9)
        rows.append(
            ("computation scaling", scaling,
             ("Useful seconds of the run that this one is compared with by those of this one. Low: "
             "the same work takes more core time here, as when cores share memory or caches."))
        )  # fmt: skip
        rows.append(
            ("global efficiency", scaling * pop.parallel,
             "Parallel efficiency times computation scaling.")
        )  # fmt: skip
    return rows


def _table(head: list[str], rows: list[list[str]], texts: tuple[int, ...] = ()) -> str:
    def line(tag: str, cells: list[str]) -> str:
        said = (
            f"<{tag}{' class=text' if place in texts else ''}>{escape(each)}</{tag}>"
            for place, each in enumerate(cells)
        )
        return f"<tr>{''.join(said)}</tr>"

    return f"<table>{line('th', head)}{''.join(line('td', row) for row in rows)}</table>"


def _functions(findings: Findings) -> str:
    functions = findings.figures.functions
    head = ["function", "items", "seconds", "mean", "deviation", "longest", "at item"]
    rows = [
        [
            name, f"{each.items:,.0f}", f"{each.seconds:.3f}", seconds(each.mean),
            seconds(each.deviation), seconds(each.longest), f"{each.longest_at:.0f}",
        ]
        for name, each in ((name, functions[name]) for name in charts.by_seconds(findings))
    ]  # fmt: skip
    return _table(head, rows)


def _slowest(findings: Findings) -> str:
    slow = findings.run.slow[:MOST_SLOW]
    if not slow:
        return "<p class=note>No item took a millisecond.</p>"
    head = ["function", "item", "seconds", "worker", "argument"]
    rows = [
        [each["function"], str(each["index"]), seconds(each["seconds"]), str(each["rank"]),
         each["item"]]
        for each in slow
    ]  # fmt: skip
    return _table(head, rows, texts=(4,))


def _workers(findings: Findings) -> str:
    run, figures = findings.run, findings.figures
    head = ["worker", "host", "useful", "nothing to run", "items stolen", "items given"]
    rows = [
        [
            str(rank), run.hosts[rank], seconds(float(findings.useful[place])),
            seconds(figures.resting[rank]), f"{findings.stolen[:, place].sum():.0f}",
            f"{findings.stolen[place].sum():.0f}",
        ]
        for place, rank in enumerate(run.ranks)
    ]  # fmt: skip
    return _table(head, rows, texts=(1,))
