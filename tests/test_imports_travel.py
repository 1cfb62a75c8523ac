"""What imports have left goes by name, and what comes into a module later by value."""

from __future__ import annotations

import copy
import importlib.machinery
import pickle
import sys
import types
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from dtm.wire.imports import imports
from dtm.wire.pickling import dumps
from tests.travel import as_if_new, as_if_new_frames, there_and_back


@pytest.fixture
def started() -> Iterator[None]:
    """Be in a run: what modules get from here on is not on the workers."""
    imports.remember()
    yield
    imports.forget()


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Return a module of the program."""
    made = types.ModuleType("made_for_this")
    made.__spec__ = importlib.machinery.ModuleSpec("made_for_this", None)
    monkeypatch.setitem(sys.modules, "made_for_this", made)
    return made


def in_module(module: types.ModuleType, code: str) -> Any:
    exec(code, vars(module))
    return module


@pytest.mark.usefixtures("started")
def test_what_was_imported_goes_by_name_and_what_came_later_by_value(
    module: types.ModuleType,
) -> None:
    in_module(module, "class Early: pass\ndef early(): return 1")
    imports.remember()
    in_module(module, "class Late:\n def get(self): return 5\ndef late(): return 2")
    assert there_and_back((module.Early, module.early)) == (module.Early, module.early)
    assert b"load_class" not in dumps((module.Early, module.early))[0]
    late, function = module.Late, module.late
    obj, called = as_if_new((late(), function))
    assert (obj.get(), called()) == (5, 2)
    assert type(there_and_back(late())) is late


class Proxy:
    """Stands for an object that is made when somebody asks for it."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise LookupError("asked too early")


@pytest.mark.usefixtures("started")
def test_objects_that_stand_for_others_are_not_asked_when_a_run_starts(
    module: types.ModuleType,
) -> None:
    in_module(module, "class Early: pass")
    module.proxy = Proxy()  # type: ignore[attr-defined]
    imports.remember()
    assert imports.have(module.Early)


@pytest.mark.usefixtures("started")
def test_a_run_keeps_no_data_of_modules_alive(module: types.ModuleType) -> None:
    module.data = types.ModuleType("data")  # type: ignore[attr-defined]
    gone = weakref.ref(module.data)
    imports.remember()
    del module.data
    assert gone() is None


@pytest.mark.usefixtures("started")
def test_what_replaces_an_imported_thing_goes_by_value(module: types.ModuleType) -> None:
    in_module(module, "class Same: kind = 'old'\ndef work(): return 'old'")
    imports.remember()
    in_module(module, "class Same: kind = 'new'\ndef work(): return 'new'")
    frames = dumps((module.Same(), module.work))
    in_module(module, "class Same: kind = 'old'\ndef work(): return 'old'")
    obj, work = as_if_new_frames(frames)
    assert (obj.kind, work()) == ("new", "new")


@pytest.mark.usefixtures("started")
def test_a_class_held_by_a_module_is_held_by_it_where_it_arrives(
    module: types.ModuleType,
) -> None:
    imports.remember()
    in_module(
        module, "class Late(list):\n def __init__(self, *a): super().__init__(*a); self.b = 1"
    )
    frames = dumps(module.Late([1, 2]))
    sent = vars(module).pop("Late")
    arrived = as_if_new_frames(frames)
    assert type(arrived) is module.Late is not sent
    for copied in (pickle.loads(pickle.dumps(arrived)), copy.deepcopy(arrived)):
        assert (copied, copied.b, type(copied)) == ([1, 2], 1, module.Late)


@pytest.mark.usefixtures("started")
def test_classes_of_deaps_creator_keep_their_identity() -> None:
    creator = pytest.importorskip("deap.creator")
    base = pytest.importorskip("deap.base")
    imports.remember()
    creator.create("FitnessMade", base.Fitness, weights=(1.0,))
    creator.create("IndividualMade", list, fitness=creator.FitnessMade)
    sent = creator.IndividualMade([1, 2])
    sent.fitness.values = (3.0,)
    back = there_and_back(sent)
    assert type(back) is creator.IndividualMade
    assert type(back.fitness) is creator.FitnessMade
    for copied in (back, pickle.loads(pickle.dumps(back)), copy.deepcopy(back)):
        assert (copied, copied.fitness.values) == ([1, 2], (3.0,))
    new = as_if_new(sent)
    assert (new, new.fitness.values) == ([1, 2], (3.0,))
