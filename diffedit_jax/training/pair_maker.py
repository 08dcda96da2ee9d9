"""Pairs of pictures for instructions, drawn with shared self attention and filtered by CLIP.

Source: Brooks et al. 2023, section 3.1; timothybrooks/instruct-pix2pix
dataset_creation/generate_img_dataset.py and prepare_dataset.py.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.write import whole_file, write_json
from ..errors import UserError
from ..metrics.clip import Clip
from .clip_filter import Scores, scores
from .kept import per_call
from .pair_drawing import draw_pairs

_DONE = "metadata.jsonl"  # written last: a prompt that has it is complete
_BATCH = 8  # pairs of one call, of small pictures
_PREPARED = "instruct_pix2pix_corrected"  # squashed to the tower's size, in [0, 1]


def read_prompts(path: Path) -> list[dict[str, str]]:
    """[{"caption", "edit", "output"}] of a file with one JSON object a line ("input" is a caption).

    Raises: UserError that names the line.
    """
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not in UTF-8; save it as that") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
            said = {"caption": said.get("caption", said.get("input"))} | said
            found.append({name: str(said[name]) for name in ("caption", "edit", "output")})
        except (json.JSONDecodeError, KeyError, AttributeError):
            raise UserError(f"{path} line {number} is no object of caption, edit, output") from None
    return found


def make_pairs(model: Any, clip: Clip, prompts: Path, out: Path, config: Any) -> Iterator[str]:
    """Writes the best pairs of every prompt into out/0000000 ..., and seeds.json at the end.

    A prompt that is complete already is left as it is, so that a cut-off run goes on. Yields one
    line per prompt. Pair k of prompt i depends on (config.seed, i, k) alone.

    config: samples (pairs that are drawn), keep (that stay), steps, guidance and share (ranges that
    a pair's guidance and self attention share p are drawn from), text, direction, image
    (thresholds), seed.
    """
    out.mkdir(parents=True, exist_ok=True)
    said = read_prompts(prompts)
    for i, prompt in enumerate(said):
        place = out / f"{i:07d}"
        if not (place / _DONE).is_file():
            _one_prompt(model, clip, prompt, i, place, config)
        yield f"{place.name}: {len(_rows(place))} of {config.samples} pairs stay"
    kept = {f"{i:07d}": [row["seed"] for row in _rows(out / f"{i:07d}")] for i in range(len(said))}
    with whole_file(out / "seeds.json") as path:
        listed = [[name, [str(s) for s in seeds]] for name, seeds in sorted(kept.items()) if seeds]
        path.write_text(json.dumps(listed))


def _rows(place: Path) -> list[dict]:
    return [json.loads(line) for line in (place / _DONE).read_text().splitlines()]


def _one_prompt(model, clip, prompt, number, place, config) -> None:
    drawn = list(_drawn(model, prompt, number, config))
    before, after = (np.stack([d[side] for d in drawn]) for side in ("before", "after"))
    found = scores(
        clip.pictures(before, _PREPARED), clip.pictures(after, _PREPARED),
        clip.texts([prompt["caption"]]), clip.texts([prompt["output"]]),
    )  # fmt: skip
    limits = dict(text=config.text, direction=config.direction, image=config.image)
    place.mkdir(exist_ok=True)
    write_json(place / "prompt.json", prompt)
    rows = []
    for k in found.best(config.keep, **limits):
        for side, picture in enumerate((before[k], after[k])):
            _write_jpeg(place / f"{drawn[k]['seed']}_{side}.jpg", picture)
        rows.append(_row(drawn[k], found, k))
    with whole_file(place / _DONE) as path:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _row(drawn: dict, found: Scores, k: int) -> dict:
    """A line of metadata.jsonl, in the original's names."""
    numbers = {"clip_sim_0": found.before, "clip_sim_1": found.after,
               "clip_sim_dir": found.direction, "clip_sim_image": found.image}  # fmt: skip
    own = {"seed": drawn["seed"], "p2p_threshold": drawn["share"], "cfg_scale": drawn["guidance"]}
    return own | {name: float(values[k]) for name, values in numbers.items()}


def _drawn(model, prompt, number, config) -> Iterator[dict]:
    """The drawn pairs of one prompt, each with its own seed, guidance and share."""
    rng = np.random.default_rng((config.seed, number))
    own = {
        "seeds": rng.integers(0, 2**31 - 1, config.samples),
        "guidance": rng.uniform(*config.guidance, config.samples),
        "share": rng.uniform(*config.share, config.samples),
    }
    batch = min(_BATCH, max(per_call(model.size) // 4, 1))
    for start in range(0, config.samples, batch):
        part = {name: values[start : start + batch] for name, values in own.items()}
        said = prompt["caption"], prompt["output"]
        drawn = draw_pairs(model, *said, **part, steps=config.steps)
        for k, (before, after) in enumerate(drawn):
            yield {"before": before, "after": after, "seed": int(part["seeds"][k]),
                   "guidance": float(part["guidance"][k]),
                   "share": float(part["share"][k])}  # fmt: skip


def _write_jpeg(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(stream, "JPEG", quality=100, subsampling=0)
    with whole_file(path) as temporary:
        temporary.write_bytes(stream.getvalue())
