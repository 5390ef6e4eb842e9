"""Arithmetic has Python's values; whatever is more than arithmetic is refused."""

import math

import pytest

from detlite.config.from_detectron2.expression import evaluate
from detlite.errors import ConfigError


@pytest.mark.parametrize(
    "text",
    [
        "[[x, x * 2**(1.0/3), x * 2**(2.0/3) ] for x in [32, 64, 128, 256, 512 ]]",
        "[int(x * 0.1 * 640) for x in range(5, 16)]",
        "[[x * y for y in [1, 2.5]] for x in range(3)]",
        "[x - y for x in [1, 2] for y in [x, 3]]",
        "(1, -2, +3.5)",
        "range(10, 0, -3)",
        "2**-2 / 4",
        " [1]",
        "[]",
    ],
)
def test_arithmetic_has_the_value_that_python_gives_it(text):
    expected = eval(text)
    assert evaluate(text) == (list(expected) if isinstance(expected, tuple | range) else expected)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("__import__('os').system('true')", "`__import__('os').system('true')` is not allowed"),
        ("open('x')", "`'x'` is not allowed"),
        ("().__class__", "`().__class__` is not allowed"),
        ("[x for x in [1]].pop()", "is not allowed"),
        ("(lambda: 1)()", "is not allowed"),
        ("[x for x in (y for y in [1])]", "is not allowed"),
        ("[x for x in [1, 2] if x > 1]", "is not allowed"),
        ("[x for x, y in [[1, 2]]]", "is not allowed"),
        ("[1, 2][0]", "is not allowed"),
        ("1 if True else 2", "is not allowed"),
        ("True", "`True` is not allowed"),
        ("'a'", "`'a'` is not allowed"),
        ("x", "`x` is not allowed"),
        ("range(1, 2, 0)", "is not allowed"),
        ("range(1.5)", "is not allowed"),
        ("int([1])", "is not allowed"),
        ("int(1, base=2)", "is not allowed"),
        ("7 // 2", "is not allowed"),
        ("[x for x in 5]", "`5` is no list"),
        ("2**10**9", "an exponent beyond 64"),
        ("2.0**-1000", "an exponent beyond 64"),
        ("9**60 * 2", "no real number up to 1e+15"),
        ("1e308 * 10", "no real number"),
        ("(-8)**0.5", "no real number"),
        ("1 / 0", "division by zero"),
        ("0**-1", "negative power"),
        ("[1] * 10**9", "calculates with a list"),
        ("-[1]", "calculates with a list"),
        ("range(10**9)", "more than 20000 numbers"),
        ("[[x for x in range(1000)] for y in range(1000)]", "more than 20000 steps"),
        ("1 +", "no Python expression"),
        ("1; 2", "no Python expression"),
        ("", "no Python expression"),
        ("1\0", "no Python expression"),
        ("(" * 900 + ")" * 900, "is not evaluated"),
        ("-" * 1999 + "1", "is not evaluated"),
        ("1 + " * 1000 + "1", "longer than 2000 characters"),
    ],
)
def test_anything_beyond_arithmetic_is_refused_with_its_text(text, why):
    with pytest.raises(ConfigError, match="is not evaluated") as caught:
        evaluate(text)
    assert why in str(caught.value)


def test_the_anchor_sizes_of_detectron2_are_exact_octaves():
    text = "[[x, x * 2**(1.0/3), x * 2**(2.0/3) ] for x in [32, 64, 128, 256, 512 ]]"
    assert [math.log2(size / 32) for size in evaluate(text)[1]] == pytest.approx([1, 4 / 3, 5 / 3])
