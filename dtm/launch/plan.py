"""Who runs where: ranks on hosts, and which agent starts which.

Ranks are counted along the hosts in their order, so rank 0, the root, is the first
slot of the first host.  The launcher starts an agent on each host by a connection
of its own, up to ``FAN_OUT``; of more hosts it starts the first of each group, and
that one starts the rest of its group in the same way.  Hosts that are this machine
stand directly below the launcher.

Read-only; any thread.

Rejected: one tree of fixed degree.  Its depth costs seconds (each level is a login),
and a few dozen connections cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dtm.errors import OptionError
from dtm.launch.hosts import Host

FAN_OUT = 64


@dataclass(frozen=True, slots=True)
class Site:
    """A host's part in a run.

    Attributes:
        host: the machine, with as many slots as it has workers here.
        first: the rank of its first worker; the others follow.
        below: the sites whose agents are started from here.
    """

    host: Host
    first: int
    below: tuple[Site, ...] = ()

    @property
    def ranks(self) -> range:
        """The ranks of this host."""
        return range(self.first, self.first + self.host.slots)

    def all(self) -> Iterator[Site]:
        """Give this site and all below it."""
        yield self
        for site in self.below:
            yield from site.all()

    def written(self) -> dict[str, Any]:
        """Return what :func:`read` makes this from."""
        return asdict(self)


def read(written: dict[str, Any]) -> Site:
    """Return the site that was written."""
    below = tuple(read(site) for site in written["below"])
    return Site(Host(**written["host"]), written["first"], below)


def placed(hosts: Sequence[Host], workers: int | None = None) -> list[Site]:
    """Give ranks to hosts, to so many workers of theirs if that is said.

    Raises:
        OptionError: there are not so many slots.
    """
    slots = sum(host.slots for host in hosts)
    if workers is not None and workers > slots:
        raise OptionError(f"{workers} workers are more than the {slots} slots of the hosts")
    left = slots if workers is None else workers
    sites: list[Site] = []
    for host in hosts:
        taken = min(left, host.slots)
        if taken:
            part = Host(host.name, taken, host.user, host.port, host.python)
            sites.append(Site(part, (slots if workers is None else workers) - left))
        left -= taken
    return sites


def check_ports(workers: int, name: str, ports: tuple[int, int] | None) -> None:
    """Look whether a range has a port for each worker of a host.

    Raises:
        OptionError: it has not.
    """
    if ports is None:
        return
    low, high = ports
    there = high - low + 1
    if workers > there:
        raise OptionError(
            f"the {workers} workers on {name} need a port each, and {low}-{high} has {there}; "
            "give a wider range of ports (--ports, DTM_PORTS)"
        )


def check_all_ports(sites: Sequence[Site], ports: tuple[int, int] | None) -> None:
    """Look whether a range has a port for each worker of each host.

    Raises:
        OptionError: it has not; the message names the host.
    """
    local = [site.host.slots for site in sites if site.host.is_local]
    check_ports(sum(local), "localhost", ports)
    for site in sites:
        check_ports(site.host.slots, site.host.name, ports)


def branches(sites: Sequence[Site], fan_out: int = FAN_OUT) -> list[Site]:
    """Put sites below each other so that none starts more than ``fan_out``."""
    if len(sites) <= fan_out:
        return list(sites)
    each, extra = divmod(len(sites), fan_out)
    heads: list[Site] = []
    start = 0
    for number in range(fan_out):
        end = start + each + (number < extra)
        head, *rest = sites[start:end]
        heads.append(Site(head.host, head.first, tuple(branches(rest, fan_out))))
        start = end
    return heads


def names(sites: Sequence[Site], here: str = "localhost") -> list[str]:
    """Return the name of the host of each rank; ``here`` is that of this machine."""
    return [here if site.host.is_local else site.host.name for site in sites for _ in site.ranks]
