"""Who may import whom, as data, and a walk over the sources that holds the package to it."""

import ast
import pathlib
from dataclasses import dataclass

import pytest

ROOT = pathlib.Path(__file__).parents[1]

FLOOR_0 = {"registry", "utils", "structures", "ops"}
FLOOR_1 = {"config", "modeling", "evaluation", "visualization"}
FLOOR_2 = {"data", "solver", "checkpoint"}
BELOW_ALL = {"errors", "ranges"}

MAY_IMPORT = {
    "errors": set(),
    "ranges": set(),
    "registry": set(),
    "utils": set(),
    "structures": set(),
    "ops": set(),
    "config": {"registry", "utils"},
    "modeling": {"registry", "structures", "ops"},
    "evaluation": {"registry", "structures", "utils"},
    "visualization": {"registry", "structures", "utils"},
    "data": FLOOR_0 | FLOOR_1,
    "solver": FLOOR_0 | FLOOR_1,
    "checkpoint": FLOOR_0 | FLOOR_1,
    "engine": FLOOR_0 | FLOOR_1 | FLOOR_2,
    # For the authors of components, like the tools: above everything, and nobody imports it.
    # The command line: parsers that import nothing heavy, and beside them what they call.
    "cli": FLOOR_0 | FLOOR_1 | FLOOR_2 | {"engine"},
    "testing": FLOOR_0 | FLOOR_1 | FLOOR_2 | {"engine"},
    "__init__": FLOOR_0 | FLOOR_1 | FLOOR_2 | {"engine"},
}

# Within modeling: single modules below the siblings, those below meta_arch, that below build.
SIBLINGS = {"backbones", "necks", "anchor_generators", "heads", "losses"}
ABOVE_SIBLINGS = {"meta_arch", "build", "__init__"}


@dataclass(frozen=True)
class Import:
    """``target`` is a module or a package of detlite, as its dotted name without ``detlite``."""

    source: str
    target: str
    line: int
    star: bool
    in_function: bool
    for_types_only: bool
    has_comment: bool


def name_of(path, root):
    """The dotted name of a file, that of its folder for an ``__init__.py``; "" at the top."""
    parts = path.relative_to(root / "detlite").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_of(root):
    return {name_of(path, root): path for path in sorted((root / "detlite").rglob("*.py"))}


def imports_of(name, path, modules):
    """Every import of detlite's own modules in a file."""
    lines = path.read_text().splitlines()
    package = name.split(".") if name else []
    package = package if path.name == "__init__.py" else package[:-1]

    def visit(node, in_function, for_types):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                around = lines[child.lineno - 1] + lines[max(child.lineno - 2, 0)]
                for target in targets(child):
                    star = isinstance(child, ast.ImportFrom) and child.names[0].name == "*"
                    yield Import(
                        name, target, child.lineno, star, in_function, for_types, "#" in around
                    )
            inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from visit(child, inside, for_types or types)

    def targets(node):
        if isinstance(node, ast.Import):
            full = [alias.name.split(".") for alias in node.names]
            return [".".join(parts[1:]) for parts in full if parts[0] == "detlite"]
        module = node.module.split(".") if node.module else []
        if node.level == 0:
            if module[:1] != ["detlite"]:
                return []
            base = module[1:]
        else:
            base = package[: len(package) - node.level + 1] + module
        # `from . import x` may name a module x, or something that the package holds.
        inner = [".".join([*base, alias.name]) for alias in node.names]
        own = ".".join(base)
        return sorted({target if target in modules else own for target in inner})

    yield from visit(ast.parse(path.read_text()), False, False)


def floor_of(name):
    return name.split(".")[0] or "__init__"


def may_import(source, target):
    """Whether the table lets one module import another."""
    low, high = floor_of(target), floor_of(source)
    if low in BELOW_ALL:
        return high not in BELOW_ALL
    if low != high:
        insides = low == "modeling" and "." in target and high in FLOOR_2
        return low in MAY_IMPORT[high] and not insides
    return high != "modeling" or _may_import_within_modeling(source, target)


def _may_import_within_modeling(source, target):
    high, low = (name.split(".")[1] if "." in name else "__init__" for name in (source, target))
    if high in ("__init__", "build") or high == low:
        return True
    if high == "meta_arch":
        return low not in ("build", "__init__")
    return low not in SIBLINGS | ABOVE_SIBLINGS


def circles(graph):
    """Paths of modules that lead back to where they began."""
    finished = set()

    def visit(name, trail):
        if name in trail:
            circle = trail[trail.index(name) :]
            first = circle.index(min(circle))
            yield " -> ".join([*circle[first:], *circle[:first], circle[first]])
        elif name not in finished:
            for target in sorted(graph.get(name, ())):
                yield from visit(target, [*trail, name])
            finished.add(name)

    for name in sorted(graph):
        yield from visit(name, [])


