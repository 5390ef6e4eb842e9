"""A pickle machine without code: it builds plain values and calls only what `MEANINGS` holds."""

import codecs
import pickle
import pickletools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

import torch

from .pickle_values import (
    MEANINGS,
    ArrayData,
    DTypeData,
    Inert,
    OrderedDictData,
    StorageData,
    check_key,
)

# Far more than weights need: those of a detector have under 100 000.
_MAX_OPCODES = 2_000_000

# Their objects (logs, in the files of mmdetection) become `Inert`, whatever the class.
INERT_PACKAGES = ("mmengine.", "mmcv.", "mmdet.", "numpy.dtypes.")
_MODULES_OF_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class RefusedNamesError(pickle.UnpicklingError):
    """A pickle asks for classes or functions that weights do not need."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = sorted(names)
        super().__init__(", ".join(self.names))


class PickleMachine:
    """Read the pickles of a file one after the other, as data.

    Args:
        file: Where they are, at its position; in memory or mapped, so that lengths are held to it.
        meanings: Further names and what they mean.
        with_storages: Whether the elements of tensors are outside of the pickle, as ``torch.save``
            has them; the tensors are then checked alone, and come as `Inert`.

    Attributes:
        asked: All names that the pickles ask for, as ``module.name``, with what they mean.
        refused: Those of them that have no meaning here.
        storages: What is kept outside of the pickle, by its key.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        meanings: Mapping[str, Any] | None = None,
        with_storages: bool = False,
    ) -> None:
        self.file = file
        self.meanings = {**MEANINGS, **(meanings or {})}
        self.with_storages = with_storages
        self.asked: dict[str, Any] = {}
        self.refused: set[str] = set()
        self.storages: dict[str, StorageData] = {}
        self._callable = {id(each) for each in (*self.meanings.values(), Inert) if callable(each)}

    def load(self) -> Any:
        """Read one pickle.

        Raises:
            RefusedNamesError: It asks for names without a meaning.
            EOFError: It is cut short, or damaged.
            pickle.UnpicklingError: It does what weights do not need.
        """
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        try:
            value = self._run()
        # A pickle that was made to break its reader may end in nearly any exception.
        except Exception as error:
            if not self.refused and isinstance(error, EOFError | pickle.UnpicklingError):
                raise
            if not self.refused:
                raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error
        if self.refused:
            raise RefusedNamesError(self.refused)
        return value

    def _run(self) -> Any:
        for _ in range(_MAX_OPCODES):
            code = self.file.read(1)
            if not code:
                raise EOFError("the pickle in it has no end")
            if code == pickle.STOP:
                return self.stack.pop()
            if code not in _STEPS:
                raise pickle.UnpicklingError(f"byte {code!r} is no step of a pickle of weights")
            read, step = _STEPS[code]
            try:
                arguments = (read(self.file),) if read else ()
            except ValueError as error:
                raise EOFError(str(error)) from error
            step(self, *arguments)
        raise pickle.UnpicklingError(f"the pickle in it has over {_MAX_OPCODES} steps")

    def _ignore(self, *argument: Any) -> None:
        pass

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def _pop(self) -> None:
        # As pickle does: right after a mark, it is the mark that goes.
        _ = self.stack.pop() if self.stack else self._since_mark()

    def _tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError("the stack is too short for a tuple")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def _append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif not isinstance(target, Inert):
            raise pickle.UnpicklingError(f"appending to a {type(target).__name__}")

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) in (dict, OrderedDictData):
            for key, value in zip(items[::2], items[1::2], strict=True):
                if not isinstance(key, Inert):
                    target[check_key(key)] = value
        elif not isinstance(target, Inert):
            raise pickle.UnpicklingError(f"setting items of a {type(target).__name__}")

    def _dict(self) -> None:
        items = self._since_mark()
        self.stack.append({})
        self._set_items(items)

    def _add(self) -> None:
        items = self._since_mark()
        if type(self.stack[-1]) is not set:
            raise pickle.UnpicklingError(f"adding to a {type(self.stack[-1]).__name__}")
        self.stack[-1].update(check_key(item) for item in items)

    def _pop_pair(self) -> list[Any]:
        value = self.stack.pop()
        return [self.stack.pop(), value]

    def _name(self, module: Any, name: Any) -> Any:
        if not isinstance(module, str) or not isinstance(name, str):
            raise pickle.UnpicklingError("a name that is no text")
        full = f"{_MODULES_OF_PYTHON_2.get(module, module)}.{name}"
        if full in self.meanings:
            meaning = self.meanings[full]
        else:
            meaning = Inert
            if not full.startswith(INERT_PACKAGES):
                # Read on with a stand-in, so that the error can tell all names at once.
                self.refused.add(full)
        self.asked[full] = meaning
        return meaning

    def _global(self, names: str) -> None:
        self._push(self._name(*names.split(" ", 1)))

    def _stack_global(self) -> None:
        self._push(self._name(*self._pop_pair()))

    def _inst(self, names: str) -> None:
        arguments = tuple(self._since_mark())
        self._push(self._call(self._name(*names.split(" ", 1)), arguments))

    def _obj(self) -> None:
        function, *arguments = self._since_mark()
        self._push(self._call(function, tuple(arguments)))

    def _reduce(self) -> None:
        self._push(self._call(*self._pop_pair()))

    def _newobj_ex(self) -> None:
        self.stack.pop()  # keywords, which only inert classes would take
        self._reduce()

    def _call(self, function: Any, arguments: Any) -> Any:
        if id(function) not in self._callable or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError(f"a call of a {type(function).__name__}")
        try:
            return function(*arguments)
        except RefusedNamesError as error:  # of a file within
            self.refused.update(error.names)
            return Inert()

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Inert | OrderedDictData | ArrayData | DTypeData):
            raise pickle.UnpicklingError(f"a state for a {type(target).__name__}")
        target.__setstate__(state)

    def _persistent(self) -> None:
        if not self.with_storages:
            raise pickle.UnpicklingError("a part that is kept outside of the pickle")
        kind, *data = self.stack.pop()
        if kind == "module" or data[0] is Inert:  # both are of a refused name
            self._push(Inert())
            return
        if kind != "storage":
            raise pickle.UnpicklingError("a part of an unknown kind outside of the pickle")
        dtype, key, _, numel, *view = data
        sizes = [numel, *(view[0][1:] if view and view[0] else (0, numel))]
        if not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError("a storage without a dtype or a name")
        if not all(isinstance(n, int) and n >= 0 for n in sizes) or sum(sizes[1:]) > numel:
            raise pickle.UnpicklingError(f"a storage of {str(sizes)[:80]} elements")
        storage = StorageData(dtype, numel)
        known = self.storages.setdefault(key, storage)
        if known.nbytes != storage.nbytes:
            raise pickle.UnpicklingError(f"the storage {key[:40]!r} in two sizes")
        self._push(StorageData(dtype, sizes[2]))


