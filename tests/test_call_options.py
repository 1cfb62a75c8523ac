"""The options of one call do what they say, wherever the items run."""

from __future__ import annotations

from typing import Any

import pytest

from dtm import OptionError, dtm
from tests import checks
from tests.launch import PROGRAMS

PROGRAM = PROGRAMS / "call_options.py"
PLACES = checks.places(PROGRAM, "local-3", "local-1", "mpi-3")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("check", checks.names(PROGRAM))
def test_in_a_run(check: str, place: str) -> None:
    checks.assert_kept(PROGRAM, place, check)


@pytest.mark.parametrize("place", PLACES)
def test_the_run_ends_well(place: str) -> None:
    checks.assert_ended_well(PROGRAM, place)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"time_out": 1}, OptionError, "did you mean 'timeout'"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"timeout": "1"}, ValueError, "timeout"),
        ({"timeout": True}, ValueError, "timeout"),
        ({"chunksize": 0}, ValueError, "chunksize"),
        ({"progress": 3}, TypeError, "progress"),
        ({"return_exceptions": "yes"}, TypeError, "return_exceptions"),
        ({"return_exceptions": True, "on_error": 0}, OptionError, "not both"),
        ({"callback": 3}, TypeError, "callback"),
    ],
)
def test_an_impossible_option_is_refused_by_name(
    given: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        dtm.options(**given)


def test_filter_of_an_array_is_an_array() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(6).reshape(3, 2)
    kept = dtm.filter(lambda row: row.sum() > 1, array)
    assert isinstance(kept, numpy.ndarray)
    assert kept.tolist() == [[2, 3], [4, 5]]
    assert dtm.filter(None, numpy.array([0, 1, 2])).tolist() == [1, 2]
    assert dtm.filter(lambda _: False, array).shape == (0, 2)
