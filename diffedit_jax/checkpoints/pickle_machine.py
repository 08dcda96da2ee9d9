"""A pickle interpreter that can build tensors and plain containers, and cannot run code.

Python's unpickler imports and calls whatever the file names. This one knows no imports: the
names in ALLOWED are answered by functions of ours, every other name is refused, and a "call"
is a look-up in that table. All state is a stack, a memo and plain values, so the cost is
linear in the size of the file.

Source: the opcodes as documented in the standard library's pickletools.
"""

import pickletools
from collections.abc import Callable
from typing import Any

from diffedit_jax.errors import UserError

OPCODE_LIMIT = 50_000_000  # a checkpoint of a billion weights needs about 100,000
SCALARS = (str, bytes, int, float, bool, type(None))
MARK = object()


class Global:
    """A name that the file may use; `build(*args)` is our own answer to calling it.

    Hashable, because old Lightning files use classes as dictionary keys.
    """

    def __init__(self, name: str, build: Callable | None = None):
        self.name = name
        self.build = build

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Inert:
    """An object of a class that we know and do not need: its fields, and nothing that acts."""

    def __init__(self, name: str, args: tuple = ()):
        self.name = name
        self.args = args
        self.fields: dict = {}


class PickleMachine:
    """Runs one pickle. `allowed` maps (module, name) to Global; `persistent` answers storages.

    `run(stream)` returns the object; afterwards the stream stands behind the STOP opcode.
    Raises: UserError naming the first thing in the file that is not on the list.
    """

    def __init__(self, where: str, allowed: dict[str, Global], persistent: Callable[[Any], Any]):
        self.where = where
        self.allowed = allowed
        self.persistent = persistent
        self.stack: list = []
        self.memo: dict[int, Any] = {}

    def run(self, stream) -> Any:
        try:
            return self._run(stream)
        except UserError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
            raise self.broken(str(error)[:120] or type(error).__name__) from None

    def _run(self, stream) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if opcode.name == "STOP":
                return self.stack.pop()
            if count > OPCODE_LIMIT:
                raise self.broken("it has too many instructions")
            handler = HANDLERS.get(opcode.name)
            if handler is None:
                raise self.refused(f"the instruction {opcode.name}")
            handler(self, argument)
        raise self.broken("it ends early")

    def refused(self, what: str) -> UserError:
        """The error for something that a file of tensors has no business to hold."""
        return UserError(
            f"{self.where} holds more than tensors and plain containers: {what}; refused, and "
            "nothing of it was run. Use a .safetensors file instead"
        )

    def broken(self, why: str) -> UserError:
        return UserError(f"{self.where} is not a sound checkpoint: {why}; download it again")

    def push(self, value) -> None:
        self.stack.append(value)

    def pop(self):
        value = self.stack.pop()
        if value is MARK:
            raise ValueError("a mark where a value belongs")
        return value

    def top(self, kind: type):
        """The value on top of the stack, which must be one of the plain containers."""
        if not isinstance(self.stack[-1], kind):
            raise TypeError(f"an item for a {kind.__name__} is put into something else")
        return self.stack[-1]

    def since_mark(self) -> list:
        position = len(self.stack) - 1
        while self.stack[position] is not MARK:
            position -= 1
            if position < 0:
                raise ValueError("a mark is missing")
        values = self.stack[position + 1 :]
        del self.stack[position:]
        return values

    def find(self, module: str, name: str) -> Global:
        found = self.allowed.get(f"{module}.{name}")
        if found is None:
            raise self.refused(f"it names {module}.{name}")
        return found

    def call(self, function, arguments):
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise self.refused("a call of something that is not a known name")
        if function.build is None:
            return Inert(function.name, arguments)
        return function.build(*arguments)


def _store(machine: PickleMachine, items: list) -> None:
    target = machine.top(dict)
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[_key(key)] = value


def _key(key):
    """Only scalars and names: hashing a nested tuple can take exponential time."""
    if isinstance(key, SCALARS + (Global,)):
        return key
    if isinstance(key, tuple) and all(isinstance(part, SCALARS) for part in key):
        return key
    raise TypeError("a dictionary key is neither text nor a number")


def _set_item(machine: PickleMachine, _) -> None:
    value, key = machine.pop(), machine.pop()
    _store(machine, [key, value])


def _append(machine: PickleMachine, items: list) -> None:
    machine.top(list).extend(items)


def _tuple(machine: PickleMachine, length: int) -> None:
    values = [machine.pop() for _ in range(length)]
    machine.push(tuple(values[::-1]))


def _global(machine: PickleMachine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.push(machine.find(module, name))


def _stack_global(machine: PickleMachine, _) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise TypeError("a global's name is not text")
    machine.push(machine.find(module, name))


def _reduce(machine: PickleMachine, _) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.push(machine.call(function, arguments))


def _build(machine: PickleMachine, _) -> None:
    """State of an object: kept for an Inert, dropped for a dict (torch's `_metadata`)."""
    state = machine.pop()
    target = machine.stack[-1]
    if isinstance(target, Inert):
        target.fields = state if isinstance(state, dict) else {"state": state}
    elif not isinstance(target, dict):
        raise machine.refused(f"a state for a {type(target).__name__}")


def _memoize(machine: PickleMachine, index) -> None:
    machine.memo[len(machine.memo) if index is None else int(index)] = machine.stack[-1]


def _persistent(machine: PickleMachine, argument) -> None:
    machine.push(machine.persistent(machine.pop() if argument is None else argument))


def _set(machine: PickleMachine, values: list) -> set:
    return {_key(value) for value in values}


def _push(machine: PickleMachine, argument) -> None:
    machine.push(argument)


def _nothing(machine: PickleMachine, _) -> None:
    """PROTO and FRAME say nothing that matters here."""


_LITERALS = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
)

HANDLERS: dict[str, Callable[[PickleMachine, Any], None]] = {
    **dict.fromkeys(_LITERALS, _push),
    **dict.fromkeys(("PROTO", "FRAME"), _nothing),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _memoize),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, a: m.push(m.memo[int(a)])),
    **dict.fromkeys(("PERSID", "BINPERSID"), _persistent),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _reduce),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "MARK": lambda m, _: m.push(MARK),
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m.since_mark(),
    "DUP": lambda m, _: m.push(m.stack[-1]),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_SET": lambda m, _: m.push(set()),
    "LIST": lambda m, _: m.push(m.since_mark()),
    "TUPLE": lambda m, _: m.push(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: _tuple(m, 1),
    "TUPLE2": lambda m, _: _tuple(m, 2),
    "TUPLE3": lambda m, _: _tuple(m, 3),
    "DICT": lambda m, _: _dict(m, m.since_mark()),
    "FROZENSET": lambda m, _: m.push(frozenset(_set(m, m.since_mark()))),
    "ADDITEMS": lambda m, _: _add_items(m, m.since_mark()),
    "APPEND": lambda m, _: _append(m, [m.pop()]),
    "APPENDS": lambda m, _: _append(m, m.since_mark()),
    "SETITEM": _set_item,
    "SETITEMS": lambda m, _: _store(m, m.since_mark()),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "BUILD": _build,
}


def _dict(machine: PickleMachine, items: list) -> None:
    machine.push({})
    _store(machine, items)


def _add_items(machine: PickleMachine, values: list) -> None:
    machine.top(set).update(_set(machine, values))
