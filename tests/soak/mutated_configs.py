"""Mutate the repository's configs and their overrides; each loads with the change, or is refused.

python tests/soak/mutated_configs.py --count 1000 --seed 0

A mutation fails if it ends in another error than a UserError, takes more than 5 s, needs more than
1 GB beyond what the process began with, or loads without the change that it made. Each runs in a
child that is forked after torch has been imported. Exit code 1 with a list of what failed.
"""

import pathlib
import random
import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import partial

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from limits import run_command_line, run_within_limits

from detlite import Config, UserError, build_model, load_config
from detlite.config import read_tree
from detlite.engine.run_files import flatten_config
from detlite.registry import filled_registries

ROOT = pathlib.Path(__file__).parents[2]
SECONDS = 5.0
BYTES = 1 << 30
BUILT = 0.1  # share of the mutations that load and whose model is then built
VALUES = [
    *("0", "-1", "1", "null", "true", "no", "''", "x", "[]", "{}", "[1, 2]", "{name: X}", "1e400"),
    *("1e-400", ".inf", "-.inf", ".nan", "1e308", "-0.0", "9223372036854775807", "1e9", "'5'"),
    *(str(2**63), "9" * 400, "1000000000", "0x1F", "[[[[]]]]", "'\\0'", '"\\ud800"', "*a"),
    *("-5000000000", "0.5", "[null]", "x" * 5000, "[" * 200, "&a [*a]", "~", "2020-01-01"),
    *("/dev/zero", "!!x 1", "${seed}", "${oc.env:HOME}", "{{ x }}", "!include x", "1_000", "0o17"),
    *("017", "12:30:45", "Yes", "NULL", "True", ".5", "+1", "5.", "1e5", "'true'", "<<: {a: 1}"),
    *("\ufeff1", "1\u00a0", "\u0661", "[1, [2], {}]", "{a: {b: 1}}", "null null", "# 1", "? 1"),
]  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """A changed config.

    Attributes:
        what: For the list of failures.
        file: What is loaded.
        overrides: Of the command line.
        key: A key path that was set, and ``value``, what YAML makes of its text; None: unknown.
    """

    what: str
    file: str
    overrides: tuple[str, ...] = ()
    key: str | None = None


def mutations(folder: pathlib.Path, seed: int, count: int) -> list[Mutation]:
    """Copy the configs to ``folder`` and change one at a time."""
    kinds = (of_value, of_override, of_text, of_bytes, of_lines, of_nesting, of_spelling)
    files = sorted(p for p in (ROOT / "configs").rglob("*.yaml") if "_base_" not in p.parts)
    made = []
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        source = draw.choice(files)
        # Beside the original, so that bases are found.
        target = folder / source.relative_to(ROOT)
        target = target.with_name(f"{target.stem}_{number}.yaml")
        shutil.copyfile(source, target)
        made.append(draw.choice(kinds)(draw, target))
    return made


def of_value(draw: random.Random, file: pathlib.Path) -> Mutation:
    """Another value for a key that the config has, in a config that has it as its base."""
    key, value = draw.choice(keys_of(file)), draw.choice(VALUES)
    inner = value
    for part in reversed(key.split(".")):
        inner = f"{{{part}: {inner}}}"
    child = file.with_name(f"child_{file.name}")
    if any(part.isdigit() for part in key.split(".")):
        return Mutation(f"{key}={value[:60]}", str(file), (f"{key}={value}",), key)
    child.write_text(f"_base_: {file.name}\n{inner[1:-1]}\n")
    return Mutation(f"{file.name}: {key}: {value[:60]}", str(child), (), key)


def of_override(draw: random.Random, file: pathlib.Path) -> Mutation:
    """The same on the command line."""
    key, value = draw.choice(keys_of(file)), draw.choice(VALUES)
    return Mutation(f"{file.name}: {key}={value[:60]}", str(file), (f"{key}={value}",), key)


def of_spelling(draw: random.Random, file: pathlib.Path) -> Mutation:
    """A key with a letter more, which must be named."""
    key = draw.choice(keys_of(file))
    place = draw.randrange(len(key.rpartition(".")[2])) if draw.random() < 0.5 else 0
    stem, dot, last = key.rpartition(".")
    wrong = f"{stem}{dot}{last[:place]}q{last[place:]}"
    return Mutation(f"{file.name}: {wrong}=1", str(file), (f"{wrong}=1",), wrong)


def of_text(draw: random.Random, file: pathlib.Path) -> Mutation:
    """An override that is none, or odd."""
    odd = ["=", "a.b.c.=", "..=1", "a=", "imports=3", "_base_=x", "data.train.9=x", "seed={[", "-"]
    key = "a." * draw.choice([1, 60, 100_000])
    text = draw.choice([*odd, f"{key}b=1", "k" * 100_000 + "=1"])
    return Mutation(f"{file.name} {text[:60]}", str(file), (text,))


def of_bytes(draw: random.Random, file: pathlib.Path) -> Mutation:
    """Some bytes of the file are others."""
    content = bytearray(file.read_bytes())
    for _ in range(draw.choice([1, 2, 8])):
        content[draw.randrange(len(content))] = draw.randrange(256)
    file.write_bytes(content)
    return Mutation(f"{file.name}: bytes", str(file))


