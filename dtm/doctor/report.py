"""Findings, and the report of them: as text for people, as JSON for programs.

A finding is what one check has seen, how bad that is, and what to do about it.  The
text names once what was found alike on several hosts, with the list of the hosts.  The
worst findings come last, next to the prompt of the shell.

Pure; any thread.

Rejected: the logging module's levels.  They grade events, and have no place for advice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from textwrap import wrap
from typing import Any

from dtm.launch.hosts import compress

_WIDTH = 100
_INDENT = 10


class Level(Enum):
    """How bad a finding is, in the order of the report."""

    FINE = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found.

    Attributes:
        about: the thing looked at, in a word or two.
        level: a run works (FINE), works but badly (WARNING), or does not work (PROBLEM).
        found: what was seen, for people.
        advice: what to do, empty where nothing needs doing.
        host: where it was seen, None for the machine where the doctor runs.
        figures: what was measured, for programs.
    """

    about: str
    level: Level
    found: str
    advice: str = ""
    host: str | None = None
    figures: Mapping[str, float] = field(default_factory=dict)

    def at(self, host: str) -> Finding:
        """Return the same finding, seen on a host."""
        return replace(self, host=host)


def fine(about: str, found: str, **figures: float) -> Finding:
    """Return a finding that all is well."""
    return Finding(about, Level.FINE, found, figures=figures)


def warning(about: str, found: str, advice: str, **figures: float) -> Finding:
    """Return a finding that a run would work badly."""
    return Finding(about, Level.WARNING, found, advice, figures=figures)


def problem(about: str, found: str, advice: str, **figures: float) -> Finding:
    """Return a finding that a run would not work."""
    return Finding(about, Level.PROBLEM, found, advice, figures=figures)


def would_work(findings: Iterable[Finding]) -> bool:
    """Whether a run would work, by these findings."""
    return all(finding.level is not Level.PROBLEM for finding in findings)


def as_json(plan: Mapping[str, Any], findings: Sequence[Finding]) -> str:
    """Return the report for programs; ``plan`` goes into it as it is."""
    listed = [{**asdict(finding), "level": finding.level.value} for finding in findings]
    known = {"works": would_work(findings), **plan, "findings": listed}
    return json.dumps(known, indent=2) + "\n"


def as_text(plan: str, findings: Sequence[Finding]) -> str:
    """Return the report for people."""
    order = list(Level)
    groups = sorted(_grouped(findings), key=lambda group: order.index(group[0].level))
    lines = [f"dtm doctor: {plan}", ""]
    for finding, hosts in groups:
        where = f" ({compress(hosts)})" if hosts else ""
        start = f"{finding.level.value:{_INDENT}}"
        lines += _wrapped(start, f"{finding.about}{where}: {finding.found}")
        lines += _wrapped(" " * _INDENT + "→ ", finding.advice)
    return "\n".join([*lines, "", _verdict([finding for finding, _ in groups]), ""])


def _grouped(findings: Sequence[Finding]) -> list[tuple[Finding, list[str]]]:
    """Put together the findings that differ in nothing but the host."""
    groups: dict[tuple[str, Level, str, str], tuple[Finding, list[str]]] = {}
    for finding in findings:
        key = (finding.about, finding.level, finding.found, finding.advice)
        hosts = groups.setdefault(key, (finding, []))[1]
        if finding.host is not None:
            hosts.append(finding.host)
    return list(groups.values())


def _wrapped(start: str, text: str) -> list[str]:
    return wrap(
        text,
        _WIDTH,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _verdict(findings: Sequence[Finding]) -> str:
    said = []
    for level in (Level.PROBLEM, Level.WARNING):
        count = sum(finding.level is level for finding in findings)
        if count:
            said.append(f"{count} {level.value}{'s' if count > 1 else ''}")
    verdict = "a run would work" if would_work(findings) else "a run would not work"
    return f"{' and '.join(said) or 'nothing is wrong'}: {verdict}"
