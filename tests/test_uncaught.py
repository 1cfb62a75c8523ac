"""What a user sees when a program of the command ends by an exception."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from dtm.comm.tcp.credentials import Credentials
from tests import launch

LIMIT = 60.0
WORKS = "from dtm import dtm\ndtm.start(lambda: None)\n"


def run(
    directory: Path, *words: str, env: dict[str, str] | None = None, command: bool = True
) -> launch.Completed:
    before = ["-m", "dtm"] if command else []
    environment = launch.environment(env)
    return launch.run([sys.executable, *before, *words], environment, LIMIT, cwd=directory)


def program(directory: Path, text: str = WORKS, name: str = "prog.py") -> str:
    (directory / name).write_text(text)
    return name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--comm", "bogus", "prog.py"], "option communicationManager is 'bogus'"),
        (["--comm", "a.b.C", "prog.py"], "cannot import 'a.b.C'"),
        (["--comm", "tcp", "--bind", "192.0.2.1", "prog.py"], "cannot listen at 192.0.2.1: "),
        (["--comm", "tcp", "--secret-file", "there", "prog.py"], "/there: File exists"),
        (["--comm", "tcp", "-n", "1", "--bind", "192.0.2.1", "prog.py"], "listen at 192.0.2.1: "),
        (["-m", "nosuch"], "No module named nosuch"),
        (["-m", "empty"], "'empty' is a package and cannot be directly executed"),
        (["empty"], "can't find '__main__' module in 'empty'"),
    ],
)
def test_what_the_user_has_to_mend_is_one_line(tmp_path: Path, words: list[str], said: str) -> None:
    program(tmp_path)
    (tmp_path / "there").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "__init__.py").touch()
    done = run(tmp_path, *words)
    assert done.returncode == 1
    assert re.fullmatch(f"dtm: .*{re.escape(said)}.*\n", done.stderr), done.stderr


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("DTM_WORKERS", "0", "at least 1, not 0 (said by DTM_WORKERS or the command line)"),
        ("DTM_WORKERS", "x", "DTM_WORKERS='x' is not a whole number"),
        ("DTM_COMM", "bogus", "(said by DTM_COMM or the command line)"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_a_wrong_variable_is_named_in_one_line(
    tmp_path: Path, variable: str, text: str, said: str, options: list[str]
) -> None:
    done = run(tmp_path, *options, program(tmp_path), env={variable: text})
    assert done.returncode == 1
    assert re.fullmatch(f"dtm: .*{re.escape(said)}\n", done.stderr), done.stderr


def test_python_alone_shows_the_same_error_as_ever(tmp_path: Path) -> None:
    done = run(tmp_path, program(tmp_path), env={"DTM_COMM": "a.b.C"}, command=False)
    assert done.returncode == 1
    assert done.stderr.startswith('Traceback (most recent call last):\n  File "')
    assert "\ndtm.errors.OptionError: option communicationManager" in done.stderr


def test_a_joiner_with_a_wrong_secret_gets_one_line(tmp_path: Path) -> None:
    root = program(tmp_path, "from dtm import dtm\nimport time\ndtm.start(time.sleep, 600)\n")
    Credentials.fresh().to_file(str(tmp_path / "wrong"))
    words = [sys.executable, "-m", "dtm", "--comm", "tcp", root]
    with launch.started(words, launch.environment(), cwd=tmp_path) as leading:
        address = leading.wait_for_error(r"tcp://\S+")[0]
        done = run(tmp_path, "join", address, "--secret-file", "wrong", root)
        assert done.returncode == 1
        assert re.fullmatch(f"dtm: cannot join the run at {address}: .*\n", done.stderr), done
        os.kill(leading.process.pid, 15)
        leading.wait(LIMIT)


# The program's own exceptions.

FAILS = """
from dtm import dtm
def main():
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("own") from error
dtm.start(main)
"""


@pytest.mark.parametrize(
    "words", [["prog.py"], ["-m", "prog"], ["--comm", "tcp", "-n", "1", "prog.py"]]
)
def test_a_programs_own_exception_begins_at_the_program(tmp_path: Path, words: list[str]) -> None:
    program(tmp_path, FAILS)
    done = run(tmp_path, *words, env={"DTM_WORKERS": "1"})
    assert done.returncode == 1
    cause, effect = done.stderr.split("The above exception was the direct cause")
    assert "KeyError: 'key'" in cause
    assert re.search(r"call last\):\n  File \"[^\"]*prog.py\", line 8, in <module>", effect)
    assert 'line 7, in main\n    raise ValueError("own") from error\n' in effect
    assert effect.rstrip().endswith("ValueError: own")
    assert "runpy" not in done.stderr
    assert "commands" not in done.stderr


def test_an_error_of_a_module_that_the_program_imports_is_not_taken_for_the_programs_absence(
    tmp_path: Path,
) -> None:
    done = run(tmp_path, program(tmp_path, "import nosuch\n"))
    assert re.search(r'  File ".*prog.py", line 1, in <module>', done.stderr)
    assert "ModuleNotFoundError: No module named 'nosuch'" in done.stderr
    (tmp_path / "package").mkdir()
    program(tmp_path / "package", "raise ImportError('broken')\n", "__init__.py")
    done = run(tmp_path, "-m", "package.part")
    assert re.search(r'  File ".*__init__.py", line 1, in <module>', done.stderr)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("from dtm import dtm\ndtm.setOptions(wrokers=2)\n", "line 2, in <module>"),
        ("from dtm import dtm\ndtm.start(dtm.setOptions, seed='x')\n", "line 2, in <module>"),
        ("x = (\n", "SyntaxError"),
    ],
)
def test_a_wrong_call_of_the_programs_shows_where_it_is(
    tmp_path: Path, text: str, said: str
) -> None:
    done = run(tmp_path, program(tmp_path, text), env={"DTM_WORKERS": "1"})
    assert done.returncode == 1
    assert said in done.stderr
    assert not done.stderr.startswith("dtm: ")


def test_a_hook_of_the_programs_is_called(tmp_path: Path) -> None:
    text = "import sys\nsys.excepthook = lambda kind, *_: print(kind)\n1 / 0\n"
    done = run(tmp_path, program(tmp_path, text))
    assert (done.returncode, done.stdout) == (1, "<class 'ZeroDivisionError'>\n")
    assert done.stderr == ""
