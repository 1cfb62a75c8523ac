"""Modules are found without running anything of them."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from dtm.launch.command_line import module_is_there


@pytest.mark.parametrize(
    ("name", "found"),
    [("one", True), ("one.whatever", True), ("pack", True), ("two", False), ("json", True)],
)
def test_a_module_is_found_by_the_first_part_of_its_name(
    tmp_path: Path, name: str, *, found: bool
) -> None:
    (tmp_path / "one.py").write_text("raise SystemExit('it was run')\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("raise SystemExit('it was run')\n")
    assert module_is_there(name, str(tmp_path), {}) is found
    assert not {"one", "pack"} & sys.modules.keys()


def test_the_path_of_the_environment_counts_from_the_directory(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "inner.py").touch()
    assert not module_is_there("inner", str(tmp_path), {})
    assert module_is_there("inner", str(tmp_path), {"PYTHONPATH": "/no/such:lib"})
    assert module_is_there("inner", "/", {"PYTHONPATH": str(tmp_path / "lib")})


def test_packages_that_are_installed_by_a_hook_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hook:
        @staticmethod
        def find_spec(name: str, path: object) -> ModuleSpec | None:
            return ModuleSpec(name, None) if name == "hooked" and path is None else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, object(), Hook])
    assert module_is_there("hooked.part", "/", {})
    assert not module_is_there("unhooked", "/", {})
