"""The report: findings for people, or for programs.

What was found alike on several hosts stands there once, with the list of them.

Pure; any thread.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from textwrap import wrap
from typing import Any

from dtm.doctor.finding import Finding, Level, would_work
from dtm.doctor.plan import Plan
from dtm.launch.hosts import compress

_WIDTH = 100
_INDENT = 10


def as_text(plan: Plan, findings: Sequence[Finding]) -> str:
    """Return what people read: what is wrong last, where the eye is."""
    order = list(Level)
    groups = sorted(_grouped(findings), key=lambda group: order.index(group[0].level))
    lines = [f"dtm doctor: {plan}", ""]
    for finding, hosts in groups:
        lines += _written(finding, hosts)
    return "\n".join([*lines, "", _sum([finding for finding, _ in groups]), ""])


def as_json(plan: Plan, findings: Sequence[Finding]) -> str:
    """Return what programs read."""
    known: dict[str, Any] = {
        "works": would_work(findings),
        "way": plan.way,
        "workers": plan.workers,
        "hosts": [{"name": host.name, "slots": host.slots} for host in plan.hosts],
        "granted_by": None if plan.granted is None else plan.granted.system,
        "findings": [{**asdict(finding), "level": finding.level.value} for finding in findings],
    }
    return json.dumps(known, indent=2) + "\n"


def _grouped(findings: Sequence[Finding]) -> list[tuple[Finding, list[str]]]:
    """Put together what differs in nothing but the host."""
    groups: dict[tuple[str, Level, str, str], tuple[Finding, list[str]]] = {}
    for finding in findings:
        key = (finding.about, finding.level, finding.found, finding.advice)
        hosts = groups.setdefault(key, (finding, []))[1]
        if finding.host is not None:
            hosts.append(finding.host)
    return list(groups.values())


def _written(finding: Finding, hosts: list[str]) -> list[str]:
    where = f" ({compress(hosts)})" if hosts else ""
    lines = _wrapped(f"{finding.level.value:{_INDENT}}", f"{finding.about}{where}: {finding.found}")
    return lines + (_wrapped(" " * _INDENT + "→ ", finding.advice) if finding.advice else [])


def _wrapped(start: str, text: str) -> list[str]:
    return wrap(
        text,
        _WIDTH,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _sum(findings: Sequence[Finding]) -> str:
    counts = {
        level: sum(finding.level is level for finding in findings)
        for level in (Level.PROBLEM, Level.WARNING)
    }
    said = [
        f"{count} {level.value}" if count == 1 else f"{count} {level.value}s"
        for level, count in counts.items()
        if count
    ]
    verdict = "a run would work" if would_work(findings) else "a run would not work"
    return f"{' and '.join(said) or 'nothing is wrong'}: {verdict}"
