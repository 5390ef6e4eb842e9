"""Registries: components by name, and how a config block becomes one."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from inspect import Parameter
from types import ModuleType
from typing import Any, get_args

from .errors import ConfigError, UserError, did_you_mean, shorten

REGISTRIES: dict[str, "Registry"] = {}
_LOADERS: list[Callable[[], object]] = []


def before_first_lookup(load: Callable[[], object]) -> None:
    """Call a function once, before a component is looked up: it imports all, so that they register.

    ``detlite/__init__.py``, which alone may know all packages, hands it over, so that importing
    the package does not have to import torch.
    """
    _LOADERS.append(load)


def filled_registries() -> dict[str, "Registry"]:
    """All registries by kind, with all components of the package in them."""
    while _LOADERS:
        _LOADERS.pop()()  # taken out first, because loading looks things up as well
    return REGISTRIES


class Block(dict[str, Any]):
    """A config block, ``name`` and keyword arguments, whose keys read as attributes too."""

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            raise AttributeError(self._lacks(key)) from None

    def __setattr__(self, key: str, value: Any) -> None:
        # Of a checked config a block has all keys of its component, so another is a mistake.
        if key not in self:
            raise AttributeError(f'{self._lacks(key)}; a further one is set as block["{key}"]')
        self[key] = value

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]

    def _lacks(self, key: str) -> str:
        near = did_you_mean(key, self)
        return f"this block has no '{key}'{near}{' It' if near else '; it'} has {', '.join(self)}"


class BlockOf:
    """Marks an annotation as a block of a registry: ``Annotated[Block, BlockOf("dataset")]``."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


