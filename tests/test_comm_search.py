"""The search for a peer that there is no link to yet."""

from __future__ import annotations

from dtm.comm.tcp.roster import AGAIN, UNREACHABLE, Search, Stage


def test_a_peer_that_answers_is_called_once() -> None:
    search = Search([b"first"])
    assert search.here(1.0)
    assert not search.here(1.1), "it is being called already"
    assert search.stage is Stage.CALLED
    assert search.messages == [[b"first"]]


def test_a_peer_that_has_not_joined_is_called_when_it_has() -> None:
    search = Search([])
    search.not_yet()
    assert search.stage is Stage.ABSENT
    assert not search.asks_again(99.0)
    assert search.here(100.0)


def test_a_peer_that_does_not_answer_is_asked_for_again_and_then_given_up() -> None:
    search = Search([])
    now, asked = 10.0, 0
    assert search.here(now)
    while search.missed(now):
        assert not search.asks_again(now), "not at once"
        now += AGAIN
        assert search.asks_again(now)
        asked += 1
        assert search.here(now)
    assert 10.0 + UNREACHABLE <= now < 10.0 + UNREACHABLE + 2 * AGAIN
    assert asked > 1


def test_the_end_of_an_earlier_call_changes_nothing() -> None:
    search = Search([])
    assert search.missed(1.0)
    assert search.stage is Stage.ASKED
