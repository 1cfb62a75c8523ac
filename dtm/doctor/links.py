"""What was measured between workers, and whether that is what a run needs.

Pure; any thread.
"""

from __future__ import annotations

from dtm.doctor.exchange import Exchanged, Link
from dtm.doctor.finding import Finding, fine, problem, warning

_SLOWEST_TRIP = {True: 1e-3, False: 10e-3}  # seconds, by whether it is the same machine
_LEAST_BANDWIDTH = {True: 100e6, False: 20e6}  # bytes a second


def judge(exchanged: Exchanged, manager: str) -> list[Finding]:
    """Judge what came of an exchange over a communication manager."""
    found = [_link(link, manager) for link in exchanged.links]
    if exchanged.error:
        found.append(
            problem(
                "exchange",
                f"workers could not exchange messages by {manager}: {exchanged.error}",
                "look whether a firewall or a container keeps them apart; the lines above may "
                "say why",
            )
        )
    elif not found:
        found.append(fine("exchange", "there is one worker alone, which talks to nobody"))
    return found


def _link(link: Link, manager: str) -> Finding:
    where = "on this machine" if link.near else f"to {link.host}"
    said = (
        f"{where} by {manager}: {link.round_trip * 1e6:.0f} µs there and back, "
        f"{_rate(link.bandwidth)}"
    )
    figures = {"round_trip": link.round_trip, "bandwidth": link.bandwidth}
    if link.round_trip > _SLOWEST_TRIP[link.near]:
        advice = "are the cores shared with other programs? dtm will send large pieces of work only"
        return warning("exchange", said, advice, **figures)
    if link.bandwidth < _LEAST_BANDWIDTH[link.near]:
        advice = "large arguments and results will take long: is the fast network in use?"
        return warning("exchange", said, advice, **figures)
    return fine("exchange", said, **figures)


def _rate(bandwidth: float) -> str:
    return f"{bandwidth / 1e9:.1f} GB/s" if bandwidth >= 1e9 else f"{bandwidth / 1e6:.0f} MB/s"