class Registry:
    """Components of one kind by name.

    A component is a class or a function whose keyword arguments are the keys of its config block.
    A class that holds components of other kinds builds them in a class method
    ``from_config(block, **computed)``; everything else is called with the block's keys.

    Args:
        kind: What the components are, in the words of an error message, e.g. "anchor generator".
        interface: The class that components derive from. A constructor argument annotated with it
            is a nested block of this registry.
        computed: Arguments that a config must not set, each with where its value comes from. A
            component is given those of them that its signature names.
        shared_keys: Keys that every block of this kind may have beside its component's own, each
            with its type and default; whoever builds the block reads them.
        modules: Further modules whose subclasses of ``interface`` can be named as they are.
    """

    def __init__(
        self,
        kind: str,
        interface: type | None = None,
        *,
        computed: Mapping[str, str] | None = None,
        shared_keys: Mapping[str, tuple[Any, Any]] | None = None,
        modules: tuple[ModuleType, ...] = (),
    ) -> None:
        self.kind = kind
        self.interface = interface
        self.computed = dict(computed or {})
        self.shared_keys = dict(shared_keys or {})
        self._modules = modules
        self._components: dict[str, Callable[..., Any]] = {}
        REGISTRIES[kind] = self

    def register(self, component: Callable[..., Any] | None = None) -> Any:
        """Add a component; works as ``@REGISTRY.register`` and as ``@REGISTRY.register()``.

        Raises:
            ValueError: Another component already has this name.
        """
        if component is None:
            return self.register
        name = component.__name__
        known = self._components.get(name)
        # The same file can be imported twice, once by a config and once by a test.
        if known is not None and _source(known) != _source(component):
            raise ValueError(
                f"{self.kind} '{name}' is already registered, by {_source(known)}; "
                f"choose another name in {_source(component)}"
            )
        self._components[name] = component
        return component

    def get(self, name: str) -> Callable[..., Any]:
        """Find a component.

        Raises:
            ConfigError: No component has this name; the message lists the known ones.
        """
        filled_registries()
        if isinstance(name, str):
            if name in self._components:
                return self._components[name]
            for module in self._modules:
                found = getattr(module, name, None)
                if inspect.isclass(found) and issubclass(found, self.interface or object):
                    return found
        near = did_you_mean(name, self._suggestions()) or "."
        raise ConfigError(
            f"no {self.kind} named '{shorten(str(name))}'{near} "
            f"Known: {', '.join(sorted(self._components)) or 'none'}{self._further()}.\n"
            "    A component of your own must be listed under `imports:` in the config."
        )

    def build(self, block: Mapping[str, Any], **computed: Any) -> Any:
        """Make the component that a block describes.

        Args:
            block: ``name`` and the component's keyword arguments.
            computed: Values that come from other components or from the data; the component is
                given those that it names.

        Raises:
            ConfigError: The component refuses its values; the message names it.
        """
        component = self.get(block["name"])
        from_config = getattr(component, "from_config", None)
        target = from_config or component
        signature = inspect.signature(target)
        kinds = {parameter.kind for parameter in signature.parameters.values()}
        # With both it is a class without a constructor of its own, such as one of torch's modules.
        open_ended = Parameter.VAR_KEYWORD in kinds and Parameter.VAR_POSITIONAL not in kinds
        given = {k: v for k, v in computed.items() if open_ended or k in signature.parameters}
        if from_config:
            return from_config(Block(block), **given)
        arguments = block_arguments(block, self.shared_keys)
        try:
            signature.bind(**arguments, **given)
        except TypeError as error:
            known = [key for key in signature.parameters if key not in self.computed]
            raise ConfigError(
                f"{self.kind} '{block['name']}': {error}; its keys are {', '.join(known)}"
            ) from None
        try:
            return component(**_with_enums(arguments, signature), **given)
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise ConfigError(f"{self.kind} '{block['name']}': {error}") from error
        except Exception as error:
            # Foreign classes check their values in ways of their own; a fault within a component
            # of ours or the user's keeps its traceback.
            foreign = block["name"] not in self._components
            if isinstance(error, UserError) or not (foreign or _is_out_of_memory(error)):
                raise
            values = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
            raise ConfigError(
                f"{self.kind} '{block['name']}' cannot be built: {type(error).__name__}: "
                f"{shorten(str(error).strip(), 300)}\n"
                f"    Its values: {shorten(values, 300)}. --debug shows where it fails."
            ) from error

    def __contains__(self, name: str) -> bool:
        filled_registries()
        return name in self._components

    def __iter__(self) -> Iterator[str]:
        filled_registries()
        return iter(sorted(self._components))

    def __repr__(self) -> str:
        return f"Registry({self.kind!r}: {', '.join(self)})"

    def _suggestions(self) -> set[str]:
        base = self.interface or object
        named = (
            name
            for module in self._modules
            for name, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, base)
        )
        return {*self._components, *named}

    def _further(self) -> str:
        modules = " and ".join(module.__name__ for module in self._modules)
        return f", and the classes of {modules}" if modules else ""


def block_arguments(block: Mapping[str, Any], without: Iterable[str] = ()) -> dict[str, Any]:
    """The keyword arguments that a block holds: all but ``name`` and the keys in ``without``."""
    return {key: value for key, value in block.items() if key != "name" and key not in without}


def _is_out_of_memory(error: Exception) -> bool:
    # torch raises RuntimeErrors; of sizes beyond 64 bits it says that they overflow.
    words = ("allocate memory", "out of memory", "overflow")
    told = str(error).lower()
    return isinstance(error, MemoryError | RuntimeError) and any(word in told for word in words)


def _with_enums(arguments: Mapping[str, Any], signature: inspect.Signature) -> dict[str, Any]:
    """The members of enums for the values that a config says them by."""
    result = dict(arguments)
    for name, value in arguments.items():
        annotation = getattr(signature.parameters.get(name), "annotation", None)
        for member in get_args(annotation) or (annotation,):
            if inspect.isclass(member) and issubclass(member, Enum) and type(value) is str:
                result[name] = next((m for m in member if m.value == value), value)
    return result


def _source(component: Callable[..., Any]) -> str:
    try:
        return inspect.getfile(component)
    except (TypeError, OSError):  # written at a prompt or in a notebook
        return component.__module__
