"""`diffedit bench tpu`: compiles for TPUs that are not there, and reads the cost off the program.

No number here was measured on a TPU. Rooflines and sums of operations are lower bounds on time:
they know nothing of the vector unit or of how well short contractions fill the matrix unit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax

from ..errors import UserError
from . import aot, cost, hlo


@dataclasses.dataclass(frozen=True)
class Row:
    """One program on one chip: a line of the table."""

    program: str
    topology: str
    flops: float | None
    hbm: float
    temporaries: float | None
    arguments: float | None
    collectives: str
    roofline_ms: float | None
    operations_ms: float | None
    mxu_flops: float | None = None
    hbm_tiled: float | None = None
    compile_s: float | None = None
    compile_cpu_s: float | None = None
    note: str = ""


# Counted by the same rules from the compiled programs of these public packages (docs/speed.md):
# jax 0.10.2, libtpu 0.0.42.1; diffusers 0.35.2 (Flax); MaxDiffusion 7cfb8801d41d, flash attention
# with blocks of 1024, whose kernel pads the head dim of 40 to 128.
PEERS = {
    "layer": [
        Row("diffusers-Flax, all scores", "v5e:2x4", None, 9.05e9, 4.65e9, None, "none",
            None, None),
        Row("diffusers-Flax, memory-efficient", "v5e:2x4", None, 3.06e9, 0.08e9, None, "none",
            None, None),
        Row("MaxDiffusion, flash", "v5e:2x4", 1.10e12, 1.62e9, 0.62e9, None, "none", None, None,
            note="HBM a lower bound, as ours"),
    ],
    "block": [],
    "unet": [
        Row("MaxDiffusion UNet, batch 16", "v5e:2x4", 1.63e13, 2.91e10, 0.89e9, 1.73e9,
            "none", 82.9, 97.8, note="HBM a lower bound, as ours"),
    ],
    "loop": [
        Row("diffusers-Flax txt2img, 50 DDIM steps, 4 images", "v5e:2x4", 3.22e14, 1.50e12, 3.38e9,
            2.07e9, "none", 1836.0, 2925.0, note="bound by HBM"),
    ],
}  # fmt: skip
GOALS = {
    "layer": {},
    "block": {},
    "unet": {"flops": 1.45e13, "operations_ms": 85.0},
    "loop": {"hbm": 1.05e12, "collectives": "none"},
}


def compiled_row(title: str, topology: str, program: Any, dearest: int, save: Path | None) -> Row:
    """Compiles (function, arguments) and reads its cost for one chip."""
    function, arguments = program
    began, cpu = time.time(), time.process_time()
    compiled = jax.jit(function).lower(*arguments).compile()
    wall, cpu = time.time() - began, time.process_time() - cpu
    text, memory = compiled.as_text(), compiled.memory_analysis()
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
        (save / f"{title.split(',')[0].replace(' ', '_')}.hlo").write_text(text)
    chip = cost.CHIPS[topology.split(":")[0]]
    parts = cost.items(hlo.parse(text))
    total = cost.total(parts, chip)
    if dearest:
        print(dearest_table(parts, chip, dearest))
    return Row(
        program=title,
        topology=topology,
        flops=total.flops,
        hbm=total.hbm,
        temporaries=float(memory.temp_size_in_bytes),
        arguments=float(memory.argument_size_in_bytes),
        collectives=_named(total.collectives),
        roofline_ms=1e3 * total.roofline,
        operations_ms=1e3 * total.operations,
        mxu_flops=total.mxu_flops,
        hbm_tiled=total.hbm_tiled,
        compile_s=wall,
        compile_cpu_s=cpu,
    )


def _named(collectives: dict[str, float]) -> str:
    return ", ".join(f"{kind} {size:.2g} B" for kind, size in collectives.items()) or "none"


def dearest_table(parts: list[cost.Item], chip: cost.Chip, count: int) -> str:
    """The instructions that take longest, one line each."""
    ranked = sorted(parts, key=lambda p: -p.count * cost.seconds(p, chip))[:count]
    lines = [f"{'ms':>9} {'runs':>5} {'GFLOP':>9} {'HBM MB':>9}  operation"]
    for part in ranked:
        n = part.count
        numbers = 1e3 * n * cost.seconds(part, chip), n, n * part.flops / 1e9, n * part.hbm / 1e6
        form = "{:9.3f} {:5.0f} {:9.1f} {:9.1f}".format(*numbers)
        lines.append(f"{form}  {part.kind} {part.name} {part.origin}")
    return "\n".join(lines)


COLUMNS = {
    "program": ("program", "{}"),
    "flops": ("FLOPs", "{:.3g}"),
    "mxu_flops": ("in 128s", "{:.3g}"),
    "hbm": ("HBM bytes", "{:.3g}"),
    "hbm_tiled": ("with layout", "{:.3g}"),
    "temporaries": ("temp GB", "{:.2f}"),
    "arguments": ("args GB", "{:.2f}"),
    "collectives": ("collectives", "{}"),
    "roofline_ms": ("roofline ms", "{:.4g}"),
    "operations_ms": ("operations ms", "{:.4g}"),
    "compile_s": ("compile s", "{:.0f}"),
    "compile_cpu_s": ("(CPU s)", "{:.0f}"),
    "note": ("", "{}"),
}


def table(rows: list[Row]) -> str:
    """The rows as aligned text."""
    cells = [[title for title, _ in COLUMNS.values()]]
    for row in rows:
        values = {**dataclasses.asdict(row)}
        for key in ("temporaries", "arguments"):
            values[key] = None if values[key] is None else values[key] / 1e9
        cells.append(
            [
                "-" if values[k] is None else form.format(values[k])
                for k, (_, form) in COLUMNS.items()
            ]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def verdicts(kind: str, row: Row) -> list[str]:
    """One line per goal: what was asked, what the program does, met or not."""
    lines = []
    for key, goal in GOALS[kind].items():
        value = getattr(row, key)
        met = value == goal if isinstance(goal, str) else value <= goal
        shown = value if isinstance(value, str) else f"{value:.4g}"
        lines.append(f"{kind} {key}: {shown}, goal {goal}: {'met' if met else 'NOT met'}")
    return lines


def _arguments(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="diffedit bench tpu", description=__doc__)
    parser.add_argument("--topology", default="v5e:2x4", help="chips to compile for")
    parser.add_argument("--what", default="unet,loop", help="any of layer,block,unet,loop")
    parser.add_argument("--batch", type=int, default=16, help="latents per chip of one forward")
    parser.add_argument("--images", type=int, default=4, help="pictures per chip of the loop")
    parser.add_argument("--steps", type=int, default=50, help="steps of the loop")
    parser.add_argument("--tiny", action="store_true", help="a tiny network, under a minute")
    parser.add_argument("--top", type=int, default=0, help="list the N dearest operations")
    parser.add_argument("--save", type=Path, help="folder for the programs' text")
    parser.add_argument("--json", type=Path, help="file for the rows")
    return parser.parse_args(args)


def main(args: list[str]) -> int:
    """Compiles, prints the table with the peers' figures beside ours; 2 on a user's mistake."""
    options = _arguments(args)
    try:
        results = measure(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    rows = []
    for kind, row in results.items():
        rows += [row] + ([] if options.tiny else PEERS[kind])
    print(f"per chip of {options.topology}, bfloat16; compiled, not run\n{table(rows)}")
    if not options.tiny:
        print("\n".join(line for kind, row in results.items() for line in verdicts(kind, row)))
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(r) for r in rows], indent=1))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Row]:
    """{"unet" or "loop": row} as asked for."""
    kinds = options.what.split(",")
    unknown = set(kinds) - set(PEERS)
    if unknown:
        raise UserError(f"--what knows {', '.join(PEERS)}, not {', '.join(sorted(unknown))}")
    if options.topology.split(":")[0] not in cost.CHIPS:
        raise UserError(f"--topology knows the chips {', '.join(cost.CHIPS)}")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # these programs run nowhere
    shapes = aot.Shapes(aot.mesh_of(options.topology))
    nets = aot.tiny() if options.tiny else aot.stable_diffusion()
    name = "tiny" if options.tiny else "SD 1.5"
    programs = {
        "layer": (f"SD 1.5 self attention of level 0, batch {options.batch}",
                  lambda: aot.attention_layer(shapes, options.batch)),
        "block": (f"SD 1.5 resnet and transformer of level 0, batch {options.batch}",
                  lambda: aot.first_block(shapes, options.batch)),
        "unet": (f"{name} UNet, batch {options.batch}",
                 lambda: aot.unet_forward(nets, shapes, options.batch)),
        "loop": (f"{name} loop, {options.steps} DDIM steps, {options.images} images",
                 lambda: aot.guided_loop(nets, shapes, options.images, options.steps)),
    }  # fmt: skip
    found = {}
    for kind in kinds:
        title, program = programs[kind]
        print(f"compiling {title} for {options.topology} ...", file=sys.stderr, flush=True)
        row = compiled_row(title, options.topology, program(), options.top, options.save)
        found[kind] = row
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
