# SPDX-License-Identifier: Apache-2.0
"""Tables and pictures of benchmarks that were measured before: `python report.py benchmark.json`."""

from __future__ import annotations

import argparse
from pathlib import Path

from plots import draw
from results import Results, write
from rich.console import Console
from tables import NOTES, failures, goals, hosted, markdown, rich, sheets


def console() -> Console:
    """As wide as the terminal; wide enough for the tables where there is none."""
    found = Console()
    return found if found.is_terminal else Console(width=200)


def report(results: Results, shown: Console) -> None:
    """Prints the tables and the summary, and writes Markdown and pictures beside the JSON file."""
    for group in results.groups():
        for sheet in sheets(group):
            shown.print(rich(sheet))
        for line in failures(group):
            shown.print(line, highlight=False, markup=False)
    shown.print(rich(goals(results)))
    shown.print(rich(hosted(results)))
    for note in NOTES:
        shown.print(note, highlight=False)
    page = results.path.with_suffix(".md")
    write(page, markdown(results))
    for path in [page, *draw(results)]:
        shown.print(f"wrote {path}", highlight=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=Path("benchmark.json"))
    file = parser.parse_args().file
    if not file.exists():
        parser.error(f"there is no {file}")
    report(Results(file), console())
