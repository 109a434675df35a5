# SPDX-License-Identifier: Apache-2.0
"""What a person at the terminal sees: progress, tables, and one line when something can't be done."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import Progress
from rich.text import Text

from backstride._command.files import FileError

Step = Callable[[str], None]


@contextmanager
def progress(total: int, delay: float = 1.0) -> Iterator[Step]:
    """Yields what announces the next of `total` steps on a bar.

    The bar comes up on stderr after `delay` seconds, and only where a person looks on: a log gets nothing. It
    vanishes at the end.
    """
    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    task, steps = bar.add_task("", total=total), count()
    timer = threading.Timer(delay, bar.start)
    timer.start()
    try:
        yield lambda what: bar.update(task, description=escape(what), completed=next(steps))
    finally:
        timer.cancel()
        timer.join()
        if bar.live.is_started:
            bar.stop()


def show(tables: Iterable[RenderableType], columns: int | None = None) -> None:
    """Prints tables, where no terminal says how wide it is at the width they need, and lines, which never break.

    With `columns`, tables are no wider than that, whatever the terminal is.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what stdout can't encode
    console = Console(highlight=False)
    if not console.is_terminal or (columns and console.width > columns):
        console = Console(highlight=False, width=columns or 120)
    for table in tables:
        console.print(table, soft_wrap=isinstance(table, Text))


@contextmanager
def refusals(output: Path) -> Iterator[None]:
    """Files that can't be read, an `output` that can't be written and too little memory as one line."""
    try:
        yield
    except FileError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"cannot write to {str(output)!r}: {error.strerror or error}")
    except MemoryError:
        refuse("not enough memory for a photo of this size")


def refuse(message: str) -> NoReturn:
    """One line on stderr, exit code 2."""
    typer.echo(f"backstride: {message}", err=True)
    raise typer.Exit(2)
