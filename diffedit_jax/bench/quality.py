"""`diffedit bench quality`: measure a model of the emoji world, write numbers and a sheet.

diffedit bench quality --model emoji --out docs/quality
"""

import argparse
import json
from importlib.resources import files
from pathlib import Path

from diffedit_jax import api
from diffedit_jax.bench import quality_of_model as measures
from diffedit_jax.bench.judge import load_judge


def embedded_judge():
    """The weights of the judge that ships with the package."""
    return load_judge(
        str(files("diffedit_jax") / "assets" / "emoji" / "judge" / "judge.safetensors")
    )


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


def main(arguments: list[str] | None = None) -> None:
    """The command line of the measurement."""
    parser = argparse.ArgumentParser(prog="diffedit bench quality", description=__doc__)
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


if __name__ == "__main__":
    main()
