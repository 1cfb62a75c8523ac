"""Whom to ask for work, whom to give it, and when to be silent.

As a thief, a worker is in one of three modes:

    WORKING --out of work--> ASKING --refused, or no answer in time--> ASKING (next victim)
    ASKING  --no victim left to try--> WAITING
    ASKING, WAITING --work arrives--> WORKING

ASKING: two requests are out, at the better of two random neighbours whose fresh
reports say that they have work (going to the apparent best would herd all thieves
to one victim; Mitzenmacher 2001), then at ranks in an order of its own.  It gives up after
``MOST_REFUSALS``; a worker whose fresh report says that it is idle is not asked, which counts as
one.  What there is comes by the lifelines then, also from behind workers that run their last item,
see below.  (Asking up to 16 workers cost short maps a quarter of their messages, for nothing.)
A victim in the middle of a task answers late, so two at once halve the wait.  WAITING: every
neighbour holds a *lifeline*, a request that stays with it until it has something
to share (Saraswat et al. 2011).  A waiting worker says nothing, so an idle
cluster is silent.

As a victim, a worker keeps ``waiting``, the lifelines tied to it.  With q
requests to answer it keeps one share of the seconds of work that stand ready, by
estimate, and gives away q, the oldest first: one range or many.  (Half of the
oldest range alone took three times the steals in a tree of few children a node.)
A lifeline along the spread tree carries as its weight the number of idle workers
behind it, and shares are weighted, so the first wave of a map reaches P workers
in log4 P hops.  What is not worth sending is refused or waits.

Liveness: a silent worker has a lifeline at each neighbour, and a worker with
something worth sharing answers its lifelines whenever work is added, between
strips, and on a timer; the graph of neighbours connects all.  A worker that runs its
last item is in the middle of that graph without looking for work, so it *passes on* what
waits: it ties a lifeline of its own at each neighbour, unless that neighbour is the only
one that waits here.  Without that, 64 single calls of a second kept 64 workers busy for three
seconds: the first few went to the neighbours of the caller, and nobody asked it for the rest.

The root *deals* a map when it can tell beforehand what stealing would come to: its items are
known to run for a millisecond or more, there is at least one for each worker, no other call of
the root's is under way, and all workers have been heard of, since the last call was cancelled if
one was: who is stuck in an item that nobody needs any more should not get others.  Each worker
gets an equal share at once, in one message that it did not ask for, and what is left over stays
for those who are done first.  (Along the tree the first wave of 64 workers took 13 ms, and shares
differed, so that at the end 64 workers asked each other for single items.)  A deal makes the
lifelines of before void at both ends, for everybody has work.  So deals are numbered, and a
lifeline says of how many its thief has heard.  A worker drops lifelines of thieves that have
heard of fewer than itself, when it is dealt to and when a request comes: the deal that they have
not heard of is on its way to them, and then they tie new ones.  Until it runs something else, a
worker that was dealt to is *patient*: its items are long, so it waits at its lifelines at once
and asks nobody before.

What can go wrong: a victim that does not answer (it is starting, or deep in C
code): the thief goes on after ``ANSWER_SECONDS``, and a late grant is as good as
any.  A lifeline answered after the thief found work elsewhere: it has more work
then, and others can steal it.  A share that is dealt to a worker which is deep in C code of a
call that some item has made and not waited for, of which the root knows nothing: nobody can take
it from there, and its map waits for that code.

Threads: under the worker's lock.
"""

from __future__ import annotations

from enum import Enum
from math import gcd
from random import Random

from dtm.core.deque import Deque
from dtm.core.granularity import Granularity
from dtm.core.messages import Grant, Load, Message, Refusal, StealRequest
from dtm.core.topology import neighbours, tree_children, tree_parent
from dtm.task import Range

ANSWER_SECONDS = 5e-3
FRESH_SECONDS = 10e-3
DEALT_SECONDS = 1e-3
MOST_DEALT_TO = 64
MOST_REFUSALS = 2
ASKED_AT_ONCE = 2
MOST_BUNDLED = 2048
MOST_TRIED = 16
EXACT = 1e-9

