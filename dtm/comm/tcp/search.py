"""The search for a peer that there is no link to, and the messages that wait for it.

    ASKED --here--> CALLED --no answer--> MISSED --time to ask--> ASKED
    ASKED --not yet--> ABSENT --here--> CALLED

It begins with the first message, by asking the root where the peer is.  It is over, and
forgotten, as soon as there is a link, whoever made it, or the peer is known to be gone, or
there is no root to ask.  A peer whose machine has not answered for ``UNREACHABLE`` seconds, or
has refused for so long although the root knows of no end, is lost.  One that is merely busy,
so that its kernel takes the call and it does not, never is.

Threads: under the worker's lock.

Rejected: to call the same address again.  A peer that has left in the meantime never answers,
and the root knows that it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from dtm.comm.base import Frame

AGAIN = 0.2  # seconds until an address that did not answer is asked for again
UNREACHABLE = 4.5  # seconds after which a peer that cannot be called is lost


class Stage(Enum):
    """How far a search has come."""

    ASKED = "the root is asked for its address"
    ABSENT = "it has not joined"
    CALLED = "it is being called"
    MISSED = "it did not answer"


TRANSITIONS: dict[Stage, dict[str, Stage]] = {
    Stage.ASKED: {"not yet": Stage.ABSENT, "here": Stage.CALLED},
    Stage.ABSENT: {"here": Stage.CALLED},
    Stage.CALLED: {"no answer": Stage.MISSED},
    Stage.MISSED: {"time to ask": Stage.ASKED, "here": Stage.CALLED},
}


class Search:
    """The search for one peer.

    Attributes:
        stage: how far it has come.
        messages: what waits for the link, in order.
    """

    def __init__(self, first: Sequence[Frame]) -> None:
        self.stage = Stage.ASKED
        self.messages = [first]
        self._since: float | None = None  # since when the peer has been called in vain
        self._due = 0.0  # when to ask once more

    def _go(self, event: str) -> None:
        self.stage = TRANSITIONS[self.stage][event]

    def not_yet(self) -> None:
        """The peer has not joined; the root will say so when it has."""
        if self.stage is Stage.ASKED:
            self._go("not yet")

    def here(self, now: float) -> bool:
        """The root has said where the peer is; whether it is to be called there."""
        if self.stage is Stage.CALLED:
            return False
        self._go("here")
        if self._since is None:
            self._since = now
        return True

    def missed(self, now: float) -> bool:
        """A call has come to nothing; whether there is hope left."""
        if self.stage is not Stage.CALLED or self._since is None:
            return True  # a call of an earlier search
        self._go("no answer")
        self._due = now + AGAIN
        return now - self._since < UNREACHABLE

    def busy(self, now: float) -> None:
        """A call has reached the peer's machine, though not the peer."""
        self._since = now

    def is_hopeful(self, now: float, patience: float) -> bool:
        """Whether it may come to an end soon: the peer has joined, and was called just now."""
        if self.stage is Stage.ABSENT:
            return False
        return self._since is None or now - self._since < patience

    def asks_again(self, now: float) -> bool:
        """Whether it is time to ask the root once more."""
        if self.stage is not Stage.MISSED or now < self._due:
            return False
        self._go("time to ask")
        return True
