"""What one run of a compiled TPU program costs: products, traffic with HBM, collectives.

XLA's own `cost_analysis()` counts a loop's body once, counts traffic inside the chip as bytes and
most kernels as nothing; here loops are multiplied out, only buffers in HBM count, a slice counts
as the slice, and kernels are counted from the shapes of their operands.
HBM bytes are good to about 15 %; an operand of a kernel counts once, so they are a lower bound.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from .collectives import Transfer, sums, transfers
from .hlo import Computation, Instruction, Program
from .products import products
from .traffic import traffic

_FREE = {
    *("parameter", "tuple", "get-tuple-element", "bitcast", "constant", "after-all"),
    *("partition-id", "replica-id", "opt-barrier", "add-dependency", "async-update"),
}


@dataclasses.dataclass(frozen=True)
class Item:
    """One instruction that runs `count` times; the other numbers are for one run."""

    name: str
    kind: str
    origin: str
    count: float
    flops: float = 0.0  # 2 x multiply-adds, by the operands' own sizes
    mxu_flops: float = 0.0  # the same with contraction and output width rounded up to 128
    hbm: float = 0.0  # bytes to and from HBM
    hbm_tiled: float = 0.0  # the same with the padding of the layout
    transfers: tuple[Transfer, ...] = ()  # to and from other chips

    @property
    def overlapped(self) -> bool:
        """A transfer that the program starts and waits for later."""
        return self.kind.endswith("-start")


def items(program: Program) -> list[Item]:
    """Every instruction of a run that costs something, loops multiplied out."""
    return _of_computation(program, program[program.entry], 1.0)


def _of_computation(program: Program, here: Computation, count: float) -> list[Item]:
    found: list[Item] = []
    for instruction in here:
        op = instruction.op
        if op in _FREE or op.endswith("-done"):
            continue
        if op == "while":
            inner = program[instruction.names("body")]
            found += _of_computation(program, inner, count * program.trips(instruction))
        elif op == "call":
            found += _of_computation(program, program[instruction.names("to_apply")], count)
        elif op == "conditional":
            found += _dearest_branch(program, instruction, count)
        elif op == "async-start":
            found += _of_computation(program, program[instruction.names("calls")], count)
        else:
            found.append(_item(program, here, instruction, count))
    return found


def _dearest_branch(program: Program, instruction: Instruction, count: float) -> list[Item]:
    """A conditional costs what its most expensive branch does."""
    listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    names = re.findall(r"%([\w.\-]+)", listed.group(1)) if listed else []
    names += [n for n in map(instruction.names, ("true_computation", "false_computation")) if n]
    branches = [_of_computation(program, program[name], count) for name in names]
    return max(branches, key=lambda b: sum(i.count * (i.flops + i.hbm) for i in b), default=[])


def _item(program: Program, here: Computation, i: Instruction, count: float) -> Item:
    flops, padded = products(program, here, i)
    moved = [(b, part) for b, part in traffic(program, here, i) if b.space == 0]
    return Item(
        name=i.name,
        kind=i.op,
        origin=i.origin,
        count=count,
        flops=flops,
        mxu_flops=padded,
        hbm=float(sum(part for _, part in moved)),
        hbm_tiled=float(sum(part * b.tiled_bytes / max(b.bytes, 1) for b, part in moved)),
        transfers=tuple(transfers(program, here, i)),
    )


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip: FLOP/s of bfloat16 products, bytes/s and bytes of HBM."""

    flops: float
    bandwidth: float
    memory: float


CHIPS = {
    "v5e": Chip(197e12, 819e9, 16e9),
    "v5p": Chip(459e12, 2765e9, 95e9),
    "v6e": Chip(918e12, 1640e9, 32e9),
}


@dataclasses.dataclass(frozen=True)
class Total:
    """Sums over a run, and two bounds on its time that know nothing of the vector unit.

    roofline: max(FLOPs / peak, HBM bytes / bandwidth).
    operations: the same for each instruction, summed; transfers that overlap count as free.
    """

    flops: float
    mxu_flops: float
    hbm: float
    hbm_tiled: float
    collectives: dict[str, float]  # {kind: bytes}
    roofline: float  # seconds
    operations: float  # seconds


def total(parts: Iterable[Item], chip: Chip) -> Total:
    """Adds up `items(...)` for one chip."""
    parts = list(parts)
    numbers = {
        key: float(sum(part.count * getattr(part, key) for part in parts))
        for key in ("flops", "mxu_flops", "hbm", "hbm_tiled")
    }
    sent = sums([(part.count, each) for part in parts for each in part.transfers])
    roofline = max(numbers["flops"] / chip.flops, numbers["hbm"] / chip.bandwidth)
    operations = float(sum(part.count * seconds(part, chip) for part in parts))
    return Total(**numbers, collectives=sent, roofline=roofline, operations=operations)


def seconds(part: Item, chip: Chip) -> float:
    """max(FLOPs / peak, HBM bytes / bandwidth) of one run of one instruction."""
    return 0.0 if part.overlapped else max(part.flops / chip.flops, part.hbm / chip.bandwidth)
