"""What the workers have by import: the functions and classes that travel by name.

Every worker runs the same program up to ``dtm.start``, so what the program's imports have
left in its modules by then is on each of them.  What is put into a module later is not: a
class that ``deap.creator`` makes inside ``main``, a function behind ``global``, a cell of
a notebook.  Such a thing is held by a module under its name, plain pickle would send the
name, and the receiver would find nothing there, or something else.

``Imports.remember`` is called when a run starts and notes what the modules hold.  Of a module
that is imported later the compiled code is asked whether it mentions the name.  Before
``remember`` all that a module holds is taken for imported.

The workers of a run inside a program do *not* run the program (:mod:`dtm.run.inside`): they stand
*apart*.  They have what they can import, and nothing else: every module is asked as one that was
imported late, and ``__main__`` and modules that no finder finds are *lacking*, so all of theirs
goes by value.

Attributes that change: ``apart`` and ``epoch``.  The epoch counts the calls of the root of such a
run: definitions of classes are made anew for each, since what they refer to may have changed.

Threads: any, after ``remember``.

Rejected: to look whether a class has the look of a run-time class (there is no such look),
and to ask the receiver (a round trip for each class).
"""

from __future__ import annotations

import sys
from contextlib import suppress
from types import CodeType, FunctionType, ModuleType
from typing import Any

from dtm.core.identity import WeakIdentity

_MISSING = object()
_MAKERS = frozenset({"globals", "vars", "exec", "setattr"})


class Imports:
    """What the imports of this program have left in its modules.

    Attributes:
        apart: whether the other workers do not run this program.
        epoch: (root, apart) counts calls; 0 where definitions stay as they were first made.
    """

    def __init__(self) -> None:
        self.apart = False
        self.epoch = 0
        self._lacking: dict[str, bool] = {}
        self._left: dict[str, dict[str, Any]] | None = None
        self._known: WeakIdentity[tuple[dict[str, Any], str]] = WeakIdentity()
        self._named: dict[str, frozenset[str] | None] = {}

    def remember(self) -> None:
        """Note what functions and classes all modules hold now: the other workers hold them too.

        Nothing else is kept, for a program may want to free its data.
        """
        self._named.clear()
        self._lacking.clear()
        self._known = WeakIdentity()
        self._left = (
            {}
            if self.apart
            else {
                name: _functions_and_classes(module)
                for name, module in list(sys.modules.items())
                if isinstance(module, ModuleType)
            }
        )

    def forget(self) -> None:
        """Go back to taking all that a module holds for imported."""
        self._left = None

    def stand_apart(self) -> None:
        """Say that the other workers do not run this program."""
        import dis  # noqa: F401 - before a task spoils what imports need

        self.apart = True
        self.remember()

    def stand_together(self) -> None:
        """The run whose workers stood apart is over."""
        self.apart = False
        self._known = WeakIdentity()
        self.forget()

    def have(self, obj: Any) -> bool:
        """Tell whether the other workers have a function or class under its name."""
        known = self._known.get(obj)
        if known is not None:
            return known[0].get(known[1]) is obj
        found = self._have(obj)
        # For good: what was made at run time stays so, and what was imported can only be replaced.
        if self._left is not None:
            name = obj.__qualname__
            if not found:
                self._known.set(obj, ({}, name))
            elif "." not in name:
                self._known.set(obj, (vars(sys.modules[obj.__module__]), name))
        return found

    def _have(self, obj: Any) -> bool:
        module = sys.modules.get(getattr(obj, "__module__", None) or "")
        if module is None or not is_held(obj):
            return False
        if self._left is None:
            return True
        first = obj.__qualname__.partition(".")[0]
        if self.apart:
            return not self.lacks(obj.__module__) and self._is_made_by(module, first)
        return self._was_left(module, first)

    def lacks(self, name: str) -> bool:
        """Whether the other workers stand apart and cannot import the module of this name."""
        if not self.apart:
            return False
        known = self._lacking.get(name)
        if known is None:
            known = self._lacking[name] = name == "__main__" or not _is_findable(name)
        return known

    def _was_left(self, module: ModuleType, name: str) -> bool:
        current = vars(module).get(name, _MISSING)
        if current is _MISSING:  # the module finds it when it is asked
            return True
        left = (self._left or {}).get(module.__name__)
        if left is not None:
            return left.get(name) is current
        return self._is_made_by(module, name)

    def _is_made_by(self, module: ModuleType, name: str) -> bool:
        """Whether the import of a module makes a name, as far as its code tells."""
        named = self._names_of(module)
        return named is None or name in named

    def _names_of(self, module: ModuleType) -> frozenset[str] | None:
        """Return the names in the code of a module imported late, None if it has no code."""
        name = module.__name__
        if name not in self._named:
            loader = getattr(module.__spec__, "loader", None)
            try:
                code = loader.get_code(name) if loader is not None else None
            except (ImportError, AttributeError, OSError):
                code = None
            self._named[name] = None if code is None else _names_made(code)
        return self._named[name]


def _functions_and_classes(module: ModuleType) -> dict[str, Any]:
    # By the type itself: ``isinstance`` asks a proxy, whose ``__class__`` may raise anything.
    return {
        name: value
        for name, value in list(vars(module).items())
        if issubclass(type(value), (type, FunctionType))
    }


def _names_made(code: CodeType) -> frozenset[str] | None:
    """Return what the code of a module may name; None if it may make any name."""
    if ("*",) in code.co_consts or not _MAKERS.isdisjoint(code.co_names):
        return None
    texts = (constant for constant in code.co_consts if isinstance(constant, str))
    return frozenset((*code.co_names, *texts))


def _is_findable(name: str) -> bool:
    """Whether another process finds a module, or its file, as this one has."""
    module = sys.modules.get(name)
    if module is None or getattr(module, "__spec__", None) is None:
        return False
    if name in sys.builtin_module_names:
        return True
    parent = sys.modules.get(name.rpartition(".")[0])
    path = getattr(parent, "__path__", None) if parent is not None else None
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        with suppress(Exception):  # of somebody else's finder
            if find is not None and find(name, path) is not None:
                return True
    return False


def is_held(obj: Any) -> bool:
    """Tell whether a module holds a function or class under its name."""
    found: Any = sys.modules.get(getattr(obj, "__module__", None) or "")
    if found is None:
        return False
    try:
        for part in obj.__qualname__.split("."):
            found = getattr(found, part)
    except AttributeError:
        return False
    return found is obj


imports = Imports()
"""What the imports of this process have left."""