Sends = list[tuple[int, Message]]
Lifeline = tuple[int, int, int]


class Mode(Enum):
    """What a worker is doing about finding work."""

    WORKING = "working"
    ASKING = "asking"
    WAITING = "waiting"

    __hash__ = object.__hash__  # each is one object; the hash of its name would be Python code


TRANSITIONS: dict[Mode, dict[str, Mode]] = {
    Mode.WORKING: {"out of work": Mode.ASKING},
    Mode.ASKING: {"refused": Mode.ASKING, "nobody left": Mode.WAITING, "work came": Mode.WORKING},
    Mode.WAITING: {"work came": Mode.WORKING},
}


class Balancer:
    """One worker's side of work stealing.

    Args:
        rank, size: this worker and how many there are.
        random: a seeded generator; the only source of chance.
        granularity: decides what is worth sending.

    Attributes:
        running: whether a task runs here; if none does, the last item is not given away,
            or it would go round for ever.
        waiting: lifelines tied to this worker, thief -> (serial, weight, deal).
        tied: lifelines of this worker, neighbour -> serial.
        asked: requests that are out, victim -> serial.
        deadline: when an unanswered request is given up; infinity if none is out.
        dealt: how many deals this worker has heard of.
        patient: whether it asks nobody, but waits at its lifelines, when it has no work.
    """

    def __init__(self, rank: int, size: int, random: Random, granularity: Granularity) -> None:
        self.rank = rank
        self.size = size
        self.mode = Mode.WORKING
        self.running = True
        self.waiting: dict[int, Lifeline] = {}
        self.deadline = float("inf")
        self._random = random
        self._granularity = granularity
        self.neighbours = neighbours(rank, size)
        self._parent = tree_parent(rank)
        self._children = frozenset(tree_children(rank, size))
        self.reports: dict[int, tuple[Load, float]] = {}
        self.tied: dict[int, int] = {}
        self._tried: set[int] = set()
        self._tries = 0
        self._refusals = 0
        self._probe = 0
        self._stride = _stride(size, random)
        self._serial = 0
        self.asked: dict[int, int] = {}
        self.dealt = 0
        self.patient = False
        self._deals = rank == 0 and size <= MOST_DEALT_TO
        self._unheard: set[int] = set()
        self.doubt()

    def _go(self, event: str) -> None:
        self.mode = TRANSITIONS[self.mode][event]

    def hear(self, source: int, load: Load, now: float) -> None:
        """Keep the newest report of a worker."""
        if self._unheard:
            self._unheard.discard(source)
        known = self.reports.get(source)
        if known is None or known[0].sequence < load.sequence:
            self.reports[source] = (load, now)
            if len(self.reports) > 2 * len(self.neighbours) + 16:
                del self.reports[next(iter(self.reports))]

    def doubt(self) -> None:
        """(Root) deal nothing until each worker has been heard of again.

        Some have not joined yet, or may be in the middle of what is not needed any more.
        """
        if self._deals:
            self._unheard.update(range(1, self.size))

    def end(self) -> None:
        """The run ends: nobody is waited for and nobody is answered any more."""
        self.waiting.clear()
        self.tied.clear()
        self.asked.clear()
        self.deadline = float("inf")

    # As a thief.

    def out_of_work(self, now: float) -> Sends:
        """This worker has nothing to run: return whom to ask, if anybody."""
        if self.mode is Mode.WORKING:
            if self.size == 1:
                return []
            self._tried.clear()
            self.asked.clear()
            self._tries = self._refusals = 0
            self._probe = self._random.randrange(self.size)
            self._go("out of work")
            return self._ask(now)
        if self.mode is Mode.ASKING and now >= self.deadline:
            self.asked.clear()
            self._go("refused")
            return self._ask(now)
        return []

    def work_came(self) -> None:
        """This worker has work again."""
        if self.mode is not Mode.WORKING:
            self._go("work came")
            self.deadline = float("inf")

    def granted(self, source: int, serial: int) -> None:
        """A grant has come: its sender holds no lifeline of ours any more, if that was it."""
        if self.tied.get(source) == serial:
            del self.tied[source]

    def refused(self, source: int, serial: int, now: float) -> Sends:
        """A victim had nothing, or could not send what it had: try the next one."""
        if self.tied.get(source) == serial:
            del self.tied[source]
            return [(source, self._lifeline(source))] if self.mode is Mode.WAITING else []
        if self.mode is Mode.ASKING and self.asked.get(source) == serial:
            del self.asked[source]
            self._refusals += 1
            self._go("refused")
            return self._ask(now)
        return []

    def _ask(self, now: float) -> Sends:
        requests: Sends = []
        while len(self.asked) < ASKED_AT_ONCE and not self.patient:
            victim = self._choose(now)
            if victim is None:
                break
            self._serial += 1
            self._tried.add(victim)
            self.asked[victim] = self._serial
            self.deadline = now + ANSWER_SECONDS
            requests.append((victim, StealRequest(self._serial, 1, False, self.dealt)))
        if self.asked:
            return requests
        self._go("nobody left")
        self.deadline = float("inf")
        untied = [other for other in self.neighbours if other not in self.tied]
        return [(other, self._lifeline(other)) for other in untied]

    def _choose(self, now: float) -> int | None:
        loaded = [
            other
            for other in self.neighbours
            if other not in self._tried and other not in self.tied and self._seconds(other, now)
        ]
        if loaded:
            first, second = self._random.choice(loaded), self._random.choice(loaded)
            return max(first, second, key=lambda other: self._seconds(other, now))
        most = self.size if self.size > len(self.neighbours) + 1 else 0
        while self._tries < most and self._refusals < MOST_REFUSALS:
            self._tries += 1
            other = self._probe = (self._probe + self._stride) % self.size
            if other != self.rank and other not in self._tried and other not in self.tied:
                if not self._is_idle(other, now):
                    return other
                self._refusals += 1
        return None

    def _seconds(self, other: int, now: float) -> float:
        known = self.reports.get(other)
        return known[0].seconds if known and now - known[1] < FRESH_SECONDS else 0.0

    def _is_idle(self, other: int, now: float) -> bool:
        known = self.reports.get(other)
        return known is not None and now - known[1] < FRESH_SECONDS and known[0].idle

    def _lifeline(self, other: int) -> StealRequest:
        self._serial += 1
        self.tied[other] = self._serial
        return StealRequest(self._serial, self._weight(other), True, self.dealt)

    def _weight(self, other: int) -> int:
        if other != self._parent:
            return 1
        behind = sum(self.waiting[child][1] for child in self._children & self.waiting.keys())
        return behind + (self.mode is not Mode.WORKING)

    # As a victim.

    def requested(self, source: int, request: StealRequest, work: Deque, now: float) -> Sends:
        """Answer a thief."""
        if request.stays and request.deal < self.dealt:
            return []
        grants = self._split({source: (request.serial, request.weight, request.deal)}, work, now)
        if grants:
            self.waiting.pop(source, None)
            return grants
        if not request.stays:
            return [(source, Refusal(request.serial))]
        known = self.waiting.get(source, (0, 0, 0))[1]
        self.waiting[source] = (request.serial, request.weight, request.deal)
        parent = self._parent
        if (
            source in self._children
            and parent in self.tied
            and self.mode is Mode.WAITING
            and request.weight > known
            and self._children <= self.waiting.keys()
        ):
            return [(parent, self._lifeline(parent))]
        return self.pass_on(work)

    def pass_on(self, work: Deque) -> Sends:
        """Ask on behalf of those who wait here, while this worker runs its last item."""
        if self.mode is not Mode.WORKING or not self.waiting or work.newest() is not None:
            return []
        waiting = self.waiting.keys()
        return [
            (other, self._lifeline(other))
            for other in self.neighbours
            if other not in self.tied and waiting - {other}
        ]

    def answer_lifelines(self, work: Deque, now: float) -> Sends:
        """Give the workers that wait here what is worth giving."""
        if not self.waiting:
            return []
        grants = self._split(self.waiting, work, now)
        for thief, _ in grants:
            del self.waiting[thief]
        return grants

    def _split(self, thieves: dict[int, Lifeline], work: Deque, now: float) -> Sends:
        shares = 1 + sum(weight for _, weight, _ in thieves.values())
        grants: Sends = []
        for thief, (serial, weight, _) in thieves.items():
            parts = self._portion(work, weight, shares, now)
            if not parts:
                break
            shares -= weight
            grants.append((thief, Grant(serial, tuple(parts))))
        return grants

    def _portion(self, work: Deque, weight: int, shares: int, now: float) -> list[Range]:
        """Take ``weight / shares`` of the seconds of work that is worth sending, oldest first."""
        if not (self.running or work.several()):
            return []
        offered = self._offer(work, now)
        total = sum(seconds for _, seconds in offered)
        if not offered or not self._granularity.enough(total):
            return []
        parts: list[Range] = []
        wanted = total * weight / shares
        for each, seconds in offered:
            left = each.left
            count = min(left, int(left * wanted / seconds + (0.5 if parts else 1.0 - EXACT)))
            if count == left and each is offered[-1][0] and not self.running:
                count -= 1  # or the last item would go round for ever
            if count > 0:
                parts.append(self._back(each, left, count))
            wanted -= seconds
            if wanted <= 0.0:
                break
        return parts

    def _offer(self, work: Deque, now: float) -> list[tuple[Range, float]]:
        """Return the oldest ranges that pay, each with the seconds that are left of it.

        Single items of one task and one function are judged by the first of them.
        """
        offered: list[tuple[Range, float]] = []
        granularity = self._granularity
        tried, group, an_item = 0, None, 0.0  # seconds; 0 if it does not pay
        for each in work.oldest(MOST_BUNDLED):
            left, call = each.left, each.call
            alike = (call.profile, call.parent) if left == 1 and call.size == 1 else None
            known = alike is not None and alike == group
            if not (known and an_item) or each.pinned:
                tried += 1
                if tried > MOST_TRIED:
                    break
            if each.pinned:
                continue
            if not known:
                pays = granularity.pays(each, now)
                group, an_item = alike, granularity.seconds_an_item(each, now) if pays else 0.0
            if an_item:
                offered.append((each, left * an_item))
        return offered

    @staticmethod
    def _back(oldest: Range, left: int, count: int) -> Range:
        oldest.hi = oldest.lo + left
        chunk: int = oldest.call.chunk
        if chunk > 1:
            count = min(left, -(-count // chunk) * chunk)
        return oldest.take_back(count)

    # Dealing.

    def deal(self, work: Range, now: float) -> Sends:
        """(Root) give each worker an equal share of a map, if it is one to be dealt.

        To be called when it is all the work that the root has, and nobody has any of its own.
        """
        if not self._deals or self._unheard or work.call.chunk > 1:
            return []
        granularity, share = self._granularity, work.left // self.size
        long = granularity.seconds_an_item(work, now) >= DEALT_SECONDS
        if not (share and long and granularity.pays(work, now)):
            return []
        deal = self.dealt + 1
        self.hear_of_deal(deal)
        return [
            (other, Grant(0, (self._back(work, work.left, share),), deal))
            for other in range(1, self.size)
        ]

    def hear_of_deal(self, deal: int) -> None:
        """Forget lifelines, which a deal makes void at both ends."""
        self.dealt = deal
        self.patient = True
        self.tied.clear()
        self.asked.clear()
        lifelines = self.waiting.items()
        self.waiting = {thief: each for thief, each in lifelines if each[2] >= deal}


def _stride(size: int, random: Random) -> int:
    """Return a step by which one comes by all of ``size`` workers before any comes again."""
    while True:
        stride = random.randrange(1, max(2, size))
        if gcd(stride, size) == 1:
            return stride
