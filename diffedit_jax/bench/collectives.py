"""What the chips send each other in one run of a compiled program."""

from __future__ import annotations

import dataclasses
import re

from .hlo import Computation, Instruction, Program
from .traffic import operand_buffers

KINDS = (
    *("all-reduce", "all-gather", "reduce-scatter"),
    *("collective-permute", "all-to-all", "collective-broadcast"),
)


@dataclasses.dataclass(frozen=True)
class Transfer:
    """A collective, or a piece of one: pieces have their channel in common.

    size: bytes of what is given or of what comes back, whichever is more.
    """

    kind: str
    channel: str
    size: float


def transfers(program: Program, here: Computation, i: Instruction) -> list[Transfer]:
    """The collective that an instruction is, or those inside a fusion.

    A gather that hides behind products is cut into pieces, each in the fusion of a product; a
    sum of which every chip keeps its part is a fusion of an all-reduce and a slice.
    """
    if i.op == "fusion":
        name = i.names("calls")
        inner = program[name]
        found = [each for part in inner for each in transfers(program, inner, part)]
        if name.startswith("all-reduce-scatter"):
            return [dataclasses.replace(each, kind="reduce-scatter") for each in found]
        return found
    kind = next((name for name in KINDS if i.op.startswith(name)), None)
    if kind is None or i.op.endswith("-done"):
        return []
    channel = re.search(r"channel_id=(\d+)", i.attributes)
    return [Transfer(kind, channel.group(1) if channel else i.name, _size(here, i))]


def _size(here: Computation, i: Instruction) -> float:
    operands = sum(b.bytes for b in operand_buffers(here, i))
    results = 0 if i.op.endswith("-start") else sum(b.bytes for b in i.buffers)
    return float(max(operands, results))


def sums(found: list[tuple[float, Transfer]]) -> dict[str, float]:
    """{kind: bytes} of (how often it runs, transfer); of the pieces of one, the largest counts."""
    whole: dict[tuple[str, str], float] = {}
    for count, each in found:
        key = each.kind, each.channel
        whole[key] = max(whole.get(key, 0.0), count * each.size)
    kinds = {kind for kind, _ in whole}
    return {
        kind: sum(size for (name, _), size in whole.items() if name == kind)
        for kind in KINDS
        if kind in kinds
    }
