# SPDX-License-Identifier: Apache-2.0
"""Compare backstride with a live TensorFlow on random calls: values, gradients, and refusals.

Run where both are installed (requirements/tf.txt): `python tools/compare_tf.py --seed 0 --count 2000`.
A difference is printed with all it takes to repeat it, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import plain_kernels as tensorflow  # first: it settles TensorFlow's kernels before TensorFlow is imported
from random_calls import DRAWS, Call, Draw, draw_call, draw_refused

import backstride
import backstride.compat.v1.nn
import backstride.keras.backend
import backstride.nn

RELATIVE = {"float32": 2e-5, "float64": 1e-11}
EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
EXACT_BELOW = {"float16": 2**11, "bfloat16": 2**8, "float32": 2**24, "float64": 2**53}
SHARE_REFUSED, SHARE_SECOND = 0.2, 0.125


class Difference(Exception):
    """backstride and TensorFlow disagree."""


def compare(what: str, got: Any, want: Any, exact: bool, terms: int, largest: float) -> None:
    """`largest` bounds one product, `terms` their number in one sum."""
    want = np.asarray(want)
    if not isinstance(got, np.ndarray):
        raise Difference(f"{what}: {type(got).__name__} in place of an array")
    if got.shape != want.shape or got.dtype != want.dtype:
        raise Difference(f"{what}: {got.dtype} {got.shape}, TensorFlow {want.dtype} {want.shape}")
    if want.dtype.kind == "i":
        _close(what, got.astype(np.int64), want.astype(np.int64), 0)
        return
    name = want.dtype.name
    wide, wanted = got.astype(np.float64), want.astype(np.float64)
    if exact and terms * largest <= EXACT_BELOW[name]:
        allowed = 0.0
    elif name in EPSILON:
        allowed = EPSILON[name] * terms * largest
    else:
        allowed = RELATIVE[name] * max(np.abs(wanted).max(initial=0), largest)
    _close(what, wide, wanted, allowed)


def _close(what: str, got: np.ndarray, want: np.ndarray, allowed: float) -> None:
    distance = np.abs(got - want)
    if not (distance <= allowed).all():
        at = tuple(int(i) for i in np.unravel_index(np.nanargmax(distance), distance.shape))
        raise Difference(f"{what}: {got[at]} at {at}, TensorFlow {want[at]}, allowed {allowed:.3g}")


def largest(*arrays: np.ndarray) -> float:
    """The largest product of one element of each."""
    return float(np.prod([np.abs(array.astype(np.float64)).max(initial=0) for array in arrays]))


def backstride_answer(function: str, arguments: dict[str, Any]) -> Any:
    return reduce(getattr, function.split("."), backstride)(**arguments)


def canonical(call: Call) -> dict[str, Any]:
    """The call's arguments under the names that plain_kernels differentiates by."""
    names = tensorflow.SPELLINGS[call.function].arrays
    aliases = {"input": "value", "filters": "filter"}
    return {
        aliases[name] if name in aliases and name not in names else name: value
        for name, value in call.arguments.items()
    }


def compare_call(call: Call, draw: Draw, gradients: bool) -> Counter[str]:
    """Compare one legal call; what was compared, counted."""
    arguments = canonical(call)
    names = tensorflow.SPELLINGS[call.function].arrays
    arrays = [arguments[name] for name in names]
    want = np.asarray(tensorflow.answer(call.function, arguments))
    terms = min(array.size for array in arrays)
    got = backstride_answer(call.function, call.arguments)
    compare("value", got, want, call.exact, terms, largest(*arrays))
    counts = Counter(values=1)
    if not (gradients and call.differentiable):
        return counts
    rest = {name: value for name, value in arguments.items() if name not in names}

    def compute(*values: Any) -> Any:
        return backstride_answer(call.function, rest | dict(zip(names, values, strict=True)))

    weight = draw.array(list(want.shape), want.dtype.name, call.exact)
    _compare_gradients(call, arguments, compute, arrays, weight)
    counts["gradients"] += 1
    if want.dtype.name in RELATIVE and draw.chance(SHARE_SECOND):
        _compare_second(call, arguments, compute, arrays, weight, draw)
        counts["second order"] += 1
    return counts


