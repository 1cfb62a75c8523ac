"""What the documentation takes from elsewhere, so that it cannot grow stale.

* ``.. rooms::`` lists the modules of dtm, each with the first line of its header.
* ``.. layers::`` draws which modules stand above which, from what they import.
* ``.. options-of:: WORD`` lists the options of a word of the command, as ``--help`` does.
* ``.. include-if-there:: FILE`` includes a file that a program generates; where it has
  not been generated, a sentence says so.
"""

from __future__ import annotations

import ast
from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path
from textwrap import fill
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.parsers.rst.directives.misc import Include

PACKAGE = Path(__file__).resolve().parent.parent / "dtm"


def rooms() -> dict[str, str]:
    """Return the name of each module and the first line of its header."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda path: (path.parent, path.name)):
        header = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        name = str(path.relative_to(PACKAGE.parent))
        found[name] = header.partition("\n\n")[0].replace("\n", " ")
    return found


def imports_of(path: Path, known: set[str]) -> set[str]:
    """Return the modules of dtm that a module imports, anywhere in it, except for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & known or {node.module}
    return found & known


def layers() -> list[list[str]]:
    """Return the modules in layers, the highest first; none imports from its own or above."""
    paths = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    }
    below = {name: imports_of(path, set(paths)) - {name} for name, path in paths.items()}
    found: list[list[str]] = []
    while below:
        layer = sorted(name for name, needs in below.items() if not needs & below.keys())
        if not layer:
            message = f"modules of dtm import each other in a circle: {sorted(below)}"
            raise ValueError(message)
        found.insert(0, layer)
        below = {name: needs for name, needs in below.items() if name not in layer}
    return found


class Layers(Directive):
    """The directive ``layers``."""

    def run(self) -> list[nodes.Node]:
        """Return a block of text."""
        text = "\n".join(
            fill(
                "  ".join(name.removeprefix("dtm.") for name in layer), 95, subsequent_indent="    "
            )
            for layer in layers()
        )
        return [nodes.literal_block(text, text, language="text")]


class Rooms(Directive):
    """The directive ``rooms``."""

    def run(self) -> list[nodes.Node]:
        """Return a list of definitions."""
        listed = nodes.definition_list()
        for name, first in rooms().items():
            term = nodes.term()
            term += nodes.literal(text=name)
            definition = nodes.definition()
            parsed, messages = self.state.inline_text(first, self.lineno)
            definition += nodes.paragraph("", "", *parsed, *messages)
            listed += nodes.definition_list_item("", term, definition)
        return [listed]


class OptionsOf(Directive):
    """The directive ``options-of``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a list of definitions."""
        from dtm.commands import COMMANDS
        from dtm.commands.run import VARIABLES

        parser = ArgumentParser(add_help=False)
        import_module(COMMANDS[self.arguments[0]]).add_arguments(parser)
        listed = nodes.definition_list()
        for action in parser._actions:
            name = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
            flags = ", ".join(action.option_strings)
            text = f"{flags} {name}".strip() if flags else str(name)
            variable = VARIABLES.get(action.dest) if flags and self.arguments[0] == "run" else None
            more = f"  (``{variable}``)" if variable else ""
            definition = nodes.definition()
            parsed, _ = self.state.inline_text(f"{action.help}{more}", self.lineno)
            definition += nodes.paragraph("", "", *parsed)
            term = nodes.term("", "", nodes.literal(text=text))
            listed += nodes.definition_list_item("", term, definition)
        return [listed]


class IncludeIfThere(Include):
    """The directive ``include-if-there``."""

    def run(self) -> list[nodes.Node]:
        """Return what the file holds, or a sentence."""
        here = Path(self.state.document.current_source or "").parent
        if (here / self.arguments[0]).exists():
            return list(super().run())
        return [nodes.paragraph(text="(This copy of the documentation was built without it.)")]


def setup(app: Any) -> dict[str, bool]:
    """Register the directives with Sphinx."""
    app.add_directive("layers", Layers)
    app.add_directive("rooms", Rooms)
    app.add_directive("options-of", OptionsOf)
    app.add_directive("include-if-there", IncludeIfThere)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
