"""What a batch system has granted, against the run that is planned.

Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from dtm.doctor.finding import Finding, fine, warning
from dtm.launch.allocation import Allocation
from dtm.launch.hosts import Host, compress


def judge(granted: Allocation | None, hosts: Sequence[Host], workers: int) -> list[Finding]:
    """Judge whether a run keeps to what was granted; no hosts are this machine alone."""
    if granted is None:
        return []
    slots = sum(host.slots for host in granted.hosts)
    named = compress(host.name for host in granted.hosts)
    has = f"{granted.system} has granted {slots} slots on {named}"
    others = _not_granted(granted, hosts)
    if others:
        return [
            warning(
                "allocation",
                f"{has}, which {compress(others)} does not belong to",
                "such hosts may refuse you, or be in use by others: leave --hosts out, and a run "
                "takes what was granted",
            )
        ]
    if workers > slots:
        return [
            warning(
                "allocation",
                f"{has}, and the run would have {workers} workers",
                f"take no more than was granted: -n {slots}, or DTM_WORKERS={slots}",
                slots=slots,
            )
        ]
    return [fine("allocation", has, slots=slots)]


def _not_granted(granted: Allocation, hosts: Sequence[Host]) -> list[str]:
    """Return the hosts that are not granted; names may have a domain or not."""
    known = {_short(host.name) for host in granted.hosts}
    return [host.name for host in hosts if not host.is_local and _short(host.name) not in known]


def _short(name: str) -> str:
    is_address = ":" in name or name.replace(".", "").isdigit()
    return name if is_address else name.lower().partition(".")[0]
