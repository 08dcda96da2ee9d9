"""How well a model of the emoji world draws and edits, measured against the bars.

Every prompt comes from seeds that training and the choice of guidance never used. The judge reads
pictures; PSNR compares them with exact ground truth. 95 % intervals: Wilson, bootstrap.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diffedit_jax import api
from diffedit_jax.bench import judge
from diffedit_jax.bench.statistics import mean, psnr, rate
from diffedit_jax.scenes import Edit, Scene, caption, render_batch, sample_edit, sample_scene

SEEDS = {"measure": 20_000, "choose": 30_000, "methods": 40_000}

BARS = {
    "judge": 0.98,
    "object": 0.90,
    "background": 0.97,
    "pattern": 0.97,
    "style": 0.90,
    "held_out_object": 0.85,
    "vae_psnr": 28.0,
    "swap_object": 0.85,
    "change_background": 0.95,
    "inversion_below_vae": 1.0,
}
BATCH = 32


def scenes_for(purpose: str, count: int, **choices) -> list[Scene]:
    """Scenes of seeds kept for one purpose: "measure" or "choose"."""
    rng = np.random.default_rng((SEEDS[purpose], 0))
    return [sample_scene(rng, **choices) for _ in range(count)]


def edits_for(purpose: str, kind: str, count: int) -> list[Edit]:
    """Edits of one kind in the plain style, of seeds kept for one purpose."""
    rng = np.random.default_rng((SEEDS[purpose], 1))
    return [sample_edit(rng, kind, style="none") for _ in range(count)]


def in_batches(function: Callable, *columns: Sequence, batch: int = BATCH) -> np.ndarray:
    """Calls function(start, *parts) on parts of `batch` rows and joins the pictures.

    The last part is filled up with its own first rows, so that one program serves all.
    """
    count, out = len(columns[0]), []
    for start in range(0, count, batch):
        parts = [list(column[start : start + batch]) for column in columns]
        short = batch - len(parts[0])
        parts = [(part * (1 + batch // len(part)))[:batch] for part in parts]
        out.append(np.asarray(function(start, *parts))[: batch - short])
    return np.concatenate(out)


def draw(model: Any, scenes: Sequence[Scene], purpose: str, **options) -> np.ndarray:
    """One picture per scene from its canonical caption, uint8 [n, 64, 64, 3]."""

    def part(start, captions):
        seeds = [SEEDS[purpose] + start + k for k in range(len(captions))]
        return api.generate(model, captions, seed=seeds, **options).image

    return in_batches(part, [caption(scene) for scene in scenes])


def apply_edits(
    model: Any, edits: Sequence[Edit], method: str, purpose: str, **options
) -> np.ndarray:
    """Every edit by one method, from its source picture and captions, uint8 [n, 64, 64, 3]."""
    from diffedit_jax.methods import methods

    sourced = "source" in methods()[method].parameters

    def part(start, pictures, sources, targets):
        seeds = [SEEDS[purpose] + start + k for k in range(len(pictures))]
        more = {"source": sources} if sourced else {}
        more = {"seed": seeds, **more} if "seed" in methods()[method].parameters else more
        pictures = np.stack(pictures)
        return api.edit(model, pictures, method, prompt=targets, **more, **options).image

    return in_batches(
        part,
        [edit.source_image for edit in edits],
        [edit.source_caption for edit in edits],
        [edit.target_caption for edit in edits],
    )


def reconstruct(model: Any, pictures: np.ndarray) -> np.ndarray:
    """Through the autoencoder and back, uint8."""
    from diffedit_jax.methods.run import encode
    from diffedit_jax.methods.run import pictures as decode

    def part(_, rows):
        return decode(model, encode(model, np.stack(rows).astype(np.float32) / 127.5 - 1))

    return in_batches(part, list(pictures))


def attributes(params: Any, pictures: np.ndarray, scenes: list[Scene]) -> dict[str, np.ndarray]:
    """What is right about each picture, bool [n]; "object" and "colour" count both of a pair."""
    right = judge.right(params, pictures, scenes)
    return {
        "object": right["object"] & right["object_2"],
        "colour": right["colour"] & right["colour_2"],
        **{name: right[name] for name in ("background", "pattern", "style")},
    }


def drawing(model: Any, params: Any, count: int, **options) -> dict:
    """Text to image: every attribute, singles and pairs apart, styles among styled prompts."""
    scenes = scenes_for("measure", count)
    right = attributes(params, draw(model, scenes, "measure", **options), scenes)
    found = {name: rate(values) for name, values in right.items()}
    styled = np.asarray([scene.style != "none" for scene in scenes])
    for layout in ("centre", "pair"):
        chosen = np.asarray([scene.layout == layout for scene in scenes])
        found[f"object_{layout}"] = rate(right["object"][chosen])
    coloured = np.asarray([any(t.colour for t in scene.things) for scene in scenes])
    found["colour"] = rate(right["colour"][coloured])
    found["style"] = rate(right["style"][styled])
    found["object_styled"] = rate(right["object"][styled])
    return found


def held_out(model: Any, params: Any, count: int, **options) -> dict:
    """Text to image of object x background pairs that training never saw."""
    scenes = scenes_for("measure", count, held_out=True, layout="centre")
    right = attributes(params, draw(model, scenes, "measure", **options), scenes)
    return {name: rate(right[name]) for name in ("object", "background", "pattern")}


def autoencoder(model: Any, count: int) -> dict:
    """PSNR of encode and decode on unseen scenes, in dB."""
    pictures = render_batch(scenes_for("measure", count, held_out=None))
    return mean(psnr(reconstruct(model, pictures), pictures))


def editing(model: Any, params: Any, kind: str, method: str, count: int, **options) -> dict:
    """One kind of edit by one method: recognised, kept, and PSNR to the truth and outside."""
    edits = edits_for("measure", kind, count)
    pictures = apply_edits(model, edits, method, "measure", **options)
    right = attributes(params, pictures, [edit.target for edit in edits])
    wanted = np.stack([edit.target_image for edit in edits])
    outside = np.stack([~edit.mask for edit in edits])
    found = {name: rate(right[name]) for name in ("object", "background", "pattern")}
    found["psnr_to_truth"] = mean(psnr(pictures, wanted))
    found["psnr_outside"] = mean(psnr(pictures, wanted, outside))
    found["psnr_outside_vae"] = mean(psnr(reconstruct(model, wanted), wanted, outside))
    return found


def inversion(model: Any, count: int, **options) -> dict:
    """DDIM inversion with the picture's own caption: PSNR, and how far below the autoencoder."""
    edits = edits_for("measure", "object", count)
    sources = np.stack([edit.source_image for edit in edits])

    def part(_, pictures, captions):
        return api.edit(
            model, np.stack(pictures), "ddim_inversion", source=captions, prompt=captions,
            **options,
        ).image  # fmt: skip

    there = in_batches(part, list(sources), [edit.source_caption for edit in edits])
    through, plain = psnr(there, sources), psnr(reconstruct(model, sources), sources)
    return {"psnr": mean(through), "vae_psnr": mean(plain), "below_vae": mean(plain - through)}


