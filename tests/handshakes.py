"""Makes handshakes go wrong, in every way there is; shared by the fast tests and the long fuzzing.

``python -m tests.handshakes 1000000`` goes through so many cases, of every kind by turns, and says
what became of them.
"""

from __future__ import annotations

import gc
import os
import pickle
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import NoReturn

from dtm.comm.tcp.credentials import Credentials
from dtm.comm.tcp.handshake import (
    HELLO,
    NONCE,
    PROOF,
    Handshake,
    Hello,
    Role,
    Seals,
    State,
    Versions,
)
from dtm.errors import StrangerError

VERSIONS = Versions("1.0", (3, 11), 5)
RUN = Credentials(b"r" * 16, b"s" * 32)


def end(
    role: Role,
    random: Random,
    credentials: Credentials = RUN,
    rank: int = 0,
    seals: Seals = Seals.HMAC | Seals.GMAC,
    versions: Versions = VERSIONS,
) -> Handshake:
    """Return one end of a handshake."""
    return Handshake(credentials, role, rank, random.randbytes(NONCE), seals, versions)


def meet(caller: Handshake, acceptor: Handshake) -> tuple[bytes, bytes]:
    """Let two ends shake hands; return what each of them said."""
    said = caller.take_output()
    acceptor.feed(said)
    answer = acceptor.take_output()
    caller.feed(answer[:HELLO])
    caller.feed(answer[HELLO:])
    proof = caller.take_output()
    acceptor.feed(proof)
    return said + proof, answer


@dataclass
class Recorded:
    """A handshake that went well, for those who would use it again."""

    caller: bytes
    acceptor: bytes


def record(random: Random) -> Recorded:
    return Recorded(*meet(end(Role.CALLER, random, rank=3), end(Role.ACCEPTOR, random)))


# What strangers say, knowing all that was ever said on the wire but not the secret.  Each function
# is told the victim's role and, if the victim has said something, what; it returns bytes to be
# fed.


def randomly(random: Random, _past: Recorded, _role: Role, _said: bytes) -> bytes:
    """Anything."""
    return random.randbytes(random.choice((0, 1, 7, HELLO, HELLO + PROOF, 1024, 4096)))


def malformed(random: Random, past: Recorded, role: Role, _said: bytes) -> bytes:
    """A good hello with some bytes changed, and a proof."""
    data = bytearray(past.caller if role is Role.ACCEPTOR else past.acceptor)
    for _ in range(random.randint(1, 4)):
        data[random.randrange(HELLO)] = random.randrange(256)
    return bytes(data)


def truncated(random: Random, past: Recorded, role: Role, _said: bytes) -> bytes:
    """What was once said, cut off anywhere."""
    data = past.caller if role is Role.ACCEPTOR else past.acceptor
    return data[: random.randrange(len(data))]


def replayed(_random: Random, past: Recorded, role: Role, _said: bytes) -> bytes:
    """What was once said, to the letter."""
    return past.caller if role is Role.ACCEPTOR else past.acceptor


def reflected(random: Random, past: Recorded, role: Role, said: bytes) -> bytes:
    """What the victim itself says; or its role reversed."""
    if not said:
        return past.acceptor
    data = bytearray(said + random.randbytes(PROOF))
    if random.random() < 0.5:
        data[5] = Role.CALLER if role is Role.ACCEPTOR else Role.ACCEPTOR
    return bytes(data)


def oversized(random: Random, past: Recorded, role: Role, _said: bytes) -> bytes:
    """Far too much, with a good beginning."""
    data = past.caller if role is Role.ACCEPTOR else past.acceptor
    return data[: random.choice((4, HELLO))] + random.randbytes(random.choice((5_000, 70_000)))


def unproven(random: Random, past: Recorded, role: Role, _said: bytes) -> bytes:
    """A perfect hello of a fresh nonce, and a guess."""
    whose = Role.CALLER if role is Role.ACCEPTOR else Role.ACCEPTOR
    hello = Hello(whose, Seals(random.choice((1, 3))), VERSIONS, RUN.run, random.randbytes(32), 2)
    proofs = (random.randbytes(PROOF), past.caller[-PROOF:], past.acceptor[-PROOF:])
    return hello.to_bytes() + random.choice(proofs)


KINDS: tuple[Callable[[Random, Recorded, Role, bytes], bytes], ...] = (
    randomly, malformed, truncated, replayed, reflected, oversized, unproven,
)  # fmt: skip


def attack(kind: Callable[..., bytes], random: Random, past: Recorded, role: Role) -> State:
    """Attack one end of a handshake; return the state that it was left in."""
    victim = end(role, random, rank=0 if role is Role.ACCEPTOR else 3)
    data = memoryview(kind(random, past, role, victim.take_output()))
    try:
        while data and (wanted := victim.wanted):
            piece = min(wanted, len(data), random.choice((1, 13, 1000)))
            victim.feed(bytes(data[:piece]))
            data = data[piece:]
            assert len(victim.take_output()) <= HELLO + PROOF
    except StrangerError:
        assert victim.state is State.FAILED
        assert victim.wanted == 0
    assert victim.state is not State.PROVEN, f"{kind.__name__} got in as {role}"
    return victim.state


@contextmanager
def nothing_is_unpickled() -> Iterator[None]:
    """Make whoever calls a deserialiser fail."""

    def caught(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a byte of a stranger reached a deserialiser")

    kept = pickle.loads, pickle.load, pickle.Unpickler
    pickle.loads = pickle.load = pickle.Unpickler = caught  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        pickle.loads, pickle.load, pickle.Unpickler = kept  # type: ignore[misc]


def fuzz(cases: int, seed: int) -> Counter[tuple[str, str]]:
    """Go through so many cases; return how often each kind left its victim in which state."""
    random = Random(seed)
    past = record(random)
    outcomes: Counter[tuple[str, str]] = Counter()
    with nothing_is_unpickled():
        for case in range(cases):
            kind = KINDS[case % len(KINDS)]
            role = Role.CALLER if case // len(KINDS) % 2 else Role.ACCEPTOR
            outcomes[kind.__name__, attack(kind, random, past, role).name] += 1
    return outcomes


def holdings() -> tuple[int, int, int]:
    """Return what a leak would add to: objects, descriptors, KiB of memory at most."""
    gc.collect()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return len(gc.get_objects()), len(os.listdir("/dev/fd")), peak


def main() -> None:
    cases, seed = int(sys.argv[1]), int((*sys.argv, "1")[2])
    fuzz(2_000, seed)
    before = holdings()
    outcomes = fuzz(cases, seed)
    after = holdings()
    for (kind, state), count in sorted(outcomes.items()):
        print(f"{kind:10} {state:7} {count}")
    print(f"{outcomes.total()} cases, seed {seed}; objects, descriptors, KiB: {before} {after}")


if __name__ == "__main__":
    main()
