"""The handshake: who gets in, who does not, and that no one learns anything by trying."""

from __future__ import annotations

import os
import resource
import socket
from contextlib import ExitStack
from random import Random

import pytest

from dtm.comm.tcp.acceptor import MOST_STRANGERS
from dtm.comm.tcp.address import allow_descriptors
from dtm.comm.tcp.channel import RECORD, TAG, SealedChannel, known_seals
from dtm.comm.tcp.credentials import Credentials
from dtm.comm.tcp.handshake import HELLO, PROOF, TRANSITIONS, Handshake, Keys, Role, Seals, State
from dtm.comm.tcp.joining import LONGEST
from dtm.comm.tcp.manager import TcpManager
from dtm.errors import StrangerError
from tests.handshakes import (
    KINDS,
    RUN,
    VERSIONS,
    attack,
    end,
    fuzz,
    holdings,
    meet,
    nothing_is_unpickled,
    record,
)
from tests.tcp_programs import closed, pump, run_of, running, stranger, until

CASES = int(os.environ.get("DTM_FUZZ_CASES", "10000"))


@pytest.fixture
def random() -> Random:
    return Random(7)


def pair(random: Random, **options: object) -> tuple[Handshake, Handshake]:
    return end(Role.CALLER, random, **options), end(Role.ACCEPTOR, random)  # type: ignore[arg-type]


# The state machine


def test_both_ends_of_a_good_handshake_have_the_same_keys(random: Random) -> None:
    caller, acceptor = pair(random)
    meet(caller, acceptor)
    assert caller.state is acceptor.state is State.PROVEN
    mine, yours = caller.keys(), acceptor.keys()
    assert (mine.outgoing, mine.incoming) == (yours.incoming, yours.outgoing)
    assert mine.outgoing != mine.incoming
    assert mine.seal is yours.seal is Seals.GMAC
    assert caller.disagreement() is acceptor.disagreement() is None


def test_keys_are_of_one_connection(random: Random) -> None:
    first, second = pair(random), pair(random)
    meet(*first)
    meet(*second)
    assert first[0].keys().outgoing != second[0].keys().outgoing


def test_the_weaker_way_to_seal_is_used_only_if_one_end_knows_no_other(random: Random) -> None:
    caller, acceptor = pair(random, seals=Seals.HMAC)
    meet(caller, acceptor)
    assert caller.keys().seal is acceptor.keys().seal is Seals.HMAC


GOOD = record(Random(1))
TABLE = {
    (State.HELLO, "hello"): GOOD.caller[:HELLO],
    (State.HELLO, "anything else"): bytes(HELLO),
    (State.PROOF, "anything else"): bytes(PROOF),
}


@pytest.mark.parametrize(("state", "event"), TABLE)
def test_each_transition_is_as_the_table_says(state: State, event: str, random: Random) -> None:
    acceptor = end(Role.ACCEPTOR, random)
    if state is State.PROOF:
        acceptor.feed(GOOD.caller[:HELLO])
    assert acceptor.state is state
    if event == "anything else":
        with pytest.raises(StrangerError):
            acceptor.feed(TABLE[state, event])
    else:
        acceptor.feed(TABLE[state, event])
    assert acceptor.state is TRANSITIONS[state][event]


def test_states_without_a_way_out_want_nothing(random: Random) -> None:
    caller, acceptor = pair(random)
    meet(caller, acceptor)
    failed = end(Role.ACCEPTOR, random)
    with pytest.raises(StrangerError):
        failed.feed(bytes(HELLO))
    for handshake in (caller, acceptor, failed):
        assert not TRANSITIONS[handshake.state]
        assert handshake.wanted == 0
        with pytest.raises(ValueError, match="wants 0"):
            handshake.feed(b"x")


def test_more_than_is_wanted_is_never_taken(random: Random) -> None:
    with pytest.raises(ValueError, match=f"wants {HELLO}"):
        end(Role.ACCEPTOR, random).feed(bytes(HELLO + 1))
    assert HELLO + PROOF <= 1024


