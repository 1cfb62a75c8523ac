"""What is built and installed: the files of the sdist and the wheel, and a run from the wheel."""

from __future__ import annotations

import email
import importlib.metadata
import re
import shutil
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterable
from email.message import Message
from pathlib import Path

import pytest

from dtm.version import VERSION
from tests.launch import ROOT, environment, run

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TIMEOUT = 100.0
pytestmark = pytest.mark.xdist_group("packaging")  # what is built is built once
GENERATED = re.compile(r"__pycache__|\.pyc$|/_build/|/\.venv|egg-info/.*\.py")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the tree: a build writes into it, and others are testing in this one."""
    copy = tmp_path_factory.mktemp("packaging") / "checkout"
    left_out = (".*", "__pycache__", "_build", "build", "dist", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*left_out))
    shutil.copytree(ROOT / ".ci", copy / ".ci")
    return copy


@pytest.fixture(scope="module")
def built(checkout: Path) -> Path:
    """Build both archives; return the folder that holds them."""
    pytest.importorskip("build", reason="build is not installed: pip install --group dev")
    # Without isolation the test needs no index: the group dev has brought setuptools.
    _done([sys.executable, "-m", "build", "--no-isolation"], checkout)
    return checkout / "dist"


def _done(command: Iterable[str], folder: Path, **extra: str) -> str:
    done = run(list(command), environment(extra), TIMEOUT, cwd=folder)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def sdist(built: Path) -> set[str]:
    """Return the names of the files in the sdist, without its own folder."""
    (archive,) = built.glob("*.tar.gz")
    assert archive.name == f"dtm-{VERSION}.tar.gz"
    with tarfile.open(archive) as files:
        return {each.name.partition("/")[2] for each in files if each.isfile()}


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    """Return the wheel."""
    (archive,) = built.glob("*.whl")
    assert archive.name == f"dtm-{VERSION}-py3-none-any.whl"
    return archive


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """Return what the wheel says of itself."""
    with zipfile.ZipFile(wheel) as files:
        return email.message_from_bytes(files.read(f"dtm-{VERSION}.dist-info/METADATA"))


def _modules(folder: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*.py")}


def test_wheel_holds_every_module_two_other_files_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        names = {name for name in files.namelist() if ".dist-info/" not in name}
    assert names == _modules("dtm") | {"dtm/py.typed", "dtm/trace/live.html"}


def test_every_wing_is_a_package() -> None:
    # The list of packages is found: a folder without __init__.py would be left out silently.
    folders = {path.parent for path in (ROOT / "dtm").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_sdist_holds_all_that_is_needed_to_test_and_document_it(sdist: set[str]) -> None:
    wanted = set().union(*map(_modules, ("dtm", "tests", "examples", "benchmarks", "docs")))
    wanted = {name for name in wanted if not GENERATED.search(name)}
    texts = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.rst")}
    top = {"LICENSE", "README.rst", "CHANGELOG.rst", "CONTRIBUTING.rst", "CITATION.cff"}
    missing = (wanted | texts | top | {"pyproject.toml", ".ci/run", "tools/free_threaded"}) - sdist
    assert not missing
    assert not [name for name in sdist if GENERATED.search(name)]


def test_metadata_is_that_of_the_project(metadata: Message) -> None:
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["Version"] == VERSION
    assert metadata["Requires-Python"] == ">=3.11"
    classifiers = metadata.get_all("Classifier", [])
    assert not [each for each in classifiers if each.startswith("License ::")]  # PEP 639
    versions = [each.rpartition(" ")[2] for each in classifiers if re.search(r":: 3\.\d", each)]
    assert versions == ["3.11", "3.12", "3.13", "3.14", "3.15"]


def test_extras_are_for_users_and_what_the_program_names_is_there(metadata: Message) -> None:
    extras = set(metadata.get_all("Provides-Extra", []))
    assert extras.isdisjoint(PROJECT["dependency-groups"])
    named: set[str] = set()
    for path in (
        *(ROOT / "dtm").rglob("*.py"),
        *(ROOT / "docs").glob("*.rst"),
        ROOT / "README.rst",
    ):
        for found in re.findall(r"(?:dtm|'\.)\[([a-z,]+)\]", path.read_text(encoding="utf-8")):
            named |= set(found.split(","))
    assert named
    assert named <= extras


def test_development_brings_what_the_checks_need() -> None:
    groups = PROJECT["dependency-groups"]
    assert {each["include-group"] for each in groups["dev"]} == {"test", "lint", "docs", "release"}


@pytest.mark.parametrize("archive", ["*.whl", "*.tar.gz"])
def test_archives_pass_the_check_of_the_index(built: Path, archive: str) -> None:
    pytest.importorskip("twine", reason="twine is not installed: pip install --group dev")
    (found,) = built.glob(archive)
    assert "PASSED" in _done(
        [sys.executable, "-m", "twine", "check", "--strict", str(found)], built
    )


def _pip(wheel: Path, target: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index"]
    _done([*command, "--target", str(target), str(wheel)], target.parent)


def _uv(wheel: Path, target: Path) -> None:
    uv = _found_uv()
    command = [uv, "pip", "install", "--offline", "--no-deps", "--python", sys.executable]
    _done([*command, "--target", str(target), str(wheel)], target.parent)


def _found_uv() -> str:
    beside = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if beside is None:
        pytest.skip("there is no uv: pip install --group dev")
    return beside


@pytest.mark.parametrize("install", [_pip, _uv], ids=["pip", "uv"])
def test_installed_wheel_runs_a_program(
    wheel: Path, install: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    target = tmp_path / "installed"
    install(wheel, target)
    program = tmp_path / "prog.py"
    program.write_text(
        "import dtm\n"
        "def main():\n"
        "    print(dtm.__file__, dtm.__version__, sum(dtm.map(abs, range(-50, 50))))\n"
        "dtm.start(main)\n"
    )
    where = {"PYTHONPATH": str(target), "DTM_WORKERS": "2"}
    done = run([sys.executable, str(program)], environment() | where, TIMEOUT, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{target}/dtm/__init__.py {VERSION} 2500\n"), (
        done.stderr
    )


def test_uv_builds_the_same_wheel(checkout: Path, wheel: Path, tmp_path: Path) -> None:
    command = [_found_uv(), "build", "--wheel", "--offline", "--no-build-isolation", "-q"]
    _done([*command, "--python", sys.executable, "-o", str(tmp_path)], checkout)
    (ours,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(ours) as one, zipfile.ZipFile(wheel) as other:
        assert set(one.namelist()) == set(other.namelist())


def test_version_stands_in_one_place() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    assert importlib.metadata.version("dtm") == VERSION
    assert VERSION not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert not re.search(r"^version:", citation, re.MULTILINE)
    for field in ("cff-version", "message", "title", "authors", "license"):
        assert re.search(rf"^{field}:", citation, re.MULTILINE), field


def test_the_backend_of_joblib_says_what_to_install() -> None:
    program = "import sys; sys.modules['joblib'] = None\nimport dtm.joblib"
    done = run([sys.executable, "-c", program], environment(), 60)
    assert done.returncode == 1
    assert done.stderr.endswith("ImportError: dtm.joblib needs joblib: pip install 'dtm[joblib]'\n")
