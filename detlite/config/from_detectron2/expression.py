"""The arithmetic that detectron2's YAMLs hold in ``!!python/object/apply:eval``, without eval."""

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ...errors import ConfigError

# Far more than any anchor table needs, and done in a blink.
MAX_LENGTH = 2000
MAX_STEPS = 20_000
MAX_NUMBER = 1e15
MAX_EXPONENT = 64

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_ALLOWED = (
    "numbers, + - * / **, lists, tuples, int(), range() and `[... for x in [...]]` are understood"
)


class _Refused(Exception):
    """Why an expression is not evaluated."""


def evaluate(text: str) -> Any:
    """Evaluate arithmetic over lists; tuples become lists.

    Args:
        text: A Python expression of numbers, ``+ - * / **``, lists, tuples, list comprehensions,
            ``int()`` and ``range()``.

    Raises:
        ConfigError: It holds anything else, is no expression, or would grow out of bounds.
    """
    try:
        if len(text) > MAX_LENGTH:
            raise _Refused(f"it is longer than {MAX_LENGTH} characters")
        return _Evaluator().value(_parse(text), {})
    except (_Refused, RecursionError, MemoryError) as error:
        refusal = error if isinstance(error, _Refused) else "it is nested too deeply"
        shown = text if len(text) <= 100 else text[:97] + "..."
        raise ConfigError(
            f"the expression `{shown}` is not evaluated: {refusal}. Only {_ALLOWED}; write the "
            "values themselves instead"
        ) from None


def _parse(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise _Refused(f"it is no Python expression ({error.args[0]})") from None


class _Evaluator:
    """Walks an expression; counts the steps."""

    def __init__(self) -> None:
        self.steps = 0

    def value(self, node: ast.expr, names: Mapping[str, Any]) -> Any:
        """The value of a node, given the variables of the comprehensions around it."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise _Refused(f"it takes more than {MAX_STEPS} steps")
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return _bounded(node, node.value)
        if isinstance(node, ast.Name) and node.id in names:
            return names[node.id]
        if isinstance(node, ast.List | ast.Tuple):
            return [self.value(item, names) for item in node.elts]
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return _apply(node, self.value(node.left, names), self.value(node.right, names))
        if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
            return _apply(node, self.value(node.operand, names))
        if isinstance(node, ast.ListComp):
            return [self.value(node.elt, inner) for inner in self._scopes(node.generators, names)]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self._call(node, node.func.id, [self.value(item, names) for item in node.args])
        raise _Refused(f"`{_shown(node)}` is not allowed")

    def _scopes(
        self, loops: list[ast.comprehension], names: Mapping[str, Any]
    ) -> Iterator[Mapping[str, Any]]:
        """The variables of a comprehension, once for each of its rounds."""
        if not loops:
            yield names
            return
        loop = loops[0]
        if not isinstance(loop.target, ast.Name) or loop.ifs or loop.is_async:
            raise _Refused(f"`{_shown(loop)}` is not allowed")
        values = self.value(loop.iter, names)
        if not isinstance(values, list):
            raise _Refused(f"`{_shown(loop.iter)}` is no list")
        for value in values:
            yield from self._scopes(loops[1:], {**names, loop.target.id: value})

    def _call(self, node: ast.Call, function: str, values: list[Any]) -> Any:
        if function == "int" and len(values) == 1 and not isinstance(values[0], list):
            return int(values[0])
        whole = all(isinstance(value, int) for value in values)
        if function == "range" and 1 <= len(values) <= 3 and whole and values[2:] != [0]:
            numbers = range(*values)
            if len(numbers) > MAX_STEPS:
                raise _Refused(f"`{_shown(node)}` has more than {MAX_STEPS} numbers")
            return list(numbers)
        raise _Refused(f"`{_shown(node)}` is not allowed")


def _apply(node: ast.BinOp | ast.UnaryOp, *values: Any) -> int | float:
    if any(isinstance(value, list) for value in values):
        raise _Refused(f"`{_shown(node)}` calculates with a list")
    # Whole numbers have no bounds of their own; 2**10**9 would fill the memory first.
    if isinstance(node.op, ast.Pow) and abs(values[1]) > MAX_EXPONENT:
        raise _Refused(f"`{_shown(node)}` has an exponent beyond {MAX_EXPONENT}")
    try:
        return _bounded(node, _OPERATORS[type(node.op)](*values))
    except ArithmeticError as error:
        raise _Refused(f"`{_shown(node)}`: {error}") from None


def _bounded(node: ast.expr, number: Any) -> int | float:
    if isinstance(number, complex) or not math.isfinite(number) or abs(number) > MAX_NUMBER:
        raise _Refused(f"`{_shown(node)}` is no real number up to {MAX_NUMBER:g}")
    assert isinstance(number, int | float)
    return number


def _shown(node: ast.AST) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else text[:57] + "..."