@pytest.mark.parametrize("role", Role)
def test_a_change_of_any_byte_breaks_the_handshake(role: Role, random: Random) -> None:
    for position in range(HELLO + PROOF):
        caller, acceptor = pair(random)

        def spoil(data: bytes, at: int) -> bytes:
            return bytes([*data[:at], data[at] ^ 0x40, *data[at + 1 :]])

        with pytest.raises(StrangerError):
            said = caller.take_output()
            acceptor.feed(
                spoil(said, position) if role is Role.CALLER and position < HELLO else said
            )
            answer = acceptor.take_output()
            if role is Role.ACCEPTOR:
                answer = spoil(answer, position)
            caller.feed(answer[:HELLO])
            caller.feed(answer[HELLO:])
            proof = caller.take_output()
            acceptor.feed(spoil(proof, position - HELLO) if position >= HELLO else proof)


@pytest.mark.parametrize("role", Role)
def test_a_handshake_cut_off_at_any_byte_proves_nothing(role: Role, random: Random) -> None:
    victim_said = GOOD.caller if role is Role.ACCEPTOR else GOOD.acceptor
    for length in range(len(victim_said)):
        victim = end(role, random)
        for byte in victim_said[:length]:
            victim.feed(bytes([byte]))
        assert victim.state in {State.HELLO, State.PROOF}
        assert victim.wanted


def test_a_proof_is_not_good_on_another_connection(random: Random) -> None:
    """A stranger in the middle of two connections passes hellos of the one to the other."""
    caller, acceptor = pair(random)
    other = end(Role.ACCEPTOR, random)
    hello = caller.take_output()
    acceptor.feed(hello)
    other.feed(hello)
    answer, elsewhere = acceptor.take_output(), other.take_output()
    caller.feed(answer[:HELLO])
    with pytest.raises(StrangerError):
        caller.feed(elsewhere[HELLO:])


def test_the_seals_cannot_be_argued_down(random: Random) -> None:
    caller, acceptor = pair(random)
    hello = bytearray(caller.take_output())
    assert hello[6] == Seals.HMAC | Seals.GMAC
    hello[6] = Seals.HMAC
    acceptor.feed(bytes(hello))
    answer = acceptor.take_output()
    caller.feed(answer[:HELLO])
    with pytest.raises(StrangerError):
        caller.feed(answer[HELLO:])


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (Credentials(RUN.run, b"x" * 32), "does not know the secret"),
        (Credentials(b"x" * 16, RUN.secret), "another run"),
    ],
)
def test_the_caller_is_told_what_is_wrong(
    other: Credentials, sentence: str, random: Random
) -> None:
    with pytest.raises(StrangerError, match=sentence):
        meet(*pair(random, credentials=other))


def test_what_a_stranger_says_is_in_no_message_of_an_error(random: Random) -> None:
    for kind in KINDS:
        for role in Role:
            victim = end(role, random)
            data = kind(random, GOOD, role, victim.take_output())
            try:
                victim.feed(data[:HELLO])
                victim.feed(data[HELLO : HELLO + victim.wanted])
            except StrangerError as error:
                assert set(str(error)) <= set("abcdefghijklmnopqrstuvwxyz W',")
            except ValueError:
                continue


def test_another_version_is_noticed_by_both_once_they_are_proven(random: Random) -> None:
    caller, acceptor = pair(random, versions=type(VERSIONS)("0.9", (3, 10), 5))
    meet(caller, acceptor)
    assert "it runs dtm 0.9, Python 3.10, pickle 5" in str(acceptor.disagreement())
    assert "it runs dtm 1.0, Python 3.11, pickle 5" in str(caller.disagreement())


# Fuzzing


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_attack_of_any_kind_gets_in(kind: object, random: Random) -> None:
    for role in Role:
        assert attack(kind, random, GOOD, role) is not State.PROVEN  # type: ignore[arg-type]


