"""`diffedit bench quality --what methods|model|pie`: how good edits are, in numbers and pictures.

methods (if nothing is said): every editing method on rendered scenes with exact ground truth.
model: a model of the emoji world against its bars.
pie: one method on a folder in PIE-Bench's format, its seven metrics.
Each has its own --help.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

from diffedit_jax import api
from diffedit_jax.bench import quality_of_model as measures
from diffedit_jax.bench.judge import embedded_judge

WHAT = {
    "methods": "diffedit_jax.bench.method_report",
    "model": "diffedit_jax.bench.quality",
    "pie": "diffedit_jax.bench.quality_of_pie",
}


def quality(source="emoji", out: str | Path | None = None, *, scales=(), **options) -> dict:
    """Measure a model against the bars; with `out`, write quality.json and sheet.png there.

    scales: guidance scales to choose from, on seeds kept for choosing; none: the method's default.
    options: count, edits, guidance, steps (see quality_of_model.report).
    Example: `quality("emoji", "docs/quality", scales=(2, 3, 5), steps=25)`.
    """
    model, judge = api.load(source), embedded_judge()
    chosen = {}
    if scales:
        steps = {"steps": options["steps"]} if "steps" in options else {}
        chosen = measures.choose_guidance(model, judge, scales, 64, **steps)
        options["guidance"] = max(chosen, key=chosen.get)
    found = measures.report(model, judge, **options)
    found = {"bars": measures.against_bars(found), "guidance_choice": chosen, **found}
    if out is not None:
        _write(found, model, Path(out))
    return found


def _write(found, model, folder):
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quality.json").write_text(json.dumps(found, indent=1) + "\n")
    Image.fromarray(measures.sheet(model, **found["options"])).save(folder / "sheet.png")


def table(found: dict) -> str:
    """The bars as lines of text: name, measured value with its interval, bar, met or not."""
    lines = [
        f"{name:20s} {row['value']:7.3f}  [{row['low']:.3f}, {row['high']:.3f}]  n {row['n']:4d}  "
        f"bar {row['bar']:6.2f}  {'met' if row['met'] else 'NOT MET'}"
        for name, row in found["bars"].items()
    ]
    return "\n".join(lines)


def measure_model(arguments: list[str]) -> None:
    """`--what model`: the bars of a model of the emoji world."""
    parser = argparse.ArgumentParser(prog="diffedit bench quality --what model")
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--out", default=None)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--edits", type=int, default=64)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--scales", type=float, nargs="*", default=(2.0, 3.0, 5.0))
    given = parser.parse_args(arguments)
    found = quality(
        given.model, given.out, scales=given.scales, count=given.count, edits=given.edits,
        steps=given.steps,
    )  # fmt: skip
    print(table(found))


def main(arguments: list[str] | None = None) -> None:
    """Hands the words over to what is measured."""
    parser = argparse.ArgumentParser(prog="diffedit bench quality", add_help=False)
    parser.add_argument("--what", choices=tuple(WHAT), default="methods")
    given, rest = parser.parse_known_args(arguments)
    module = importlib.import_module(WHAT[given.what])
    (measure_model if given.what == "model" else module.main)(rest)


if __name__ == "__main__":
    main()
