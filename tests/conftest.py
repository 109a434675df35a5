# SPDX-License-Identifier: Apache-2.0
"""Settings of the whole suite, hypothesis profiles, and fresh interpreters for tests that need one."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Protocol

import hypothesis
import pytest

# In CI the examples are the same every time; elsewhere each run looks at new ones. Speed decides no test.
hypothesis.settings.register_profile("default", deadline=None, max_examples=60)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=60, derandomize=True, database=None)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))

SECONDS = 120


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without the library's own variables, but with `variables`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BACKSTRIDE_")}
    return clean | variables


class Python(Protocol):
    def __call__(self, code: str, fails: bool = False, **variables: str) -> str: ...


@pytest.fixture(scope="session")
def python() -> Python:
    """Runs code in a fresh interpreter under the given environment variables. What it prints is returned, or
    what it says in the end when it `fails`; if it does the other of the two, the test has failed."""

    def run(code: str, fails: bool = False, **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert (done.returncode != 0) is fails, done.stderr
        return done.stderr if fails else done.stdout

    return run