@pytest.mark.timeout(3600)
def test_fuzzed_handshakes_neither_get_in_nor_leak() -> None:
    fuzz(1000, 1)
    objects, descriptors, _ = holdings()
    outcomes = fuzz(CASES, 2)
    assert outcomes.total() == CASES
    assert {state for _, state in outcomes} <= {"HELLO", "PROOF", "FAILED"}
    after, files, _ = holdings()
    assert files == descriptors
    assert after - objects < 200


@pytest.mark.parametrize("tls", [False, True], ids=["sealed", "TLS"])
def test_fuzzed_connections_disturb_nobody(tls: bool, capfd: pytest.CaptureFixture[str]) -> None:
    """The same attacks on a listening root: nothing is unpickled, printed, or left behind."""
    random = Random(3)
    credentials = Credentials(RUN.run, RUN.secret, *certificate()) if tls else RUN
    with run_of(2, credentials) as (root, _), nothing_is_unpickled():
        worker_joins(root, credentials)
        before = holdings()[1]
        for case in range(len(KINDS) * 20):
            with stranger(root) as connection:
                data = KINDS[case % len(KINDS)](random, GOOD, Role.ACCEPTOR, b"")
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                refused = root.strangers_refused
                pump(root, lambda seen=refused: root.strangers_refused > seen)  # type: ignore[misc]
        assert not root._pending_connections
        assert holdings()[1] == before
        assert root.lost() == []
    assert capfd.readouterr().err == ""


def certificate() -> tuple[bytes | None, bytes | None]:
    fresh = Credentials.fresh(tls=True)
    return fresh.certificate, fresh.key


def worker_joins(root: TcpManager, credentials: Credentials) -> None:
    with running(root):
        TcpManager.join(root.address, credentials).close(0.2)  # type: ignore[attr-defined]


# Strangers who say nothing


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["sealed", "TLS"])
def test_a_worker_joins_past_a_thousand_silent_connections(tls: bool) -> None:
    allow_descriptors(1500)
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1500:
        pytest.skip("this user may not open a thousand connections")
    with run_of(2, Credentials.fresh(tls=tls)) as (root, credentials), ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(stranger(root))
        with running(root) as received:
            worker = TcpManager.join(root.address, credentials, timeout=60)
            assert (
                len([one for one in root._pending_connections if one.target < 0]) <= MOST_STRANGERS
            )
            worker.send(0, [b"in"])
            until(lambda: received)
            worker.close(1)


@pytest.mark.parametrize("tls", [False, True], ids=["sealed", "TLS"])
def test_the_silent_make_room_before_those_who_have_begun(tls: bool) -> None:
    with run_of(2, Credentials.fresh(tls=tls)) as (root, _), ExitStack() as stack:
        begun = stack.enter_context(stranger(root))
        begun.sendall(b"\x16\x03\x01\x02" if tls else GOOD.caller[:40])
        crowd = [stack.enter_context(stranger(root)) for _ in range(MOST_STRANGERS + 5)]
        pump(root, lambda: root.strangers_refused >= 6)
        assert not closed(begun)
        assert [closed(each) for each in crowd[:6]] == [True] * 6


def test_who_says_nothing_is_put_out_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LONGEST == 5.0
    monkeypatch.setattr("dtm.comm.tcp.acceptor.LONGEST", 0.1)
    with run_of(2) as (root, _), stranger(root) as silent, stranger(root) as slow:
        slow.send(GOOD.caller[:40])
        pump(root, lambda: root.strangers_refused == 2)
        assert closed(silent)
        assert closed(slow)


# What follows the handshake