def choose_guidance(
    model: Any, params: Any, scales: Sequence[float], count: int, **options
) -> dict[float, float]:
    """Share of fully right pictures per guidance scale, on seeds kept for choosing."""
    scenes, shares = scenes_for("choose", count), {}
    for scale in scales:
        pictures = draw(model, scenes, "choose", guidance=scale, **options)
        right = attributes(params, pictures, scenes)
        shares[scale] = float(np.all(list(right.values()), axis=0).mean())
    return shares


def judge_accuracy(params: Any, count: int) -> dict:
    """The judge on clean renders of the training world: every attribute."""
    scenes = scenes_for("measure", count, held_out=None)
    right = attributes(params, render_batch(scenes), scenes)
    return {name: rate(values) for name, values in right.items()}


def report(model: Any, params: Any, *, count: int = 256, edits: int = 64, **options) -> dict:
    """Everything that has a bar, and more. options (guidance, steps) go to text to image only.

    Edits run with their methods' own defaults; inversion is measured without guidance, as it is
    meant to reconstruct.
    """
    return {
        "options": options,
        "judge": judge_accuracy(params, max(count, 512)),
        "vae_psnr": autoencoder(model, count),
        "text_to_image": drawing(model, params, count, **options),
        "held_out_pairs": held_out(model, params, max(count // 2, 64), **options),
        "sdedit_object": editing(model, params, "object", "sdedit", edits),
        "sdedit_background": editing(model, params, "background", "sdedit", edits),
        "inversion": inversion(model, edits, guidance=1.0),
    }


def against_bars(found: dict) -> dict[str, dict]:
    """Each bar with what was measured and whether it is met: {"bar", "value", "met"}."""
    drawn, inverted = found["text_to_image"], found["inversion"]["below_vae"]
    values = {
        "judge": min(found["judge"].values(), key=lambda each: each["value"]),
        **{name: drawn[name] for name in ("object", "background", "pattern", "style")},
        "held_out_object": found["held_out_pairs"]["object"],
        "vae_psnr": found["vae_psnr"],
        "swap_object": found["sdedit_object"]["object"],
        "change_background": found["sdedit_background"]["background"],
        "inversion_below_vae": inverted,
    }
    rows = {}
    for name, bar in BARS.items():
        value = values[name]["value"]
        met = value <= bar if name == "inversion_below_vae" else value >= bar
        rows[name] = {"bar": bar, **values[name], "met": bool(met)}
    return rows


def sheet(model: Any, count: int = 48, columns: int = 12, **options) -> np.ndarray:
    """A contact sheet of drawn pictures, uint8 [rows * 64, columns * 64, 3]."""
    pictures = draw(model, scenes_for("measure", count), "measure", **options)
    rows = [np.concatenate(list(pictures[k : k + columns]), 1) for k in range(0, count, columns)]
    return np.concatenate(rows, 0)
