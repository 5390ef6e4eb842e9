"""``load_config``: read a YAML with its bases, overrides and imports, and check it."""

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from ..errors import ConfigError, shorten
from .check import MAX_TOLD, Checker
from .files import config_path, read_text
from .schema import Config
from .tree import MAX_DEPTH, MAX_VALUES, Origin, Tree, parse_override, parse_yaml


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """Read and check a config.

    Args:
        path: A YAML file, or ``detlite://quickstart.yaml`` for one that detlite ships; the same
            holds for ``_base_``.
        overrides: ``key.path=value`` in YAML syntax, as on the command line.

    Raises:
        ConfigError: With every mistake found, each with file, line, key and value.
    """
    return check_tree(read_tree(path, overrides), str(path))


def read_tree(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Tree:
    """Read a YAML file, its bases and the overrides into one tree, unchecked."""
    tree = _Reader().read(config_path(path, Path()), "the config", ())
    for override in overrides:
        parsed = parse_override(override)
        _resolve_imports(parsed, Path.cwd())
        _merge(tree, parsed)
    return tree


def parse_config(text: str, source: str, *, trust_imports: bool = False) -> Config:
    """Check a resolved config that is not a file, such as a checkpoint's.

    Args:
        text: YAML without bases.
        source: What to call it in messages.
        trust_imports: Run the modules that it imports. A checkpoint from elsewhere must not be
            able to name code to run.
    """
    tree = parse_yaml(text, source)
    if _imports(tree) and not trust_imports:
        raise ConfigError(
            f"{source}: it was made with components from {shorten(', '.join(_imports(tree)))}. "
            "Loading does not run code of its own accord: if you trust these files, pass "
            "--trust-imports (trust_imports=True in Python)"
        )
    return check_tree(tree, source)


def check_tree(tree: Tree, source: str) -> Config:
    """Import what the tree names, check it, and make the config of it."""
    for i, entry in enumerate(_imports(tree)):
        import_component(entry, str(tree.origin(("imports", str(i))) or source))
    checker = Checker(tree)
    config = checker.section(Config, tree.values, ())
    if checker.problems:
        count = len(checker.problems)
        title = f"{source}: {count} mistakes" if count > 1 else f"{source}: a mistake"
        told = [f"  - {problem}" for problem in checker.problems[:MAX_TOLD]]
        more = [f"  and {count - MAX_TOLD} more"] if count > MAX_TOLD else []
        raise ConfigError("\n".join([f"{title} in the config", *told, *more]))
    assert isinstance(config, Config)
    return config


def import_component(entry: str, named_by: str) -> ModuleType:
    """Import a module by its name or, where it ends in ``.py``, by its path.

    Raises:
        ConfigError: There is no such module or file, or it fails while it runs.
    """
    try:
        if not entry.endswith(".py"):
            return importlib.import_module(entry)
        path = Path(entry).resolve()
        # Named by its whole path, since two projects may have files of the same name; without a
        # dot, so that pickle finds its classes without looking for a package.
        name = f"detlite_imports_{path.stem}_{hashlib.sha1(str(path).encode()).hexdigest()[:10]}"
        if name in sys.modules:
            return sys.modules[name]
        if not path.is_file():
            lacks = "is no file" if path.exists() else "does not exist"
            raise ConfigError(
                f"{named_by}: imports names {shorten(str(path), 200)}, which {lacks}; "
                "a path in `imports:` is relative to the YAML that holds it"
            )
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # a script without `if __name__ == ...` may exit
        hint = ""
        if isinstance(error, ModuleNotFoundError) and error.name == entry.partition(".")[0]:
            hint = f"; a file beside the YAML is named with its ending, {entry}.py"
        raise ConfigError(
            f"{named_by}: importing {shorten(entry, 200)} failed with {type(error).__name__}: "
            f"{shorten(str(error), 300)}{hint}"
        ) from error


class _Reader:
    """Reads a YAML and its bases, each file once however many name it, and within limits."""

    def __init__(self) -> None:
        self._trees: dict[Path, Tree] = {}
        self._values = 0

    def read(self, path: Path, named_by: str, within: tuple[Path, ...]) -> Tree:
        """The tree of a file, its bases merged; nobody may change it."""
        with suppress(ValueError):  # of a NUL, which opening it will tell
            path = Path(os.path.realpath(path))  # unlike Path.resolve, passes over circles of links
        if path in within:
            raise ConfigError(
                f"{named_by}: `_base_` goes round in a circle: {_chain(within, path)}"
            )
        if len(within) > MAX_DEPTH:
            raise ConfigError(
                f"{named_by}: more than {MAX_DEPTH} configs, each the `_base_` of the one before: "
                f"{_chain(within, path)}"
            )
        if path not in self._trees:
            self._trees[path] = self._read(path, named_by, within)
        return self._trees[path]

    def _read(self, path: Path, named_by: str, within: tuple[Path, ...]) -> Tree:
        source = os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
        source = shorten(source, 4096)  # a name may have bytes that are not UTF-8
        own = parse_yaml(read_text(path, named_by), source)
        bases = own.values.pop("_base_", [])
        bases = [bases] if isinstance(bases, str) else bases
        place = f"{own.origins.get(('_base_',), Origin(source))}"
        if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
            raise ConfigError(
                f"{source}: `_base_` must be a path or a list of paths, got {shorten(repr(bases))}"
            )
        _resolve_imports(own, path.parent)
        merged = Tree()
        for base in bases:
            tree = self.read(config_path(base, path.parent), place, (*within, path))
            # Counted as often as it is merged: many files with many bases take as long.
            self._values += 1 + len(tree.origins)
            if self._values > 2 * MAX_VALUES:
                raise ConfigError(
                    f"{place}: the bases together have more than {2 * MAX_VALUES:,} values"
                )
            _merge(merged, tree)
        _merge(merged, own)
        return merged


def _chain(within: tuple[Path, ...], path: Path) -> str:
    paths = [shorten(str(each), 200) for each in (*within, path)]
    shown = paths if len(paths) <= 8 else [*paths[:4], "...", *paths[-4:]]
    return " -> ".join(shown)


def _merge(tree: Tree, other: Tree) -> None:
    # What a base imports is needed as long as its blocks are; so this one list grows.
    imports = {
        entry: part.origins.get(("imports", str(i)))
        for part in (tree, other)
        for i, entry in enumerate(_imports(part))
    }
    tree.merge(other)
    if imports:
        tree.values["imports"] = list(imports)
        for i, origin in enumerate(imports.values()):
            if origin is not None:
                tree.origins["imports", str(i)] = origin


def _resolve_imports(tree: Tree, folder: Path) -> None:
    imports = _imports(tree)
    if imports:
        tree.values["imports"] = [
            os.path.realpath(folder / entry) if entry.endswith(".py") else entry
            for entry in imports
        ]


def _imports(tree: Tree) -> list[str]:
    """The modules and files that a tree imports; null for none.

    Raises:
        ConfigError: It is no list of words.
    """
    imports = tree.values.get("imports")
    if imports is None:
        return []
    if not isinstance(imports, list) or not all(isinstance(e, str) and e for e in imports):
        raise ConfigError(
            f"{tree.origin(('imports',))}: `imports` must be a list of modules and files, e.g. "
            f"[my_backbone.py]; got {shorten(repr(imports))}"
        )
    return imports
