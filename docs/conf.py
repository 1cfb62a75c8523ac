"""How the documentation is built: ``sphinx-build -W docs docs/_build``.

Numbers that the pages mention are those of the code: ``|most nested|`` and the like.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

project = "dtm"
author = "the authors of dtm"
version = release = import_module("dtm").__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "state_machines",
    "generated",
]
exclude_patterns = [
    "_build",
    "explored.rst",
    "figures_table.rst",
    "generations_table.rst",
    "planted_bugs.rst",
    "planted_shell_bugs.rst",
    "simulated_table.rst",
    "balancing",
    "trace/predicted.rst",
]
default_role = "literal"
highlight_language = "python"

html_show_copyright = False
html_theme = "alabaster"
html_theme_options = {
    "description": "The map of a Python program, on every core and every node",
    "page_width": "1100px",
}
html_sidebars = {"**": ["about.html", "navigation.html", "relations.html", "searchfield.html"]}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def constant(path: str, scale: float = 1.0) -> str:
    """Return a constant of the code as text."""
    module, _, name = path.rpartition(".")
    return f"{getattr(import_module(module), name) * scale:g}"


rst_prolog = f"""
.. |most frames| replace:: {constant("dtm.run.waiting.MOST_FRAMES")}
.. |patience ms| replace:: {constant("dtm.run.waiting.PATIENCE_SECONDS", 1e3)}
.. |slack ms| replace:: {constant("dtm.run.waiting.SLACK_SECONDS", 1e3)}
.. |poll slack ms| replace:: {constant("dtm.run.waiting.POLL_SLACK_SECONDS", 1e3)}
.. |unknown s| replace:: {constant("dtm.core.wait_policy.UNKNOWN_SECONDS")}
.. |untaken ms| replace:: {constant("dtm.core.wait_policy.UNTAKEN_SECONDS", 1e3)}
.. |stale s| replace:: {constant("dtm.core.wait_policy.STALE_SECONDS")}
.. |poll µs| replace:: {constant("dtm.run.runner.POLL_SECONDS", 1e6)}
.. |silent s| replace:: {constant("dtm.launch.remote_agent.SILENT_SECONDS")}
.. |many| replace:: {constant("dtm.core.relay.MANY")}
.. |strip µs| replace:: {constant("dtm.core.granularity.STRIP_SECONDS", 1e6)}
.. |switch ms| replace:: {constant("dtm.run.runtime.SWITCH_SECONDS", 1e3)}
"""


def is_only_numbered(_app: Any, _what: str, _name: str, member: Any, skip: bool, _: Any) -> bool:
    """Leave out what a named tuple says of its fields: "Alias for field number 0"."""
    return skip or str(getattr(member, "__doc__", "")).startswith("Alias for field")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", is_only_numbered)
