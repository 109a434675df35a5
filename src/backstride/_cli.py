# SPDX-License-Identifier: Apache-2.0
"""The entry point of the `backstride` command, which needs the `demo` extra."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command, or says how to install what it needs; the library itself needs none of that."""
    try:
        from backstride._command.app import app
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in {"", "backstride", "numpy"}:
            raise
        print(
            f"backstride: the command line needs {missing}; run: pip install 'backstride[demo]'",
            file=sys.stderr,
        )
        sys.exit(2)
    app(prog_name="backstride")


if __name__ == "__main__":
    main()
