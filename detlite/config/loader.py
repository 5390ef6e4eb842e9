"""``load_config``: read a YAML with its bases, overrides and imports, and check it."""

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from ..errors import ConfigError
from .check import Checker
from .schema import Config
from .tree import Origin, Tree, parse_override, parse_yaml, read_text


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """Read and check a config.

    Args:
        path: A YAML file.
        overrides: ``key.path=value`` in YAML syntax, as on the command line.

    Raises:
        ConfigError: With every mistake found, each with file, line, key and value.
    """
    return check_tree(read_tree(path, overrides), str(path))


def read_tree(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Tree:
    """Read a YAML file, its bases and the overrides into one tree, unchecked."""
    tree = _read(Path(path), "the config", ())
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
    if tree.values.get("imports") and not trust_imports:
        raise ConfigError(
            f"{source}: it was made with components from {', '.join(tree.values['imports'])}. "
            "Loading does not run code of its own accord: if you trust these files, pass "
            "--trust-imports (trust_imports=True in Python)"
        )
    return check_tree(tree, source)


def check_tree(tree: Tree, source: str) -> Config:
    """Import what the tree names, check it, and make the config of it."""
    imports = tree.values.get("imports", [])
    if isinstance(imports, list):
        for i, entry in enumerate(imports):
            import_component(str(entry), str(tree.origin(("imports", str(i))) or source))
    checker = Checker(tree)
    config = checker.section(Config, tree.values, ())
    if checker.problems:
        count = len(checker.problems)
        title = f"{source}: {count} mistakes" if count > 1 else f"{source}: a mistake"
        raise ConfigError(
            "\n".join([f"{title} in the config", *(f"  - {p}" for p in checker.problems)])
        )
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
            raise ConfigError(
                f"{named_by}: imports names {path}, which does not exist; "
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
    except Exception as error:
        hint = ""
        if isinstance(error, ModuleNotFoundError) and error.name == entry.partition(".")[0]:
            hint = f"; a file beside the YAML is named with its ending, {entry}.py"
        raise ConfigError(
            f"{named_by}: importing {entry} failed with {type(error).__name__}: {error}{hint}"
        ) from error


def _read(path: Path, named_by: str, within: tuple[Path, ...]) -> Tree:
    path = path.resolve()
    if path in within:
        chain = " -> ".join(str(p) for p in (*within, path))
        raise ConfigError(f"{named_by}: `_base_` goes round in a circle: {chain}")
    source = os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    own = parse_yaml(read_text(path, named_by), source)
    bases = own.values.pop("_base_", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{source}: `_base_` must be a path or a list of paths, got {bases!r}")
    _resolve_imports(own, path.parent)
    merged = Tree()
    for base in bases:
        place = f"{own.origins.get(('_base_',), Origin(source))}"
        _merge(merged, _read(path.parent / base, place, (*within, path)))
    _merge(merged, own)
    return merged


def _merge(tree: Tree, other: Tree) -> None:
    # What a base imports is needed as long as its blocks are; so this one list grows.
    imports = {
        entry: part.origins[("imports", str(i))]
        for part in (tree, other)
        for i, entry in enumerate(part.values.get("imports", []))
    }
    tree.merge(other)
    if imports:
        tree.values["imports"] = list(imports)
        for i, origin in enumerate(imports.values()):
            tree.origins[("imports", str(i))] = origin


def _resolve_imports(tree: Tree, folder: Path) -> None:
    imports = tree.values.get("imports", [])
    if not isinstance(imports, list) or not all(isinstance(entry, str) for entry in imports):
        raise ConfigError(
            f"{tree.origin(('imports',))}: `imports` must be a list of modules and files, e.g. "
            f"[my_backbone.py]; got {imports!r}"
        )
    if imports:
        tree.values["imports"] = [
            str((folder / entry).resolve()) if entry.endswith(".py") else entry for entry in imports
        ]
