"""How a worker joins a run: it calls the root, they prove who they are, the root gives a rank.

Everything here waits, for a deadline at most; a worker that has no rank has
nothing else to do.  A root that does not answer is called again, for it may be
starting still, or busy with strangers; one that proves to be another run's is
not.
"""

from __future__ import annotations

import select
from selectors import EVENT_READ, EVENT_WRITE
from time import monotonic, sleep

from dtm.comm.stream import FramedStream
from dtm.comm.stream_manager import Received
from dtm.comm.tcp.address import Address, Resolved, dial, resolve
from dtm.comm.tcp.handshake import Role
from dtm.comm.tcp.notices import Refused, Welcome, read_notice
from dtm.comm.tcp.pending import LONGEST, Introduction, Member
from dtm.errors import CommunicationError, StrangerError, UnreachableError

REFUSED_SECONDS = 2.0  # for a root that is not listening yet, or no longer
_AGAIN = 0.2  # seconds until the root is called once more


def why(error: Exception) -> str:
    """Return what an error says, without its number."""
    return getattr(error, "strerror", None) or str(error)


def meet(
    address: Address, member: Member, deadline: float, refused: float = REFUSED_SECONDS
) -> Introduction:
    """Call the root until it answers, and prove to each other who we are.

    Args:
        address: the root's.
        member: this worker.
        deadline: when it is given up.
        refused: seconds after which it is given up if nobody listens there.

    Raises:
        UnreachableError: the root does not answer.
        CommunicationError: it is not the root of this worker's run, or of another version.
    """
    began = monotonic()
    targets = resolve(address)
    failure: Exception = TimeoutError("it does not answer")
    while monotonic() < deadline:
        for target in targets:
            try:
                return _checked(_call_root(target, member, deadline), address)
            except StrangerError as error:
                raise CommunicationError(f"cannot join the run at {address}: {error}") from error
            except OSError as error:
                failure = error
        if isinstance(failure, ConnectionRefusedError) and monotonic() - began >= refused:
            break
        sleep(min(_AGAIN, max(0.0, deadline - monotonic())))
    if isinstance(failure, ConnectionRefusedError):
        raise UnreachableError(f"nobody listens at {address}: has the run ended?") from failure
    raise UnreachableError(
        f"cannot reach the root of the run at {address}: {why(failure)}"
    ) from failure


def look(address: str, member: Member, timeout: float, refused: float) -> None:
    """See whether the run at an address can be joined, without doing it; raises as ``meet``."""
    meet(Address.parse(address), member, monotonic() + timeout, refused).close()


def _checked(met: Introduction, address: Address) -> Introduction:
    """Return whom we have met, if it is the root, and of this version."""
    problem = met.handshake.disagreement()
    if met.peer.rank == 0 and not problem:
        return met
    met.close()
    if met.peer.rank:
        raise CommunicationError(f"at {address} is rank {met.peer.rank}, not the root")
    raise CommunicationError(f"this worker cannot join the run at {address}: {problem}")


def _call_root(target: Resolved, member: Member, deadline: float) -> Introduction:
    began = monotonic()
    call = Introduction(dial(target), member, Role.CALLER, began, 0)
    try:
        while True:
            left = min(deadline, began + LONGEST) - monotonic()
            if left <= 0 or not _ready(call, call.events, left):
                raise TimeoutError("it does not answer")
            if call.advance():
                return call
    except BaseException:
        call.close()
        raise


def _ready(source: Introduction | FramedStream, events: int, timeout: float) -> bool:
    poll = select.poll()
    wanted = (select.POLLIN if events & EVENT_READ else 0) | (
        select.POLLOUT if events & EVENT_WRITE else 0
    )
    poll.register(source, wanted)
    return bool(poll.poll(1000 * timeout))


def await_verdict(stream: FramedStream, address: str, deadline: float) -> tuple[Welcome, Received]:
    """Wait until the root says whether this worker is in; return what else it sent meanwhile."""
    early: Received = []
    while True:
        early += [(0, message) for message in stream.receive()]
        if stream.notices:
            break
        left = deadline - monotonic()
        if stream.ended or left <= 0:
            raise UnreachableError(
                f"cannot join the run at {address}: the root "
                + ("closed the connection; the run has ended" if stream.ended else "says nothing")
            )
        _ready(stream, EVENT_READ, left)
    verdict = read_notice(stream.notices.pop(0))
    if isinstance(verdict, Refused):
        raise CommunicationError(f"cannot join the run at {address}: {verdict.reason}")
    assert isinstance(verdict, Welcome), verdict
    return verdict, early
