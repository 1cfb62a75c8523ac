"""Clocks: how far a host's is from the one here.

dtm itself never compares the clocks of two machines; files and certificates do.

Pure; any thread.
"""

from __future__ import annotations

from dtm.doctor.finding import Finding, fine, warning

_MOST = 1.0


def judge(offset: float, uncertainty: float) -> Finding:
    """Judge by how many seconds a clock is ahead, known to within the uncertainty."""
    found = f"{abs(offset):.3f} s {'ahead' if offset >= 0 else 'behind'}, ±{uncertainty:.3f} s"
    if abs(offset) - uncertainty <= _MOST:
        return fine("clock", found, offset=offset, uncertainty=uncertainty)
    return warning(
        "clock",
        found,
        "times of files and certificates will not fit: have the clock set by NTP (chrony, say)",
        offset=offset,
        uncertainty=uncertainty,
    )