def sealed_pair(seal: Seals) -> tuple[SealedChannel, SealedChannel, socket.socket, socket.socket]:
    """Return two channels, and the two ends of the wire between them."""
    left, left_wire = socket.socketpair()
    right_wire, right = socket.socketpair()
    keys = Keys(seal, b"a" * 32, b"b" * 32)
    one = SealedChannel(left, keys)
    two = SealedChannel(right, Keys(seal, keys.incoming, keys.outgoing))
    for channel in (one, two):
        channel.setblocking(False)
    return one, two, left_wire, right_wire


SEALS = [
    Seals.HMAC,
    pytest.param(
        Seals.GMAC,
        marks=pytest.mark.skipif(Seals.GMAC not in known_seals(), reason="no cryptography"),
    ),
]
RECORDS = [b"first", b"second", b"x" * 70_000]


def on_the_wire(seal: Seals) -> list[bytes]:
    one, two, wire, other = sealed_pair(seal)
    with wire, other:
        records = []
        for payload in RECORDS:
            assert one.send(payload) == len(payload)
            records.append(wire.recv(1 << 20, socket.MSG_WAITALL | socket.MSG_DONTWAIT))
        one.close()
        two.close()
    assert [len(record) for record in records] == [4 + len(p) + TAG for p in RECORDS]
    return records


def hear(seal: Seals, wire: bytes, direction: int = 1) -> list[bytes]:
    """Return the payloads that a channel takes from these bytes."""
    one, two, left, right = sealed_pair(seal)
    reader, feed = (two, right) if direction else (one, left)
    payloads = []
    with left, right:
        feed.sendall(wire)
        feed.shutdown(socket.SHUT_WR)
        target = memoryview(bytearray(RECORD))
        try:
            while True:
                try:
                    size = reader.recv_into(target)
                except BlockingIOError:
                    continue
                if not size:
                    break
                payloads.append(bytes(target[:size]))
        finally:
            one.close()
            two.close()
    return payloads


@pytest.mark.parametrize("seal", SEALS)
def test_records_arrive_as_they_were_sent(seal: Seals) -> None:
    assert hear(seal, b"".join(on_the_wire(seal))) == RECORDS


@pytest.mark.parametrize("seal", SEALS)
def test_a_change_of_any_byte_of_a_record_ends_the_channel(seal: Seals) -> None:
    first, second, _ = on_the_wire(seal)
    for position in range(len(second)):
        spoilt = bytearray(second)
        spoilt[position] ^= 1
        try:
            heard = hear(seal, first + bytes(spoilt))
        except ConnectionAbortedError:
            continue
        assert heard == RECORDS[:1], "a length that is too long waits for what never comes"
        assert position < 4


@pytest.mark.parametrize("seal", SEALS)
@pytest.mark.parametrize(
    "order",
    [(1,), (0, 0), (0, 2), (1, 0), (0, 1, 1)],
    ids=["left out", *"repeat skip swap last".split()],
)
def test_records_out_of_their_order_end_the_channel(seal: Seals, order: tuple[int, ...]) -> None:
    records = on_the_wire(seal)
    with pytest.raises(ConnectionAbortedError, match="a tag is wrong"):
        hear(seal, b"".join(records[number] for number in order))


@pytest.mark.parametrize("seal", SEALS)
def test_records_sent_back_end_the_channel(seal: Seals) -> None:
    with pytest.raises(ConnectionAbortedError, match="a tag is wrong"):
        hear(seal, on_the_wire(seal)[0], direction=0)


@pytest.mark.parametrize("length", [0, RECORD + 1, (1 << 32) - 1])
def test_an_impossible_length_ends_the_channel_before_memory_is_taken(length: int) -> None:
    with pytest.raises(ConnectionAbortedError, match="impossible length"):
        hear(Seals.HMAC, length.to_bytes(4, "little") + bytes(100))


def test_a_channel_cut_off_within_a_record_hands_over_none_of_it() -> None:
    records = on_the_wire(Seals.HMAC)
    for cut in (1, TAG, len(records[2]) // 2, len(records[2]) - 4):
        assert hear(Seals.HMAC, records[0] + records[1] + records[2][:-cut]) == RECORDS[:2]
