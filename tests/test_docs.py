# SPDX-License-Identifier: Apache-2.0
"""Every example in a docstring and in the README runs and shows what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import backstride
from backstride.keras import backend

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "docs" / "porting.md"]


def modules() -> list[ModuleType]:
    """The package and its public modules."""
    names = [name for _, name, _ in pkgutil.walk_packages(backstride.__path__, "backstride.")]
    public = [name for name in names if not any(part.startswith("_") for part in name.split("."))]
    return [backstride, *map(importlib.import_module, public)]


def functions() -> dict[str, Any]:
    """Every public function, by its documented name."""
    return {
        f"{module.__name__}.{name}": getattr(module, name)
        for module in modules()
        for name in getattr(module, "__all__", [])
        if inspect.isfunction(getattr(module, name))
    }


@pytest.fixture(autouse=True)
def settings_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Examples may change settings, and write files where they run."""
    monkeypatch.chdir(tmp_path)
    threads, data_format = backstride.get_num_threads(), backend.image_data_format()
    yield
    backstride.set_num_threads(threads)
    backend.set_image_data_format(data_format)


def run(test: doctest.DocTest) -> None:
    """Runs the examples and shows the ones that fail."""
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)
    assert result.failed == 0, "".join(said)


@pytest.mark.parametrize("name", functions())
def test_examples_of_functions(name: str) -> None:
    (test, *others) = doctest.DocTestFinder(recurse=False).find(functions()[name], name, globs={})
    assert not others
    run(test)


def classes() -> dict[str, type]:
    """Every public class, by its own name."""
    found = [getattr(module, name) for module in modules() for name in getattr(module, "__all__", [])]
    return {item.__qualname__: item for item in found if inspect.isclass(item) and "backstride" in item.__module__}


@pytest.mark.parametrize("name", classes())
def test_examples_of_classes(name: str) -> None:
    """Its own and its methods'; every class has one, but for what a function returns."""
    tests = [test for test in doctest.DocTestFinder().find(classes()[name], name, globs={}) if test.examples]
    assert tests or name in ("Accelerated", "Framework", "Module", "Run", "Usual", "Variable", "VariableScope")
    for test in tests:
        run(test)


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_examples_of_modules(module: ModuleType) -> None:
    assert module.__doc__
    run(doctest.DocTestParser().get_doctest(module.__doc__, {}, module.__name__, None, 0))


@pytest.mark.parametrize("name", functions())
def test_every_public_function_has_an_example_and_says_what_it_takes(name: str) -> None:
    function = functions()[name]
    docs = inspect.getdoc(function) or ""
    parameters = inspect.signature(function).parameters
    if parameters:
        assert ">>>" in docs
    for parameter in parameters:
        assert re.search(rf"^    (\w+, )*{parameter}(, \w+)*: ", docs, re.MULTILINE), f"{parameter} is not described"


def test_compat_documents_nothing_of_its_own() -> None:
    names = functions()
    for name in [name for name in names if ".compat.v1." in name]:
        assert names[name] is names[name.replace(".compat.v1", "")]


# Pages


def blocks(text: str) -> list[tuple[int, str]]:
    """The line and the text of every Python block."""
    fences = re.finditer(r"^```(?:python|pycon)\s*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, fence.start(1)) + 1, fence[1]) for fence in fences]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_pages(page: Path) -> None:
    """In order and in one session, as a reader would run them."""
    names: dict[str, Any] = {"__name__": page.stem}
    for line, block in blocks(page.read_text()):
        if ">>>" in block:
            test = doctest.DocTestParser().get_doctest(block, names, page.name, page.name, line - 1)
            said: list[str] = []
            result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(
                test, out=said.append, clear_globs=False
            )
            assert result.failed == 0, "".join(said)
            names = test.globs
        else:
            exec(compile("\n" * (line - 1) + block, page.name, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_fences_are_all_understood(page: Path) -> None:
    """No block of Python hides behind a fence that the test above does not see."""
    text = page.read_text()
    fences = re.findall(r"^\s*(?:```|~~~)(.*)$", text, re.MULTILINE)
    assert len(fences) % 2 == 0
    assert not [fence for fence in fences if "py" in fence.lower() and fence.strip() not in ("python", "pycon")]
    assert sum(fence.strip() in ("python", "pycon") for fence in fences) == len(blocks(text))
