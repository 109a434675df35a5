# SPDX-License-Identifier: Apache-2.0
"""A library's process as the comparison sees it: it may be slow, die or hang, and is begun again."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from pathlib import Path
from typing import Any

SERVE = Path(__file__).parent / "serve.py"


class Worker:
    """Starts when it is first asked. An answer that has "error" in it is of a process that may be gone."""

    def __init__(self, name: str, python: str, threads: int, dtype: str, patience: float) -> None:
        self.name, self.version = name, ""
        self._command = [python, str(SERVE), name, str(threads), dtype]
        self._environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "NPROC": str(threads),  # JAX's
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "TF_NUM_INTRAOP_THREADS": str(threads),
        }
        self._patience = patience
        self._process: subprocess.Popen[str] | None = None
        self._broken = ""  # why the process can't even start

    def ask(self, order: str, **arguments: Any) -> dict[str, Any]:
        if not self._process and not self._broken:
            self._start()
        if self._broken:
            return {"error": self._broken}
        return self._exchange(json.dumps({"order": order} | arguments))

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            text=True,
            start_new_session=True,  # Ctrl-C is for the comparison, which stops them all
        )
        found = self._exchange("")
        self.version = found.get("version", "")
        if "error" in found:
            self._broken = f"does not start: {found['error']}"

    def _exchange(self, line: str) -> dict[str, Any]:
        process = self._process
        assert process and process.stdin and process.stdout
        try:
            if line:
                print(line, file=process.stdin, flush=True)
            if not select.select([process.stdout], [], [], self._patience)[0]:
                self.stop()
                return {"error": f"no answer in {self._patience:.0f} s"}
            if text := process.stdout.readline():
                found: dict[str, Any] = json.loads(text)
                return found
        except (BrokenPipeError, json.JSONDecodeError):
            pass
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)  # for its own exit code
        self.stop()
        code = process.returncode
        return {"error": f"the process died: {signal.strsignal(-code) if code < 0 else f'exit code {code}'}"}
