"""What a function reads of its module: the globals that go along where nobody has the module.

The instructions of the code say which names it looks up, those of the functions and classes that
stand inside of it included.  A name that is read through an attribute (``x.data``) is none of them,
so a global that happens to have it stays here.

The modules of a package are its attributes: ``import xml.dom`` binds ``xml``, and a process that
imports ``xml`` alone has no ``xml.dom``.  So such modules go along, each under its full name, which
no variable can have.

What the program has put into a module after its import, a class that ``deap.creator`` makes in a
cell, is no name of the function's module either, and code reads it through the module
(``creator.Individual``).  Those classes go along under full names too; at their arrival the module
gets them (:func:`dtm.wire.rebuilding.make_class`).

A package may have a *companion*, whose import changes what the package knows.  A program that has
imported it expects that of its functions anywhere, so it goes along with what is of the package.

Threads: any.  Importing :mod:`dis` takes a few milliseconds, so only runs whose workers stand apart
pay for it, when they begin.

Rejected: all names that stand in the code (``co_names``).  Names of attributes are among them: a
method ``run`` would take the global ``run`` along, which may be large, or cannot be sent.
"""

from __future__ import annotations

import sys
from types import CodeType, FunctionType, ModuleType
from typing import Any

from dtm.core.identity import WeakIdentity
from dtm.wire.imports import imports

_READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})

_found: WeakIdentity[frozenset[str]] = WeakIdentity()

companions: dict[str, str] = {}
"""Modules to be imported where a package is used, by the package's name."""


def globals_read(code: CodeType, names: dict[str, Any]) -> dict[str, Any]:
    """Return those of the names that the code reads, and what of modules it needs besides."""
    read = {name: names[name] for name in sorted(_names_read(code)) if name in names}
    read.pop("__name__", None)  # whoever is given them has it
    read.pop("__builtins__", None)
    modules = [value for value in read.values() if isinstance(value, ModuleType)]
    if modules:
        mentioned = _names_mentioned(code)
        for module in modules:
            if hasattr(module, "__path__"):
                below = _modules_below(module, mentioned)
                read.update(below)
                for each in below.values():
                    read.update(_classes_put_into(each, mentioned))
            read.update(_classes_put_into(module, mentioned))
    if companions:
        for value in list(read.values()):
            companion = companions.get(_package_of(value))
            if companion is not None:
                read[companion] = sys.modules[companion]
    return read


def _package_of(value: Any) -> str:
    """Return the package that a module, function or class is of; empty for all else."""
    home = None
    if isinstance(value, ModuleType):
        home = value.__name__
    elif isinstance(value, (type, FunctionType)):
        home = value.__module__
    return home.partition(".")[0] if isinstance(home, str) else ""


def _names_read(code: CodeType) -> frozenset[str]:
    known = _found.get(code)
    if known is None:
        from dis import get_instructions

        known = frozenset(
            instruction.argval
            for instruction in get_instructions(code)
            if instruction.opname in _READS
        ).union(*map(_names_read, _inner(code)))
        _found.set(code, known)
    return known


def _names_mentioned(code: CodeType) -> set[str]:
    return set(code.co_names).union(*map(_names_mentioned, _inner(code)))


def _inner(code: CodeType) -> list[CodeType]:
    return [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def _modules_below(package: ModuleType, mentioned: set[str]) -> dict[str, ModuleType]:
    """Return the imported modules of a package whose names stand in the code."""
    stem = f"{package.__name__}."
    return {
        name: module
        for name, module in list(sys.modules.items())
        if name.startswith(stem)
        and isinstance(module, ModuleType)
        and mentioned.issuperset(name[len(stem) :].split("."))
    }


def _classes_put_into(module: ModuleType, mentioned: set[str]) -> dict[str, type]:
    """Return the classes of a module that its import has not made and whose names are mentioned."""
    found = {name: vars(module)[name] for name in mentioned & vars(module).keys()}
    return {
        f"{module.__name__}.{name}": value
        for name, value in sorted(found.items())
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and value.__qualname__ == name
        and not imports.have(value)
    }
