"""Read what a torch checkpoint's pickle describes, without running it.

A pickle is a program; unpickling it can run anything. Here its instructions are only looked at
(pickletools) and played back on plain values: a call becomes a record of what would be called.
Tensors, containers and a few harmless classes are understood, everything else is refused.

torch.load(weights_only=True) does the same with a list of functions that it does call. It is not used, because
torch is in no environment that converts, and because it refuses what trainers keep beside their weights
(nnScaler: argparse.Namespace). tests/weights/test_torch_real.py holds this reader to torch's.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import UserError


@dataclass(frozen=True)
class Name:
    """A module's attribute that the pickle refers to."""

    module: str
    name: str


@dataclass
class Call:
    """A call that the pickle asks for, or an object it would build. It is not carried out."""

    function: Any
    arguments: Any
    state: Any = None


@dataclass(frozen=True)
class Storage:
    """A block of numbers in a file of its own inside the archive."""

    type: str  # BFloat16Storage, ...
    key: str
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that views a storage; `offset` and `strides` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


# What checkpoints of torch, numpy and the trainers refer to. A name outside is code of unknown effect.
_HARMLESS_MODULES = ("torch", "collections", "numpy", "nnscaler", "argparse", "pathlib", "datetime", "enum", "_codecs")
_HARMLESS_BUILTINS = {"set", "frozenset", "dict", "list", "tuple", "slice", "complex", "bytes", "bytearray"}
_NEVER = {"load", "exec", "eval", "system", "open", "__import__", "load_library", "compile", "run", "Popen", "memmap"}
_TENSOR_BUILDERS = {("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor")}
_PARAMETER_BUILDERS = {("torch._utils", "_rebuild_parameter"), ("torch._utils", "_rebuild_parameter_with_state")}
_TYPED_BUILDER = ("torch._tensor", "_rebuild_from_type_v2")  # a tensor with attributes: (builder, type, arguments, ...)
_PLAIN_TENSORS = {Name("torch", "Tensor"), Name("torch.nn.parameter", "Parameter")}
_MARK = object()


def read(data: bytes, file: Path) -> Any:
    """The value that the pickle `data` (of `file`) describes: containers, StoredTensor and Call records.

    Raises UserError for a pickle that refers to code outside of what checkpoints hold, or is broken.
    """
    machine = _Machine(file)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except UserError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError("the pickle inside is broken", file=file, found=f"{type(error).__name__}: {error}") from None
    raise UserError("the pickle inside is truncated", file=file)


@dataclass
class _Machine:
    file: Path
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            self.stack.append(argument)
        elif name in _HANDLERS:
            _HANDLERS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise UserError("the pickle inside uses an unknown instruction", file=self.file, found=name)

    def after_mark(self) -> list[Any]:
        position = len(self.stack) - 1
        while self.stack[position] is not _MARK:
            position -= 1
        items = self.stack[position + 1 :]
        del self.stack[position:]
        return items

    def name(self, module: str, name: str) -> None:
        root = module.split(".")[0]
        if root in ("builtins", "__builtin__"):
            harmless = name in _HARMLESS_BUILTINS
        else:
            harmless = root in _HARMLESS_MODULES and name.split(".")[-1] not in _NEVER
        if not harmless:
            hint = "nothing was run; do not load this file with anything else, get the weights as safetensors"
            raise UserError(
                "the file asks to run code that no weights need", file=self.file, found=f"{module}.{name}", hint=hint
            )
        self.stack.append(Name(module, name))

    def stack_name(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.name(str(module), str(name))

    def reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(_called(function, arguments))

    def new_object(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(Call(function, arguments))

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Call):
            self.stack[-1].state = state  # a dict keeps its content: only attributes would be set

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update((_hashable(key), value) for key, value in zip(items[::2], items[1::2], strict=True))

    def dictionary(self, _: Any) -> None:
        items = self.after_mark()
        self.stack.append({})
        self.set_items(items)

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)

    def persistent(self, _: Any) -> None:
        kind, storage, key, _location, count = self.stack.pop()
        if kind != "storage" or not isinstance(storage, Name):
            raise ValueError("an unknown kind of storage")
        self.stack.append(Storage(storage.name, str(key), int(count)))


def _called(function: Any, arguments: Any) -> Any:
    if isinstance(function, Name):
        called = (function.module, function.name)
        if called in _TENSOR_BUILDERS:
            return _tensor(*arguments[:4], *arguments[6:])
        if called in _PARAMETER_BUILDERS:
            return arguments[0]
        if called == _TYPED_BUILDER and arguments[1] in _PLAIN_TENSORS:
            return _called(arguments[0], arguments[2])
        if called == ("collections", "OrderedDict"):
            return dict(arguments[0]) if arguments else {}
    return Call(function, arguments)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, metadata: Any = None) -> Any:
    numbers = (offset, *shape, *strides)
    if not all(type(number) is int and number >= 0 for number in numbers) or len(shape) != len(strides):
        raise ValueError("a tensor of impossible sizes")
    if not isinstance(storage, Storage) or metadata:  # metadata: bits that say "negated" or "conjugated"
        return Call(Name("torch._utils", "_rebuild_tensor_v2"), ())
    return StoredTensor(storage, offset, tuple(shape), tuple(strides))


def _hashable(key: Any) -> Any:
    # Anything else stays apart by its identity: nested values can take for ever to be hashed or printed.
    return key if isinstance(key, str | int | float | bool | None) else object()


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
    "MARK": lambda: _MARK,
}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def handle(machine: _Machine, _: Any) -> None:
        items = tuple(machine.stack[-count:])
        del machine.stack[-count:]
        machine.stack.append(items)

    return handle


def _pair(machine: _Machine) -> list[Any]:
    value, key = machine.stack.pop(), machine.stack.pop()
    return [key, value]


_HANDLERS: dict[str, Callable[[_Machine, Any], object]] = {
    "GLOBAL": lambda machine, argument: machine.name(*argument.split(" ", 1)),
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.new_object,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.after_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "LIST": lambda machine, _: machine.stack.append(machine.after_mark()),
    "DICT": _Machine.dictionary,
    "SETITEM": lambda machine, _: machine.set_items(_pair(machine)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.after_mark()),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.after_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.after_mark()),
    "FROZENSET": lambda machine, _: machine.stack.append(machine.after_mark()),
    "POP": lambda machine, _: machine.stack.pop(),
    **dict.fromkeys(
        ("PUT", "BINPUT", "LONG_BINPUT"), lambda machine, key: machine.memo.__setitem__(int(key), machine.stack[-1])
    ),
    "MEMOIZE": lambda machine, _: machine.memo.__setitem__(len(machine.memo), machine.stack[-1]),
    **dict.fromkeys(
        ("GET", "BINGET", "LONG_BINGET"), lambda machine, key: machine.stack.append(machine.memo[int(key)])
    ),
}
