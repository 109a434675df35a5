# SPDX-License-Identifier: Apache-2.0
"""Code as people paste it: in lines that fit into a terminal and still are the same code."""

from __future__ import annotations

WIDTH = 80


def pasted(code: str) -> list[str]:
    """The lines of `code`; longer ones are continued within brackets, where Python and Rust allow it."""
    return [part for line in code.splitlines() for part in _folded(line)]


def _folded(line: str) -> list[str]:
    if len(line) <= WIDTH:
        return [line]
    statement, mark, comment = line.partition("  # ")
    if mark:
        return [f"# {comment}", *_folded(statement)]
    places = _places(line)
    further = " " * (len(line) - len(line.lstrip()) + 4)
    parts, indent = [], ""
    while len(indent + line) > WIDTH and places:
        # As far as fits, or if nothing does, as short as can be.
        place = max((n for n in places if len(indent) + n <= WIDTH), default=places[0])
        parts.append(indent + line[:place].rstrip())
        skipped = len(line) - len(line[place:].lstrip())
        line, indent = line[skipped:], further
        places = [n - skipped for n in places if n > skipped]
    return [*parts, indent + line]


def _places(line: str) -> list[int]:
    """Where a line may go on in the next one: within brackets, behind a comma or what opens them."""
    places, depth, quote = [], 0, ""
    for n, sign in enumerate(line, 1):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        else:
            depth += (sign in "([{") - (sign in ")]}")
            if depth and sign in ",([{" and n < len(line):
                places.append(n)
    return places
