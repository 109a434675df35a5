# SPDX-License-Identifier: Apache-2.0
"""What `import backstride` brings along, and how long it takes."""

from __future__ import annotations

import sys

import pytest
from conftest import Python

# Prints the packages that a statement imports over those that NumPy does, and the milliseconds it takes.
PROBE = """
import sys, time
import numpy
before = set(sys.modules)
start = time.perf_counter()
{statement}
print(1000 * (time.perf_counter() - start), *{{name.partition(".")[0] for name in set(sys.modules) - before}})
"""

MILLISECONDS = 100
TRIES = 7


def imported(python: Python, statement: str) -> tuple[float, set[str]]:
    """The time, and the packages beyond the standard library and the library itself."""
    time, *packages = python(PROBE.format(statement=statement)).split()
    known = {"numpy", "backstride", *sys.stdlib_module_names}
    return float(time), set(packages) - known


def test_import_brings_no_other_package(python: Python) -> None:
    assert imported(python, "import backstride")[1] == set()


def test_use_brings_no_other_package(python: Python) -> None:
    call = "backstride.nn.conv2d_transpose([[[[1.0]]]], [[[[1.0]]]], [1, 1], 1)"
    shown = "backstride.show_config()"
    assert (
        imported(python, f"import backstride; {call}; sys.stdout = sys.stderr; {shown}; sys.stdout = sys.__stdout__")[1]
        == set()
    )


@pytest.mark.parametrize("package", ["autograd", "ml_dtypes", "scipy", "torch"])
def test_another_package_would_be_seen(python: Python, package: str) -> None:
    assert package in imported(python, f"import backstride, {package}")[1]


def test_import_is_fast(python: Python) -> None:
    """Beyond NumPy's own time. Of several tries the best, since other programs can only slow it down."""
    best = min(imported(python, "import backstride")[0] for _ in range(TRIES))
    assert best < MILLISECONDS


def test_slow_import_would_be_seen(python: Python) -> None:
    slow = f"import backstride; time.sleep({MILLISECONDS / 1000})"
    assert min(imported(python, slow)[0] for _ in range(2)) >= MILLISECONDS


@pytest.mark.parametrize("package", ["autograd", "ml_dtypes", "scipy", "torch", "typer", "rich", "skimage"])
def test_every_extra_may_be_missing(python: Python, package: str) -> None:
    code = f"""
import sys
sys.modules[{package!r}] = None
import backstride
backstride.show_config()
print(backstride.nn.conv2d_transpose([[[[2.0]]]], [[[[3.0]]]], [1, 1], 1).item())
"""
    assert python(code).splitlines()[-1] == "6.0"


def test_arrays_of_a_missing_library_are_refused(python: Python) -> None:
    """A type that says it is from a library that has no backend: told apart from a broken one."""
    code = """
import backstride
Foreign = type("Tensor", (), {"__module__": "paddle"})
try:
    backstride.nn.conv2d_transpose(Foreign(), [[[[3.0]]]], [1, 1], 1)
except TypeError as error:
    print(error)
"""
    assert "got paddle.Tensor" in python(code)
