"""What a simulated run gives back.

Threads: one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dtm.testing.faults import Fault


@dataclass
class Report:
    """The figures of one simulated run.  Times are virtual seconds.

    Attributes:
        workers: how many there were.
        makespan: from the start of ``main`` to its return.
        work: seconds of task bodies within the makespan, at speed 1.
        capacity: sum of the workers' speeds; where they share cores and bodies need one, the part
            of it that the cores allow.
        executed: tasks whose results were handed in.
        messages, bytes: by kind of message, of those sent while ``main`` ran.
        root_messages: those of them sent or received by the root.
        settling: messages until the idle workers fell silent, before ``main`` began.
        shutdown: messages of all kinds by workers that had been told to stop.
        late: messages by the others after ``main`` had returned, before they were told.
        steals_asked, steals_won: requests, and those that brought work, while ``main`` ran.
        spread: until every worker had begun a task; None if one never did.
        idle: seconds of the makespan in which each worker ran no task, or waited for a core.
        neighbourhood: the most entries that a worker's balancing state had at any time: reports,
            lifelines on both sides, requests that are out.
        events: how many there were.
        trace: hash of all events: when, at which worker, and what; of a message also its sender,
            its kind and its size.  Same seed and same code, same hash.
        failure: what ``main`` raised.
        lost: what happened to a worker, if the root learned of its loss when ``main`` had
            returned; it has taken nothing with it.
        unstruck: faults that were to strike after the last event, and so did not.
    """

    workers: int
    makespan: float = 0.0
    work: float = 0.0
    capacity: float = 0.0
    executed: int = 0
    messages: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    root_messages: int = 0
    settling: int = 0
    shutdown: int = 0
    late: int = 0
    steals_asked: int = 0
    steals_won: int = 0
    spread: float | None = None
    idle: list[float] = field(default_factory=list)
    neighbourhood: int = 0
    events: int = 0
    trace: str = ""
    failure: BaseException | None = None
    lost: str | None = None
    unstruck: tuple[Fault, ...] = ()

    @property
    def efficiency(self) -> float:
        """Work done over the capacity that was there for the makespan."""
        return self.work / (self.capacity * self.makespan) if self.makespan else 1.0

    @property
    def total_messages(self) -> int:
        """Messages of all kinds while ``main`` ran."""
        return sum(self.messages.values())

    def __str__(self) -> str:
        spread = "never" if self.spread is None else f"{self.spread * 1e3:.3f} ms"
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.messages.items()))
        return (
            f"{self.workers} workers: {self.makespan:.6f} s, efficiency {self.efficiency:.4f}, "
            f"spread {spread}\n"
            f"  {self.total_messages} messages ({kinds}), {self.root_messages} of the root's; "
            f"{self.settling} until silence before, {self.shutdown} to shut down, "
            f"{self.late} late\n"
            f"  {self.steals_won} of {self.steals_asked} requests won; {self.executed} tasks; "
            f"{self.events} events, trace {self.trace}"
            + "".join(f"\n  {fault!r} did not strike" for fault in self.unstruck)
        )
