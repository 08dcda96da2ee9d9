"""The text of a compiled XLA program as instructions: shapes, memory spaces, operands, loops.

Only what cost counting needs is read; see `diffedit_jax.bench.cost`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re

BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("s16", "u16", "bf16", "f16"), 2),
    **dict.fromkeys(("s32", "u32", "f32"), 4),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 8),
    "c128": 16,
    "s4": 0.5,
    "u4": 0.5,
    "token": 0,
    "opaque": 0,
}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_LINE = re.compile(r"^  (ROOT )?%([\w.\-]+) = ")
_SPACE = re.compile(r"S\((\d+)\)")
_TILE = re.compile(r"^([\d,]*):T\(([\d,]+)\)")


@dataclasses.dataclass(frozen=True)
class Buffer:
    """One array: element type, dimensions, memory space (0 is HBM, others are on the chip)."""

    element: str
    dims: tuple[int, ...]
    space: int
    tiled_size: int  # elements, with every tile of the layout filled up

    @property
    def bytes(self) -> int | float:
        """Size without padding."""
        return math.prod(self.dims) * BYTES.get(self.element, 4)

    @property
    def tiled_bytes(self) -> int | float:
        """Size as laid out in memory."""
        return self.tiled_size * BYTES.get(self.element, 4)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `%name = shape op(operands), attributes`."""

    name: str
    shape: str
    op: str
    inside: str  # the text between the parentheses
    attributes: str
    root: bool

    @functools.cached_property
    def operands(self) -> tuple[str, ...]:
        """Names of the instructions whose results this one takes."""
        return tuple(re.findall(r"%([\w.\-]+)", self.inside))

    @functools.cached_property
    def buffers(self) -> tuple[Buffer, ...]:
        """The arrays of the result; several for a tuple."""
        return buffers_of(self.shape)

    def names(self, key: str) -> str | None:
        """The computation that attribute `key` names (calls, body, condition, to_apply)."""
        found = re.search(key + r"=%([\w.\-]+)", self.attributes)
        return found.group(1) if found else None

    def number(self, key: str) -> float:
        """The number that is quoted under `key` in the backend's settings; 0 if there is none."""
        found = re.search(f'"{key}":"?(\\d+)', self.attributes)
        return float(found.group(1)) if found else 0.0

    @property
    def origin(self) -> str:
        """Where in the Python program the operation came from."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found.group(1) if found else ""


class Computation:
    """A named list of instructions: the entry, a loop's body, the inside of a fusion."""

    def __init__(self, name: str):
        self.name = name
        self.instructions: dict[str, Instruction] = {}

    def __iter__(self):
        return iter(self.instructions.values())

    def __getitem__(self, name: str) -> Instruction:
        return self.instructions[name]

    def get(self, name: str) -> Instruction | None:
        """The instruction of that name, if it is here."""
        return self.instructions.get(name)

    @functools.cached_property
    def root(self) -> Instruction:
        """The instruction whose value the computation returns."""
        return next(i for i in self if i.root)

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Parameters by number."""
        return {int(i.inside): i for i in self if i.op == "parameter"}

    @functools.cached_property
    def users(self) -> dict[str, list[tuple[Instruction, int]]]:
        """{name: [(who reads it, as which operand)]}."""
        found: dict[str, list] = {name: [] for name in self.instructions}
        for instruction in self:
            for position, name in enumerate(instruction.operands):
                if name in found:
                    found[name].append((instruction, position))
        return found


@dataclasses.dataclass
class Program:
    """All computations of one compiled module."""

    computations: dict[str, Computation]
    entry: str

    def __getitem__(self, name: str) -> Computation:
        return self.computations[name]

    def trips(self, loop: Instruction) -> int:
        """How often a `while` runs: the compiler's own count, or the bound in its condition."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
        if known:
            return int(known.group(1))
        bounds = [
            int(i.inside)
            for i in self[loop.names("condition")]
            if i.op == "constant" and i.shape.startswith("s32[]")
        ]
        return max(bounds, default=1)


def buffers_of(shape: str) -> tuple[Buffer, ...]:
    """Every array of a shape's text, tuples flattened."""
    return tuple(_buffer(*found.groups()) for found in _ARRAY.finditer(shape))


def _buffer(element: str, dims: str, layout: str | None) -> Buffer:
    sizes = tuple(int(d.strip("<=")) for d in dims.split(",") if d)
    space = _SPACE.search(layout or "")
    padded = list(sizes)
    tile = _TILE.match(layout or "")
    if tile and tile.group(1):
        order = [int(d) for d in tile.group(1).split(",")]
        sides = [int(d) for d in tile.group(2).split(",")][::-1]
        for axis, side in zip(order, sides, strict=False):
            padded[axis] = -(-padded[axis] // side) * side
    return Buffer(element, sizes, int(space.group(1)) if space else 0, math.prod(padded))


def parse(text: str) -> Program:
    """Reads what `compiled.as_text()` gives.

    Example: `parse(jax.jit(f).lower(x).compile().as_text())`.
    """
    computations, entry, current = {}, "", None
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")):
            head = _HEAD.match(line)
            if head:
                current = computations[head.group(2)] = Computation(head.group(2))
                entry = head.group(2) if head.group(1) else entry
        elif current is not None and _LINE.match(line):
            instruction = _instruction(line)
            current.instructions[instruction.name] = instruction
    if not entry:
        raise ValueError("this is not the text of a compiled XLA program: it has no ENTRY")
    return Program(computations, entry)


def _instruction(line: str) -> Instruction:
    head = _LINE.match(line)
    rest = line[head.end() :]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else _end_of_array(rest)
    shape, rest = rest[:end], rest[end:].strip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    return Instruction(
        name=head.group(2),
        shape=shape,
        op=rest[:opening],
        inside=rest[opening + 1 : closing],
        attributes=rest[closing + 1 :],
        root=bool(head.group(1)),
    )


def _end_of_array(text: str) -> int:
    """Where the shape of a single array ends: after its layout, which may hold spaces."""
    space, brace = text.index(" "), text.find("{")
    return _closing(text, brace) + 1 if 0 <= brace < space else space


def _closing(text: str, start: int) -> int:
    """Position of the bracket that closes the one at `start`."""
    depth = 0
    for position in range(start, len(text)):
        if text[position] in "({[":
            depth += 1
        elif text[position] in ")}]":
            depth -= 1
            if depth == 0:
                return position
    return len(text) - 1
