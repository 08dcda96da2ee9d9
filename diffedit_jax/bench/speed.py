"""`diffedit bench speed`: ratios to diffusers on torch, measured in turns on one machine.

unet: one forward pass of Stable Diffusion 1.5's UNet, same weights for everybody.
edit: the whole command with the embedded model, compiled programs on disk, and its parts.
methods: every method, and what diffusers has of it (image-to-image, inpainting, DiffEdit,
InstructPix2Pix, Paint by Example), same model, steps and solver.
train: one step of DreamBooth, the whole UNet, against a torch script's step on the same batch.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .contest import Entry, Times, contest
from .edit_time import edit_time
from .method_entry import entries as method_entries
from .method_entry import evaluations
from .random_model import FOLDER, write_random_model
from .train_entry import entries as train_entries

WHAT = ("unet", "edit", "methods", "train")


def torch_is_here() -> bool:
    """Whether the reference can run at all."""
    return all(importlib.util.find_spec(name) for name in ("torch", "diffusers"))


def unet_entries(options: argparse.Namespace, folder: Path) -> list[Entry]:
    """Ours and theirs in both types, and ours once more for each set of --xla-flags."""
    common = ["--batch", str(options.batch), "--threads", str(options.threads)]
    common += ["--tiny"] if options.tiny else []

    def entry(side: str, kind: str, flags: str = "") -> Entry:
        title = f"{side} {kind}" + (f" {flags}" if flags else "")
        output = folder / f"{side}-{kind}-{zlib.crc32(flags.encode())}.npy"
        given = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
        environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": given}
        words = (side, kind, *common, "--output", str(output))
        return Entry(title, "diffedit_jax.bench.unet_entry", words, environment)

    kinds = options.kinds.split(",")
    if not torch_is_here():
        print("left out: torch (install torch and diffusers to compare)")
    sides = ["torch", "ours"] if torch_is_here() else ["ours"]
    found = [entry(side, kind) for kind in kinds for side in sides]
    return found + [entry("ours", kind, flags) for flags in options.xla_flags for kind in kinds]


def unet(options: argparse.Namespace) -> dict[str, Any]:
    """The contest of UNets, how far their results lie apart, and ours by kind of layer."""
    with tempfile.TemporaryDirectory() as folder:
        entries = unet_entries(options, Path(folder))
        times = contest(entries, options.repeats)
        results = {e.title: np.load(e.words[-1]) for e in entries}
    title = "SD 1.5 UNet" if not options.tiny else "tiny UNet"
    print(f"\n{title}, batch {options.batch}, {options.threads} cores, {options.repeats} turns")
    print(times_table(times))
    first, apart = entries[0].title, {}
    for name, result in list(results.items())[1:]:
        difference = np.abs(result - results[first]).max() / np.abs(results[first]).max()
        apart[name] = float(difference)
        print(f"{name} differs from {first} by {difference:.1e} of its largest value")
    found: dict[str, Any] = {"times": [_plain(t) for t in times], "differences": apart}
    if options.parts:
        ours = {t.title: t.median for t in times}
        found["parts"] = {k: _parts(options, k, ours) for k in options.kinds.split(",")}
    return found


def _plain(times: Times) -> dict[str, Any]:
    return {"title": times.title, "wall": times.wall, "cpu": times.cpu, "facts": times.facts}


def times_table(times: list[Times]) -> str:
    """Median, range and CPU seconds of each entry, and its ratio to the first."""
    width = max(len(t.title) for t in times)
    first = times[0]
    lines = [f"{'':{width}}  median s  range s        CPU s  ratio"]
    for t in times:
        ratio = float(np.median(np.divide(t.wall, first.wall)))
        cpu = float(np.median(t.cpu))
        span = f"{min(t.wall):.3g}-{max(t.wall):.3g}"
        lines.append(f"{t.title:{width}}  {t.median:8.3f}  {span:13}  {cpu:5.2f}  {ratio:5.2f}")
    return "\n".join(lines)


def _parts(options: argparse.Namespace, kind: str, whole: dict[str, float]) -> dict:
    """The account of one type, printed; in a process of its own."""
    words = [sys.executable, "-m", "diffedit_jax.bench.parts", kind]
    words += ["--batch", str(options.batch), "--threads", str(options.threads)]
    words += ["--tiny"] if options.tiny else []
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise UserError(f"bench: the account of layers ended with code {done.returncode}")
    account = json.loads(done.stdout.splitlines()[-1])
    total, sum_ = whole[f"ours {kind}"], sum(part["seconds"] for part in account.values())
    print(f"\nours {kind}, {total:.3f} s; layers timed alone, {sum_:.3f} s in all")
    for name, part in sorted(account.items(), key=lambda pair: -pair[1]["seconds"]):
        share = part["seconds"] / sum_
        print(f"{name:18} {part['calls']:4} calls {part['seconds']:8.3f} s {100 * share:5.1f} %")
    return account


def edit(options: argparse.Namespace) -> dict[str, Any]:
    """The whole command, its median and where the time went."""
    found = edit_time(options.model, options.repeats, options.steps, options.threads)
    print(f"\ndiffedit edit --method sdedit --steps {options.steps}, picture on disk at the end")
    print(f"first run, nothing compiled before: {found['cold']['wall']:.2f} s")
    for name, seconds in found["warm"].items():
        print(f"{name:10} {seconds:6.2f} s")
    return found


def methods(options: argparse.Namespace) -> dict[str, Any]:
    """Every method in turns with what diffusers has of it."""
    with tempfile.TemporaryDirectory() as folder:
        pairs, left_out = method_entries(options, torch_is_here(), Path(folder))
        times = contest([entry for pair in pairs for entry in pair if entry], options.repeats)
    by_title = {t.title: t for t in times}
    rows = []
    for ours, theirs in pairs:
        calls, width = evaluations(ours.title, options.steps)
        other = theirs and by_title[theirs.title]
        rows.append(_method_row(by_title[ours.title], other, calls, width))
    print(f"\nediting methods, {options.model}, {options.steps} steps, {options.threads} cores")
    print(methods_table(rows))
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    return {"methods": rows, "left_out": left_out}


def train(options: argparse.Namespace) -> dict[str, Any]:
    """The contest of training steps: images per second, and how far the losses lie apart."""
    large = options.model == FOLDER
    batch = options.train_batch or (1 if large else 16)
    with tempfile.TemporaryDirectory() as folder:
        if large:
            write_random_model(Path(folder) / FOLDER)
        model = str(Path(folder) / FOLDER) if large else options.model
        entries = train_entries(model, batch, options.threads, torch_is_here())
        times = contest(entries, options.repeats, apart=large)
    print(f"\nDreamBooth step, {options.model}, batch {batch}, {options.threads} cores, "
          f"{options.repeats} turns{', one after the other' * large}")  # fmt: skip
    print(times_table(times))
    print("images per second: " + ", ".join(f"{t.title} {batch / t.median:.3g}" for t in times))
    found: dict[str, Any] = {"times": [_plain(t) for t in times], "batch": batch}
    if len(times) > 1:
        theirs, ours = (np.array(t.facts["losses"]) for t in times)
        found["apart"] = [float(d) for d in np.abs(ours - theirs) / theirs]
        print("losses of the first step and the second differ by {:.1e} and {:.1e}".format(
            *found["apart"]))  # fmt: skip
    else:
        print("left out: torch (install torch and diffusers to compare)")
    return found


def _method_row(ours: Times, theirs: Times | None, calls: int, width: int) -> dict[str, Any]:
    row = {"method": ours.title, "calls": calls, "rows": width, "seconds": ours.median,
           "ms_per_row": 1e3 * ours.median / (calls * width)}  # fmt: skip
    if theirs:
        row["diffusers"] = theirs.median
        row["ratio"] = float(np.median(np.divide(ours.wall, theirs.wall)))
    return row


def methods_table(rows: list[dict[str, Any]]) -> str:
    """Network evaluations, seconds, seconds of diffusers, ratio (ours over theirs) by method."""
    lines = [f"{'':18}  calls  rows  median s  ms per row  diffusers s  ratio"]
    for row in rows:
        line = "{method:18}  {calls:5}  {rows:4}  {seconds:8.3f}  {ms_per_row:10.2f}".format(**row)
        theirs = "  {diffusers:11.3f}  {ratio:5.2f}".format(**row) if "ratio" in row else ""
        lines.append(line + theirs)
    return "\n".join(lines)


def _arguments(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="diffedit bench speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--what", default=",".join(WHAT), help="any of unet,edit,methods,train")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each entry")
    parser.add_argument("--threads", type=int, default=2, help="cores for everybody")
    parser.add_argument("--kinds", default="float32,bfloat16", help="types of the UNets")
    parser.add_argument("--batch", type=int, default=2, help="rows of the UNet")
    parser.add_argument("--tiny", action="store_true", help="a tiny UNet, to try the command")
    parser.add_argument("--no-parts", dest="parts", action="store_false",
                        help="leave out the account by kind of layer")  # fmt: skip
    parser.add_argument("--xla-flags", action="append", default=[], metavar="FLAGS",
                        help="our UNet once more with these flags; may be repeated")  # fmt: skip
    parser.add_argument(
        "--model",
        default="emoji",
        help="of edit, methods, train; sd15: random weights of SD 1.5's shapes",
    )
    parser.add_argument("--train-batch", type=int, default=0, metavar="N",
                        help="pictures of a training step (16; 1 of sd15)")  # fmt: skip
    parser.add_argument("--methods", default="", metavar="A,B", help="only these methods")
    parser.add_argument("--steps", type=int, default=20, help="of edit and methods")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    return parser.parse_args(args)


def main(args: list[str]) -> int:
    """Measures and prints; 2 on a user's mistake."""
    options, runs = _arguments(args), dict(unet=unet, edit=edit, methods=methods, train=train)
    found = {}
    try:
        for name in options.what.split(","):
            if name not in WHAT:
                raise UserError(f"--what knows {', '.join(WHAT)}, not {name!r}")
            found[name] = runs[name](options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
