"""What the workers have by import: the functions and classes that travel by name.

Every worker runs the same program up to ``dtm.start``, so what the program's imports have
left in its modules by then is on each of them.  What is put into a module later is not: a
class that ``deap.creator`` makes inside ``main``, a function behind ``global``, a cell of
a notebook.  Such a thing is held by a module under its name, plain pickle would send the
name, and the receiver would find nothing there, or something else.

``Imports.remember`` is called when a run starts and notes what the modules hold.  Of a module
that is imported later the compiled code is asked whether it mentions the name.  Before
``remember`` all that a module holds is taken for imported.

Threads: any, after ``remember``.

Rejected: to look whether a class has the look of a run-time class (there is no such look),
and to ask the receiver (a round trip for each class).
"""

from __future__ import annotations

import sys
from types import FunctionType, ModuleType
from typing import Any

from dtm.core.identity import WeakIdentity

_MISSING = object()


class Imports:
    """What the imports of this program have left in its modules."""

    def __init__(self) -> None:
        self._left: dict[str, dict[str, Any]] | None = None
        self._pruned = False
        self._known: WeakIdentity[tuple[dict[str, Any], str]] = WeakIdentity()
        self._named: dict[str, frozenset[str] | None] = {}

    def remember(self) -> None:
        """Note what all modules hold now: that is what the other workers hold too."""
        self._named.clear()
        self._known = WeakIdentity()
        self._pruned = False
        self._left = {
            name: dict(vars(module))
            for name, module in list(sys.modules.items())
            if isinstance(module, ModuleType)
        }

    def forget(self) -> None:
        """Go back to taking all that a module holds for imported."""
        self._left = None

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
        if not self._pruned:
            self._prune()
        first = obj.__qualname__.partition(".")[0]
        return self._was_left(module, first)

    def _prune(self) -> None:
        """Let go of all that is no function or class: a program may want to free its data."""
        self._pruned = True
        self._left = {
            module: {
                name: value
                for name, value in names.items()
                if isinstance(value, (type, FunctionType))
            }
            for module, names in (self._left or {}).items()
        }

    def _was_left(self, module: ModuleType, name: str) -> bool:
        current = vars(module).get(name, _MISSING)
        if current is _MISSING:  # the module finds it when it is asked
            return True
        left = (self._left or {}).get(module.__name__)
        if left is not None:
            return left.get(name) is current
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
            self._named[name] = None if code is None else frozenset(code.co_names)
        return self._named[name]


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
