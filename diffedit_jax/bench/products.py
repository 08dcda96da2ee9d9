"""FLOPs of the matrix products, convolutions and attention kernels of a compiled program."""

from __future__ import annotations

import math
import re

from .hlo import Computation, Instruction, Program
from .traffic import operand_buffers

MXU = 128  # side of the matrix unit: shorter contractions and outputs leave part of it idle


def products(program: Program, here: Computation, i: Instruction) -> tuple[float, float]:
    """FLOPs of one instruction and all inside it: by operand sizes, and as the unit pads them.

    The second number rounds the contraction and the width of the output up to 128 each; where a
    compiler folds several short contractions into one it says too much.
    """
    if i.op == "fusion":
        inner = program[i.names("calls")]
        parts = [products(program, inner, each) for each in inner]
        return tuple(float(sum(column)) for column in zip((0, 0), *parts, strict=True))
    if i.op == "convolution":
        return _convolution(here, i)
    if i.op == "dot":
        return _dot(here, i)
    return _kernel(here, i) if i.op == "custom-call" else (0.0, 0.0)


def _padded(width: int) -> int:
    return math.ceil(width / MXU) * MXU


def _dot(here: Computation, i: Instruction) -> tuple[float, float]:
    left = here[i.operands[0]].buffers[0].dims
    axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.attributes).group(1)
    depth = math.prod(left[int(axis)] for axis in axes.split(",") if axis)
    out = i.buffers[0].dims
    width = out[-1] if out else 1
    outputs = 2.0 * math.prod(out)
    return outputs * depth, outputs / width * _padded(width) * _padded(depth)


def _convolution(here: Computation, i: Instruction) -> tuple[float, float]:
    """2 x rows x taps that meet a real input x channels in x channels out."""
    left, kernel = (here[name].buffers[0].dims for name in i.operands[:2])
    out = i.buffers[0].dims
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", i.attributes).groups()
    taps = 1.0
    for axis, window in enumerate(_windows(i.attributes)):
        inside, outside = left[labels[0].index(str(axis))], out[labels[2].index(str(axis))]
        taps *= _taps(inside, outside, **window)
    depth, width = kernel[labels[1].index("i")], out[labels[2].index("f")]
    groups = re.search(r"batch_group_count=(\d+)", i.attributes)
    rows = 2.0 * taps * out[labels[2].index("b")] / (int(groups.group(1)) if groups else 1)
    return rows * depth * width, rows * _padded(depth) * _padded(width)


def _windows(attributes: str) -> list[dict[str, int]]:
    """The settings of each spatial axis in `window={size=3x3 pad=1_1x1_1 ...}`."""
    found = re.search(r"window=\{([^}]*)\}", attributes)
    if not found:
        return []
    settings = dict(part.split("=") for part in found.group(1).split())
    axes = len(settings["size"].split("x"))
    neutral = {"size": "1", "stride": "1", "pad": "0_0", "lhs_dilate": "1", "rhs_dilate": "1"}
    columns = {
        key: settings[key].split("x") if key in settings else [value] * axes
        for key, value in neutral.items()
    }
    # a pad may be negative; only its first number matters, outputs being given
    return [
        {key: int(column[axis].split("_")[0]) for key, column in columns.items()}
        for axis in range(axes)
    ]


def _taps(inside: int, outside: int, size, stride, pad, lhs_dilate, rhs_dilate) -> int:
    """Pairs (output position, tap) along one axis that read an input and not padding."""
    reach = (inside - 1) * lhs_dilate + 1
    count = 0
    for tap in range(size):
        start = tap * rhs_dilate - pad  # position read by output 0
        positions = range(start, start + outside * stride, stride)
        count += sum(0 <= p < reach and p % lhs_dilate == 0 for p in positions)
    return count


def _kernel(here: Computation, i: Instruction) -> tuple[float, float]:
    """Known attention kernels by their operands' shapes, others by their own cost estimate."""
    dims = [b.dims for b in operand_buffers(here, i)]
    ours = re.match(r"edit_attention_(gradients_)?(\d+)x(\d+)", i.name)
    if ours:
        heads, width = int(ours[2]), int(ours[3])
        # products of a pair (query, key): with a head's width as contraction or output, and others
        narrow, wide = (3, 2) if ours[1] else (2, 0)
        pairs = 2.0 * dims[0][0] * heads * dims[0][1] * dims[1][1]
        padded = narrow * _padded(width) + wide * width
        return pairs * (narrow + wide) * width, pairs * padded
    if i.name.startswith("online-softmax"):
        flops = 2.0 * math.prod(dims[0]) * dims[1][-1]
        return flops, flops
    if i.name.startswith("splash_mha"):
        (n, heads, queries, width), other = [d for d in dims if len(d) == 4][:2]
        factor = 10 if "dkv" in i.name else 6 if "dq" in i.name else 4
        flops = float(factor * n * heads * queries * other[2] * width)
        return flops, flops
    return (i.number("flops"),) * 2
