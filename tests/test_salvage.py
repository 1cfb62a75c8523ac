"""Of a list that cannot be loaded, which items are to blame."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dtm.wire.pickling import LARGE, dumps
from dtm.wire.salvage import salvage
from tests.travel import AtTop, at_top

# One object that cannot be loaded.


class Unloadable:
    def __init__(self, number: int) -> None:
        self.number = number

    def __setstate__(self, state: Any) -> None:
        raise ZeroDivisionError(state)


class Refusing:
    def __reduce__(self) -> Any:
        return int, ("no number",)


GOOD = st.recursive(
    st.integers() | st.text() | st.floats(allow_nan=False) | st.builds(lambda: [at_top, AtTop]),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
BAD = st.sampled_from([Unloadable(1), Refusing(), [1, [Unloadable(2)]], {"a": (Refusing(), 1)}])


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), GOOD, BAD), max_size=12))
def test_only_items_that_cannot_be_loaded_are_spoiled(rows: list[Any]) -> None:
    items = [bad if spoil else good for spoil, good, bad in rows]
    places = [place for place, (spoil, _, _) in enumerate(rows) if spoil]
    found = salvage(dumps(items))
    if not places:
        assert found is None
        return
    assert found is not None
    values, errors = found
    assert list(errors) == places
    assert all(
        value == good for value, (spoil, good, _) in zip(values, rows, strict=True) if not spoil
    )


def test_an_item_that_refers_to_a_spoiled_one_is_spoiled_too() -> None:
    bad = Unloadable(1)
    found = salvage(dumps([0, bad, 2, [bad], 4]))
    assert found is not None
    assert list(found[1]) == [1, 3]


def test_long_lists_are_salvaged() -> None:
    found = salvage(dumps([*range(2500), Refusing(), *range(10), np.zeros(LARGE), Refusing()]))
    assert found is not None
    assert list(found[1]) == [2500, 2512]


def test_what_is_no_list_is_not_salvaged() -> None:
    assert salvage(dumps((1, Refusing()))) is None
    assert salvage(dumps(Refusing())) is None
