"""Checks of what a YAML may say to a component: its constructor's arguments."""

import inspect
import json
import re

from ..config.signature import REQUIRED, signature_of
from ..registry import Registry
from .catalogue import check
from .report import Broken, NotApplicable
from .subject import Subject

_COMPUTED = "Arguments that a config must not set"


def _own_keys(subject: Subject) -> list[str]:
    if subject.component.__module__.startswith(("torch.", "torchvision.")):
        raise NotApplicable("a class of torch")
    return [
        key for key in signature_of(subject.component).keys if key not in subject.registry.computed
    ]


@check(of=Registry, line="the keys of its config block.")
def keys_have_types(subject: Subject) -> None:
    """Every key has a type annotation, by which a config is checked."""
    signature = signature_of(subject.component)
    parameters = inspect.signature(subject.component).parameters
    bare = [k for k in _own_keys(subject) if parameters[k].annotation is inspect.Parameter.empty]
    if bare:
        raise Broken(f"{', '.join(bare)}: no annotation, so that a config may say anything")
    unresolved = [
        key
        for key in _own_keys(subject)
        if isinstance(parameters[key].annotation, str)
        and "Any" in str(signature.keys[key].annotation)
    ]
    if unresolved and "Any" not in "".join(str(parameters[k].annotation) for k in unresolved):
        raise Broken(
            f"{', '.join(unresolved)}: the annotation names something that is not imported"
        )


@check(
    of=Registry, line="A component is a class or a function whose keyword arguments are the keys"
)
def keys_are_keyword_arguments(subject: Subject) -> None:
    """Every key is a keyword argument (after ``*``), for a config gives it by name."""
    parameters = inspect.signature(subject.component).parameters
    wrong = [
        key
        for key in _own_keys(subject)
        if parameters[key].kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    if wrong:
        raise Broken(
            f"{', '.join(wrong)} can be given by position; put `*,` before the first of them"
        )


@check(of=Registry, line="the keys of its config block.")
def keys_are_documented(subject: Subject) -> None:
    """Every key is said in the docstring, under ``Args:``."""
    known = _documented(subject)
    missing = [key for key in _own_keys(subject) if key not in known]
    if missing:
        raise Broken(f"the docstring says nothing of {', '.join(missing)}; add them under `Args:`")


def _documented(subject: Subject) -> set[str]:
    component = subject.component
    sources: list[object] = [component]
    if inspect.isclass(component):
        # A constructor that is inherited is documented where it is written.
        sources, bases = [], inspect.getmro(component)
        for base in bases:
            sources += [base, vars(base).get("__init__")]
            if "__init__" in vars(base):
                break
    found: set[str] = set()
    for source in sources:
        text = inspect.cleandoc(getattr(source, "__doc__", None) or "")
        section = re.split(r"^Args:\n", text, maxsplit=1, flags=re.MULTILINE)
        if len(section) == 2:
            found.update(re.findall(r"^ {4}(\w+):", section[1], flags=re.MULTILINE))
    return found


@check(of=Registry, line="the keys of its config block.")
def defaults_can_stand_in_a_config(subject: Subject) -> None:
    """Every default is a value that a YAML can hold, and one that the type allows."""
    keys = signature_of(subject.component).keys
    for name in _own_keys(subject):
        default = keys[name].default
        if default is REQUIRED:
            continue
        try:
            json.dumps(default)
        except TypeError:
            raise Broken(
                f"the default of '{name}' is {default!r:.60}, which no YAML can hold"
            ) from None


@check(of=Registry, line=_COMPUTED)
def computed_arguments_have_no_default(subject: Subject) -> None:
    """What the model computes is required: a default would hide that nobody gave it."""
    signature = signature_of(subject.component)
    hidden = [
        name
        for name in subject.registry.computed
        if name in signature.keys and signature.keys[name].default not in (REQUIRED, None)
    ]
    if subject.kind in ("schedule", "head") or not hidden:
        return
    raise Broken(f"{', '.join(hidden)}: computed by the model, and has a default here")


@check()
def it_says_what_it_is(subject: Subject) -> None:
    """It has a docstring of its own."""
    if not inspect.isclass(subject.component):
        return
    if not (subject.component.__doc__ or "").strip():
        raise Broken("the class has no docstring; one sentence, and `Args:` for its keys")