def of_lines(draw: random.Random, file: pathlib.Path) -> Mutation:
    """A line twice, left out, indented, or the file cut."""
    lines = file.read_text().splitlines(keepends=True)
    at = draw.randrange(len(lines))
    change = draw.choice(["twice", "without", "indented", "cut"])
    if change == "twice":
        lines.insert(at, lines[at])
    elif change == "without":
        del lines[at]
    elif change == "indented":
        lines[at] = " " * draw.choice([1, 2, 4]) + lines[at]
    text = "".join(lines)
    file.write_text(text[: draw.randrange(len(text))] if change == "cut" else text)
    return Mutation(f"{file.name}: line {at + 1} {change}", str(file))


def of_nesting(draw: random.Random, file: pathlib.Path) -> Mutation:
    """Deep values, or values that aliases repeat."""
    depth = draw.choice([10, 100, 1000, 20_000])
    bomb = "a0: &a0 [x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, draw.choice([3, 9]))
    )
    nested = [f"a: {'[' * depth}{']' * depth}\n", f"a: {'{a: ' * depth}1{'}' * depth}\n", bomb]
    file.write_text(file.read_text() + draw.choice(nested))
    return Mutation(f"{file.name}: nested {depth}", str(file), (), "a")


def keys_of(file: pathlib.Path) -> list[str]:
    """The key paths of a config and its bases, without those that only lead to others."""
    return [".".join(path) for path in read_tree(file).origins if path != ("_base_",)]


def problem_of(mutation: Mutation, build: bool) -> str:
    """Load a mutation in this process: "" if it is right, else what is wrong."""
    try:
        config = load_config(mutation.file, mutation.overrides)
    except UserError as error:
        return problem_of_message(str(error), mutation)
    if mutation.key is not None:
        tree = read_tree(mutation.file, mutation.overrides)
        wrong = difference(value_at(tree.values, mutation.key), config.to_dict(), mutation.key)
        if wrong:
            return wrong
        lost = other_changes(mutation, config)
        if lost:
            return lost
    if build:
        try:
            config.device, config.model["weights"] = "cpu", ""
            build_model(config, ["cat", "dog"])
        except UserError:
            return ""
    return ""


def problem_of_message(text: str, mutation: Mutation) -> str:
    """What is wrong with a message: too long, or silent about the key that was changed."""
    mistakes = max(1, text.count("\n  - "))
    if len(text.splitlines()) > 1 + 4 * mistakes or len(text) > 3000 * mistakes:
        return f"a message of {len(text)} characters for {mistakes} mistakes: {text[:300]}"
    last = (mutation.key or "").rpartition(".")[2]
    named = last.isdigit() or last in text or pathlib.Path(mutation.file).name in text
    return "" if named else f"the message does not name '{last}': {text[:300]}"


def other_changes(mutation: Mutation, config: Config) -> str:
    """What one override has changed besides its key, and besides the block that it names."""
    assert mutation.key is not None
    if not mutation.overrides:
        return ""
    before, after = (
        flatten_config(each.to_dict()) for each in (load_config(mutation.file), config)
    )
    allowed = mutation.key.removesuffix(".name")
    missing = object()
    lost = [
        key
        for key in before.keys() | after.keys()
        if before.get(key, missing) != after.get(key, missing)
        and not f"{key}.".startswith(f"{allowed}.")
        and not f"{allowed}.".startswith(f"{key}.")
    ]
    return f"{mutation.key} has changed {', '.join(sorted(lost))}" if lost else ""


def value_at(values: object, key: str) -> object:
    """The value of a key path; over lists its parts count entries."""
    for part in key.split("."):
        values = values[int(part)] if isinstance(values, list) else values[part]  # type: ignore[index]
    return values


def difference(given: object, config: dict[str, object], key: str) -> str:
    """Why the resolved config does not show a value that was given; "" if it does."""
    try:
        found = value_at(config, key)
    except (LookupError, TypeError, ValueError):
        return f"{key} is not in the resolved config"
    return (
        "" if _shows(found, given) else f"{key} was given as {given!r}, resolved to {found!r:.200}"
    )


def _shows(found: object, given: object) -> bool:
    if isinstance(given, dict) and isinstance(found, dict):
        return all(k in found and _shows(found[k], value) for k, value in given.items())
    if isinstance(given, list | tuple) and isinstance(found, list | tuple):
        return len(found) == len(given) and all(map(_shows, found, given))
    # null switches a list or a section off.
    switched_off = given is None and (found == [] or isinstance(found, dict))
    same_kind = (type(given) is bool) == (type(found) is bool)
    # A key of floats holds the nearest one.
    rounded = isinstance(found, float) and type(given) is int and found == float(given)
    return switched_off or rounded or (same_kind and found == given)


def failures(count: int, seed: int, built: float = BUILT) -> list[str]:
    """Run ``count`` mutations; one line for each that went wrong."""
    filled_registries()
    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        shutil.copytree(ROOT / "configs", folder / "configs")
        for number, mutation in enumerate(mutations(folder, seed, count)):
            build = random.Random(f"{seed} {number} build").random() < built
            # Of the address space, as a mutation that builds a model may ask for its weights.
            problem = run_within_limits(
                partial(problem_of, mutation, build), SECONDS * (4 if build else 1), BYTES
            )
            if problem:
                found.append(f"{number} {mutation.what!r}: {problem}")
    return found


if __name__ == "__main__":
    run_command_line(failures, "configs", 1000)