def violations(root):
    """What breaks the rules under ``root``, one line each."""
    modules = modules_of(root)
    found = [i for name, path in modules.items() for i in imports_of(name, path, modules)]
    graph = {}
    for each in found:
        place = f"{modules[each.source].relative_to(root)}:{each.line}"
        target = f"detlite.{each.target}".rstrip(".")
        if floor_of(each.source) not in MAY_IMPORT:
            yield f"{place}: '{floor_of(each.source)}' is on no floor; give it one in this test"
        elif not may_import(each.source, each.target):
            yield f"{place}: {floor_of(each.source)} may not import {target}"
        if each.star:
            yield f"{place}: import * of {target}"
        if each.in_function and not each.has_comment:
            yield f"{place}: import of {target} within a function, without a comment that says why"
        if not (each.in_function or each.for_types_only):
            graph.setdefault(each.source, set()).add(each.target)
    yield from (f"circle: {circle}" for circle in circles(graph))


def test_the_package_keeps_to_its_floors():
    assert list(violations(ROOT)) == []


MOST_LINES = 400


def test_files_keep_to_the_limit_of_lines():
    folders = ("detlite", "tools", "projects", "csrc")
    suffixes = {".py", ".pyx", ".cpp", ".cu", ".h"}
    files = [p for folder in folders for p in (ROOT / folder).rglob("*") if p.suffix in suffixes]
    # Cython writes its .cpp beside the .pyx.
    written = [p for p in files if not (p.suffix != ".pyx" and p.with_suffix(".pyx").exists())]
    counts = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in written}
    assert counts
    assert {name: count for name, count in counts.items() if count > MOST_LINES} == {}


def test_the_walk_sees_the_package():
    modules = modules_of(ROOT)
    assert {"", "registry", "data", "data.build", "modeling.meta_arch.retinanet"} <= set(modules)
    found = list(imports_of("data.build", modules["data.build"], modules))
    assert {"config.schema", "errors", "registry"} <= {each.target for each in found}
    assert {floor_of(name) for name in modules} <= set(MAY_IMPORT)


GOOD = {
    "__init__.py": "from .engine import Trainer\n",
    "errors.py": "",
    "registry.py": "from .errors import ConfigError\n",
    "config/__init__.py": "from .tree import Tree\n",
    "config/tree.py": "from ..registry import Registry\nimport yaml\n",
    "modeling/__init__.py": "from . import backbones\n",
    "modeling/layers.py": "",
    "modeling/backbones/__init__.py": "from .resnet import ResNet\n",
    "modeling/backbones/resnet.py": "from ..layers import norm\n",
    "modeling/necks/fpn.py": "from ..layers import norm\n",
    "data/__init__.py": "",
    "data/build.py": "from ..config.tree import Tree\nfrom ..modeling import MetaArch\n",
    "solver/__init__.py": "",
    "engine/__init__.py": "from .trainer import Trainer\n",
    "engine/hook.py": "if TYPE_CHECKING:\n    from .trainer import Trainer\n",
    "engine/trainer.py": "from ..data.build import x\nfrom .hook import Hook\n",
}


def plant(root, **changes):
    for name, text in {**GOOD, **changes}.items():
        path = root / "detlite" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(violations(root))


def test_a_package_that_keeps_the_rules_passes(tmp_path):
    assert plant(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "text", "violation"),
    [
        ("registry.py", "from .config import Tree\n", "1: registry may not import detlite.config"),
        ("errors.py", "import detlite.registry\n", "1: errors may not import detlite.registry"),
        ("data/build.py", "\nfrom ..solver import x\n", "2: data may not import detlite.solver"),
        (
            "data/build.py",
            "from ..modeling.layers import norm\n",
            "1: data may not import detlite.modeling.layers",
        ),
        (
            "modeling/layers.py",
            "def f():\n    # for speed\n    from ..config.tree import Tree\n",
            "3: modeling may not import detlite.config.tree",
        ),
        (
            "modeling/necks/fpn.py",
            "from ..backbones import resnet\n",
            "1: modeling may not import detlite.modeling.backbones.resnet",
        ),
        (
            "modeling/layers.py",
            "from detlite.modeling import backbones\n",
            "1: modeling may not import detlite.modeling.backbones",
        ),
        ("data/build.py", "from ..config.tree import *\n", "1: import * of detlite.config.tree"),
        (
            "data/build.py",
            "def f():\n    from ..config import tree\n",
            "2: import of detlite.config.tree within a function, without a comment",
        ),
        (
            "engine/hook.py",
            "from .trainer import Trainer\n",
            "circle: engine.hook -> engine.trainer -> engine.hook",
        ),
        ("drawing/x.py", "from .. import registry\n", "1: 'drawing' is on no floor"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, name, text, violation):
    found = plant(tmp_path, **{name: text})
    assert any(violation in line for line in found), found


def test_an_import_within_a_function_passes_with_its_reason(tmp_path):
    text = "def f():\n    from ..config import tree  # optional\n"
    assert plant(tmp_path, **{"data/build.py": text}) == []