def _compare_gradients(
    call: Call,
    arguments: dict[str, Any],
    compute: Callable[..., Any],
    arrays: Sequence[np.ndarray],
    weight: np.ndarray,
) -> None:
    wanted = tensorflow.derivatives(call.function, arguments, weight)
    names = tensorflow.SPELLINGS[call.function].arrays
    for at, (name, want) in enumerate(zip(names, wanted, strict=True)):
        other = arrays[1 - at]
        terms = min(weight.size, other.size)
        got = _pull(compute, at, arrays)(weight)
        compare(f"gradient by {name}", got, want, call.exact, terms, largest(weight, other))


def _compare_second(
    call: Call,
    arguments: dict[str, Any],
    compute: Callable[..., Any],
    arrays: Sequence[np.ndarray],
    weight: np.ndarray,
    draw: Draw,
) -> None:
    """The gradients of <gradient by first, a> + <gradient by second, b>, in which a stands for the first."""
    directions = [draw.array(list(a.shape), a.dtype.name, call.exact) for a in arrays]
    wanted = tensorflow.second_derivatives(call.function, arguments, weight, directions)
    everything = [*arrays, weight]
    size = sum(largest(*pair) for pair in _factors(everything, directions))
    terms = max(array.size for array in everything)
    for by, want in enumerate(wanted):
        shares = [_pull(_gradient(compute, of), by, everything)(directions[of]) for of in (0, 1) if of != by]
        compare(f"second order {by}", sum(shares[1:], start=shares[0]), want, call.exact, terms, size)


def _factors(arrays: Sequence[np.ndarray], directions: Sequence[np.ndarray]) -> list[tuple[Any, Any]]:
    return [(direction, array) for direction in directions for array in arrays]


def _gradient(compute: Callable[..., Any], of: int) -> Callable[..., Any]:
    return lambda first, second, weight: _pull(compute, of, (first, second))(weight)


def _pull(compute: Callable[..., Any], by: int, values: Sequence[Any]) -> Callable[..., Any]:
    """autograd's way back from `compute(*values)` to its argument number `by`."""
    from autograd import make_vjp

    return make_vjp(compute, by)(*values)[0]


def compare_refusal(call: Call) -> None:
    """Both must refuse; backstride by ValueError or TypeError."""
    try:
        answered = tensorflow.answer(call.function, canonical(call))
    except Exception:
        answered = None
    try:
        got = backstride_answer(call.function, call.arguments)
    except (ValueError, TypeError):
        if answered is not None:
            raise Difference(f"{call.notes}: only backstride refuses") from None
        return
    verdict = "neither refuses" if answered is not None else "only TensorFlow refuses"
    raise Difference(f"{call.notes}: {verdict}; backstride gives {got.dtype} {got.shape}")


def reproduce(call: Call, seed: list[int], trouble: BaseException) -> str:
    lines = [f"{name}={_literal(value)}" for name, value in call.arguments.items()]
    body = ",\n    ".join(lines)
    return f"# seed {seed}: {type(trouble).__name__}: {trouble}\nbackstride.{call.function}(\n    {body},\n)\n"


def _literal(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"np.array({value.tolist()!r}, {value.dtype.name!r}).reshape({value.shape})"
    return repr(value)


def compare_function(function: str, seed: int, count: int, gradients: bool) -> Counter[str]:
    """Compare `count` legal calls, and a fifth as many that must be refused; stop at three differences."""
    counts: Counter[str] = Counter()
    place = list(DRAWS).index(function)
    for at in range(count + round(count * SHARE_REFUSED)):
        numbers = [seed, place, at]
        call = (draw_call if at < count else draw_refused)(function, numbers)
        try:
            if at < count:
                counts += compare_call(call, Draw([*numbers, 1]), gradients)
            else:
                compare_refusal(call)
                counts["refusals"] += 1
        except Exception as trouble:
            print(reproduce(call, numbers, trouble), file=sys.stderr)
            counts["differences"] += 1
            if counts["differences"] == 3:
                break
    return counts


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000, help="legal calls per function")
    parser.add_argument("--only", choices=DRAWS, action="append", metavar="FUNCTION")
    parser.add_argument("--no-gradients", action="store_true", help="where autograd is not installed")
    return parser.parse_args()


COLUMNS = ("values", "gradients", "second order", "refusals", "differences")


def main() -> int:
    options = parse()
    print(f"{'function':32}" + "".join(f"{column:>14}" for column in COLUMNS))
    failed = False
    for function in options.only or DRAWS:
        counts = compare_function(function, options.seed, options.count, not options.no_gradients)
        print(f"{function:32}" + "".join(f"{counts[column]:14}" for column in COLUMNS), flush=True)
        failed |= counts["differences"] > 0 or counts["values"] < options.count
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
