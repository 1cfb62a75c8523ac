"""A worker in virtual time: the production scheduler, driven as `Worker` and `Runner` drive it.

Task bodies take virtual time instead of running, so this stands in for the real
runner.  How a task waits is decided by the same code (:mod:`dtm.core.wait_policy`).  What that
takes is written again: tasks that have become ready go before new work; results leave when
a range is exhausted, before a worker turns idle and before a task parks.  What the real
runner does with stacks of the interpreter is done by :mod:`dtm.testing.simulated_runner`.

A worker that computes reads its inbox only ``delay()`` after a message came, for
that is how long the load-balancer thread waits for the interpreter.  What it does
then takes time from the task that runs.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Sequence

from dtm.core.messages import Message, Segment, Stopped
from dtm.core.scheduler import Effect, End, Print, Resume, Scheduler, Send, WakeAt
from dtm.run.outbox import MOST_SEGMENTS, RESULTS_SECONDS
from dtm.testing.act_invariants import addressed
from dtm.testing.cores import Cores
from dtm.testing.mail import Mail
from dtm.testing.simulated_runner import NEVER, SimulatedRunner, State, Surroundings


class Simulated(SimulatedRunner):
    """One worker of a simulated run."""

    def __init__(
        self,
        world: Surroundings[Simulated],
        scheduler: Scheduler,
        speed: float,
        cores: Cores | None = None,
    ) -> None:
        super().__init__(world, scheduler, speed, cores)
        self.service_at = NEVER
        self.waking = NEVER
        self.heard: dict[int, int] = {}

    # Effects.

    def perform(self, effects: Sequence[Effect]) -> None:
        """Carry out effects."""
        for effect in effects:
            if type(effect) is Send:
                self.send(effect.to, effect.message)
            elif type(effect) is Resume:
                listeners, effect.call.listeners = effect.call.listeners, None
                for listener in listeners or ():
                    listener()
            elif type(effect) is WakeAt:
                if effect.when != self.timer:
                    self.timer = effect.when
                    self.world.alarm(effect.when, self, "timer")
            elif type(effect) is End:
                self.world.ended(self, effect.reason)
            else:
                assert type(effect) is Print

    def send(self, to: int, message: Message) -> None:
        """Send a message: it leaves when the processor has done its part."""
        if type(message) is Stopped:
            self.flush()
        load = self.scheduler.load(self.clock)
        addressed(self.rank, self.scheduler.size, to, message)
        if self.act_checker is not None:
            self.act_checker.says(to, load, message)
        mail = Mail(load, message, self.rank)
        if self.world.costly:
            packed = mail.packed(to)[0]
            self.spend(self.sending + self.slowness * self.world.network.item_send * packed)
        else:
            self.clock += self.sending
        self.world.post(self, to, mail)

    # Messages in.

    def arrived(self, now: float) -> None:
        """A message has come into the inbox."""
        if self.state is State.RESTING:
            if self.world.sleeps:
                self._rouse(now)
            else:
                self.wake(now)
        elif self.state is State.COMPUTING and self.service_at == NEVER:
            when = now + self.delay()
            self.service_by(when if not self.world.sleeps else self._heard(when, self.polled))

    def _heard(self, now: float, since: float) -> float:
        return self.world.network.heard(self.inbox[-1][0], self.rank, since, now)

    def _rouse(self, now: float) -> None:
        """A message has come for a worker that may sleep."""
        when = self._heard(now, self.clock)
        if when <= now:
            self.wake(now)
        elif when < self.waking:
            self.waking = when
            self.world.alarm(when, self, "waking")

    def service_by(self, when: float) -> None:
        """See :meth:`SimulatedRunner.service_by`."""
        if when < self.service_at:
            self.service_at = when
            self.world.alarm(when, self, "service")

    def alarm(self, now: float, kind: str) -> None:
        """Take note that an alarm goes off; alarms that are out of date do nothing."""
        if kind == "end":
            self._computed(now)
        elif kind == "service":
            if now == self.service_at and self.state is State.COMPUTING:
                self._interrupt(now)
        elif kind == "waking":
            if now >= self.waking:
                self.waking = NEVER
                if self.state is State.RESTING:
                    self.wake(now)
        elif kind == "timer":
            if now == self.timer:
                if self.state is State.COMPUTING:
                    self.service_by(now + self.delay())
                else:
                    self.wake(now)
        elif now == self.deadline:
            self.deadline = NEVER
            if self.state is State.RESTING:
                self.wake(now)

    def wake(self, now: float) -> None:
        """End a rest."""
        self.waking = NEVER
        self.clock = max(self.clock, now)
        self.service()
        if self.state is State.RESTING:
            self.polled = self.clock
            self.advance()

    def _interrupt(self, now: float) -> None:
        """The load-balancer thread has got the interpreter while a task runs."""
        clock = self.clock = max(self.clock, now)
        self.service()
        if not self.world.sleeping:
            self.end += self.clock - clock

    def service(self) -> None:
        """Read what has come and answer it; share work; send what has gathered."""
        scheduler = self.scheduler
        self.service_at = NEVER
        if self.clock >= self.timer:
            self.timer = NEVER
        while self.inbox:
            source, mail = self.inbox.popleft()
            if self.world.costly:
                self.spend(self.receiving + self._loading(mail))
            else:
                self.clock += self.receiving
            self._read(source, mail)
        self.perform(scheduler.send_due(self.clock))
        if self.outbox and self.clock - self.outbox_since > RESULTS_SECONDS:
            self.flush()

    def _loading(self, mail: Mail) -> float:
        network = self.world.network
        items, results = mail.packed(self.rank)
        return self.slowness * (items * network.item_receive + results * network.result_receive)

    def _read(self, source: int, mail: Mail) -> None:
        message, checker = mail.open(self.scheduler), self.act_checker
        if checker is not None:
            if not mail.echo or source not in self.scheduler.balancer.reports:
                self.heard[source] = mail.load.sequence
            checker.hears(source, mail.load, message)
        self.perform(self.scheduler.handle(source, mail.load, message, self.clock))
        if checker is not None:
            checker.heard(message)

    # Results out.

    def ship(self, owner: int, segment: Segment) -> None:
        """Send results soon: with others, or before this worker turns idle."""
        if not self.outbox:
            self.outbox_since = self.clock
        gathered = self.outbox.setdefault(owner, [])
        gathered.append(segment)
        if len(gathered) >= MOST_SEGMENTS:
            self.flush()

    def flush(self) -> None:
        """Send all results now."""
        outbox, self.outbox = self.outbox, {}
        for owner, segments in outbox.items():
            if self.world.costly:
                values = sum(len(segment.values) for segment in segments)
                self.spend(self.slowness * self.world.network.result_send * values)
            self.perform(self.scheduler.deliver(owner, tuple(segments)))