def _read_python_2_string(file: BinaryIO) -> str:
    # The reader of pickletools takes ASCII alone, but the arrays of Python 2 are such strings.
    line = file.readline().rstrip(b"\n")
    if len(line) < 2 or line[:1] not in b"'\"" or line[-1:] != line[:1]:
        raise ValueError("a string without its quotes")
    return codecs.escape_decode(line[1:-1])[0].decode("latin-1")  # type: ignore[attr-defined]


_Step = Callable[..., None]
_CONSTANT = re.compile(r"(SHORT_)?(BIN)?(INT|LONG|FLOAT|STRING|BYTES|UNICODE)[1248]?|BYTEARRAY8")

# By the name of the opcode. Missing are the extension registry, buffers and ids in text.
_STEPS_BY_NAME: dict[str, _Step] = {
    **dict.fromkeys(["PROTO", "FRAME"], PickleMachine._ignore),
    **{op.name: PickleMachine._push for op in pickletools.opcodes if _CONSTANT.fullmatch(op.name)},
    "NONE": lambda m: m._push(None),
    "NEWTRUE": lambda m: m._push(True),
    "NEWFALSE": lambda m: m._push(False),
    "EMPTY_TUPLE": lambda m: m._push(()),
    "EMPTY_LIST": lambda m: m._push([]),
    "EMPTY_DICT": lambda m: m._push({}),
    "EMPTY_SET": lambda m: m._push(set()),
    "MARK": PickleMachine._mark,
    "POP": PickleMachine._pop,
    "POP_MARK": lambda m: m._ignore(m._since_mark()),
    "DUP": lambda m: m._push(m.stack[-1]),
    "TUPLE": lambda m: m._push(tuple(m._since_mark())),
    "TUPLE1": lambda m: m._tuple_of(1),
    "TUPLE2": lambda m: m._tuple_of(2),
    "TUPLE3": lambda m: m._tuple_of(3),
    "LIST": lambda m: m._push(m._since_mark()),
    "DICT": PickleMachine._dict,
    "FROZENSET": lambda m: m._push({check_key(item) for item in m._since_mark()}),
    "APPEND": lambda m: m._append([m.stack.pop()]),
    "APPENDS": lambda m: m._append(m._since_mark()),
    "SETITEM": lambda m: m._set_items(m._pop_pair()),
    "SETITEMS": lambda m: m._set_items(m._since_mark()),
    "ADDITEMS": PickleMachine._add,
    **dict.fromkeys(["PUT", "BINPUT", "LONG_BINPUT"], PickleMachine._put),
    **dict.fromkeys(["GET", "BINGET", "LONG_BINGET"], lambda m, i: m._push(m.memo[i])),
    "MEMOIZE": lambda m: m._put(len(m.memo)),
    "GLOBAL": PickleMachine._global,
    "STACK_GLOBAL": PickleMachine._stack_global,
    "INST": PickleMachine._inst,
    "OBJ": PickleMachine._obj,
    "REDUCE": PickleMachine._reduce,
    "NEWOBJ": PickleMachine._reduce,
    "NEWOBJ_EX": PickleMachine._newobj_ex,
    "BUILD": PickleMachine._build,
    "BINPERSID": PickleMachine._persistent,
}
_READERS: dict[str, Any] = {
    op.name: op.arg.reader for op in pickletools.opcodes if op.arg is not None
} | {"STRING": _read_python_2_string}
_STEPS: dict[bytes, tuple[Any, _Step]] = {
    op.code.encode("latin-1"): (_READERS.get(op.name), _STEPS_BY_NAME[op.name])
    for op in pickletools.opcodes
    if op.name in _STEPS_BY_NAME
}
