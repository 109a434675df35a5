# SPDX-License-Identifier: Apache-2.0
"""Compare backstride's layers, scopes, variables and losses with a live TensorFlow's, in random programs.

Run where both are installed (requirements/tf.txt): `python tools/compare_programs.py --seed 0 --count 1000`.
A difference is printed with the shortest program found that shows it, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pprint import pformat

import plain_layers as tensorflow  # first: it settles TensorFlow's kernels before TensorFlow is imported
from programs import WORLD, Program, run
from random_programs import draw_program

# Without initializers values would be random, and without the others nothing could be called.
NEEDED = {
    "initializer",
    "kernel_initializer",
    "inputs",
    "filters",
    "kernel_size",
    "name_or_scope",
    "of",
    "shape",
    "made",
}


def compare(program: Program) -> tuple[Counter[str], list[str]]:
    """What was compared, counted, and where the two differ."""
    want = tensorflow.answer(program)
    counts = Counter(event.get("error") or next(iter(event)) for event in want.events)
    counts += Counter(variables=len(want.variables), losses=len(want.losses))
    return counts, run(program, WORLD).differences(want)


def shortened(program: Program) -> Program:
    """A program that still shows a difference, though none that is a little shorter does."""
    for shorter in _shorter(program):
        if compare(shorter)[1]:
            return shortened(shorter)
    return program


def _shorter(program: Program) -> Iterator[Program]:
    """The program without one step, scope or optional argument."""
    for at, step in enumerate(program):
        before, after = program[:at], program[at + 1 :]
        body = step.get("body", [])
        if "initializer" not in step.get("open", {}):
            yield before + body + after
        for shorter in _shorter(body):
            yield [*before, step | {"body": shorter}, *after]
        kind = next(iter(step))
        for name in step[kind].keys() - NEEDED:
            yield [*before, step | {kind: {n: v for n, v in step[kind].items() if n != name}}, *after]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000, help="programs")
    return parser.parse_args()


def main() -> int:
    options = parse()
    total: Counter[str] = Counter()
    for at in range(options.count):
        program = draw_program([options.seed, at])
        counts, differences = compare(program)
        total += counts
        if differences:
            total["differences"] += 1
            program = shortened(program)
            print(f"# seed {[options.seed, at]}", pformat(program, width=120), *compare(program)[1], sep="\n")
            if total["differences"] == 3:
                break
    print(f"{at + 1} programs:", ", ".join(f"{count} {what}" for what, count in sorted(total.items())))
    return 1 if total["differences"] else 0


if __name__ == "__main__":
    sys.exit(main())
