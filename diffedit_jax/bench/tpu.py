"""`diffedit bench tpu`: compiles for TPUs that are not there, and reads the cost off the program.

`--what unet,loop` compiles sampling, `--train NAME` the step of a training.

No number here was measured on a TPU. Rooflines and sums of operations are lower bounds on time:
they know nothing of the vector unit or of how well short contractions fill the matrix unit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from ..errors import UserError
from . import aot, aot_train, cost, hlo


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
    occupied: float | None = None
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
    "layer_grad": [
        Row("diffusers-Flax, all scores", "v5e:2x4", None, 4.41e10, 8.98e9, None, "none",
            None, None),
        Row("diffusers-Flax, memory-efficient", "v5e:2x4", None, 3.84e10, 0.68e9, None, "none",
            None, None),
        Row("MaxDiffusion, flash", "v5e:2x4", None, 5.24e9, 1.43e9, None, "none", None, None,
            note="HBM a lower bound, as ours"),
    ],
    "block": [],
    "unet": [
        Row("MaxDiffusion UNet, batch 16", "v5e:2x4", 1.63e13, 2.91e10, 0.89e9, 1.73e9,
            "none", 82.9, 97.8, note="HBM a lower bound, as ours"),
    ],
    "train": [
        Row("diffusers-Flax train step, batch 8", "v5p:2x2x2", 1.87e13, 2.12e11, 21.4e9, 10.35e9,
            "28 all-reduce 3.4e+09 B", 76.6, 96.3, note="UNet whole, no EMA, float32 state"),
    ],
    "loop": [
        Row("diffusers-Flax txt2img, 50 DDIM steps, 4 images", "v5e:2x4", 3.22e14, 1.50e12, 3.38e9,
            2.07e9, "none", 1836.0, 2925.0, note="bound by HBM"),
    ],
}  # fmt: skip
GOALS = {
    "layer": {},
    "layer_grad": {},
    "block": {},
    "train": {},
    "unet": {"flops": 1.45e13, "operations_ms": 85.0},
    "loop": {"hbm": 1.05e12, "collectives": "none"},
}


def compiled_row(title: str, topology: str, program: Any, dearest: int, save: Path | None) -> Row:
    """Compiles (function, arguments) and reads its cost for one chip."""
    function, arguments = program
    began, cpu = time.time(), time.process_time()
    lower = getattr(function, "lower", None) or jax.jit(function).lower  # a step is jitted already
    compiled = lower(*arguments).compile()
    wall, cpu = time.time() - began, time.process_time() - cpu
    text, memory = compiled.as_text(), compiled.memory_analysis()
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^\w.=-]+", "_", f"{title} {topology}")
        (save / f"{name}.hlo").write_text(text)
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
        occupied=float(occupied(memory)),
        compile_s=wall,
        compile_cpu_s=cpu,
    )


def occupied(memory: Any) -> int:
    """Bytes of HBM that a run holds: arguments, results that share none of theirs, temporaries."""
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + results + memory.temp_size_in_bytes


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
    "topology": ("chips", "{}"),
    "flops": ("FLOPs", "{:.3g}"),
    "mxu_flops": ("in 128s", "{:.3g}"),
    "hbm": ("HBM bytes", "{:.3g}"),
    "hbm_tiled": ("with layout", "{:.3g}"),
    "temporaries": ("temp GB", "{:.2f}"),
    "arguments": ("args GB", "{:.2f}"),
    "occupied": ("in all GB", "{:.2f}"),
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
        for key in ("temporaries", "arguments", "occupied"):
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
    if row.occupied is not None:
        room = cost.CHIPS[row.topology.split(":")[0]].memory
        fits = "fits" if row.occupied < room else "does NOT fit"
        lines.append(f"{row.program}: {row.occupied / 1e9:.1f} GB of {room / 1e9:.0f} GB: {fits}")
    return lines


def _arguments(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="diffedit bench tpu", description=__doc__)
    parser.add_argument("--topology", default="v5e:2x4", help="chips to compile for")
    parser.add_argument("--what", help="any of layer,layer_grad,block,unet,loop (unet,loop)")
    parser.add_argument("--train", default="", metavar="NAME", help="steps of these trainings")
    parser.add_argument("--mesh", help="of a training, such as data=-1,fsdp=8")
    parser.add_argument("--remat", action="store_true", help="a training keeps only products")
    parser.add_argument("--encode", action="store_true", help="a training encodes its pictures")
    parser.add_argument("--batch", type=int, help="latents per chip (forward 16, training 8)")
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
    for kind, row in results:
        peers = [] if options.tiny else PEERS[kind]
        rows += [row] + [peer for peer in peers if peer not in rows]
    print(f"per chip, bfloat16; compiled, not run\n{table(rows)}")
    if not options.tiny:
        print("\n".join(line for kind, row in results for line in verdicts(kind, row)))
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(r) for r in rows], indent=1))
    return 0


def measure(options: argparse.Namespace) -> list[tuple[str, Row]]:
    """[(kind, row)] as asked for."""
    asked = list(_asked(options))
    if options.topology.split(":")[0] not in cost.CHIPS:
        raise UserError(f"--topology knows the chips {', '.join(cost.CHIPS)}")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # these programs run nowhere
    nets = aot.tiny() if options.tiny else aot.stable_diffusion()
    found = []
    for kind, name in asked:
        make = _training if kind == "train" else _sampling
        title, program = make(options, name, nets)
        print(f"compiling {title} for {options.topology} ...", file=sys.stderr, flush=True)
        row = compiled_row(title, options.topology, program, options.top, options.save)
        found.append((kind, row))
    return found


def _asked(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """(kind, name) of every program that is asked for; unknown names are refused."""
    trainings = [name for name in options.train.split(",") if name]
    what = options.what or ("" if trainings else "unet,loop")
    for name in filter(None, what.split(",")):
        if name not in SAMPLING:
            raise UserError(f"--what knows {', '.join(SAMPLING)}, not {name}")
        yield name, name
    for name in trainings:
        aot_train.check(name)
        yield "train", name


SAMPLING = ("layer", "layer_grad", "block", "unet", "loop")


def _sampling(options: argparse.Namespace, name: str, nets: Any) -> tuple[str, Any]:
    shapes = aot.Shapes(aot.mesh_of(options.topology))
    model, batch = "tiny" if options.tiny else "SD 1.5", options.batch or 16
    programs = {
        "layer": (f"SD 1.5 self attention of level 0, batch {batch}",
                  lambda: aot.attention_layer(shapes, batch)),
        "layer_grad": (f"SD 1.5 self attention of level 0 with gradients, batch {batch}",
                       lambda: aot.attention_layer(shapes, batch, grad=True)),
        "block": (f"SD 1.5 resnet and transformer of level 0, batch {batch}",
                  lambda: aot.first_block(shapes, batch)),
        "unet": (f"{model} UNet, batch {batch}",
                 lambda: aot.unet_forward(nets, shapes, batch)),
        "loop": (f"{model} loop, {options.steps} DDIM steps, {options.images} images",
                 lambda: aot.guided_loop(nets, shapes, options.images, options.steps)),
    }  # fmt: skip
    title, program = programs[name]
    return title, program()


def _training(options: argparse.Namespace, name: str, nets: Any) -> tuple[str, Any]:
    mesh = options.mesh or aot_train.TRAININGS[name][0]
    model, batch = "tiny" if options.tiny else "SD 1.5", options.batch or 8
    ways = {"remat": options.remat, "encode": options.encode}
    title = ", ".join([f"{model} {name} step, batch {batch}, {mesh}", *filter(ways.get, ways)])
    place = aot_train.mesh_of(options.topology, mesh)
    return title, aot_train.train_step(name, nets, place, batch, **ways)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
