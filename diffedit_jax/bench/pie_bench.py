"""PIE-Bench's folder format: which picture, which words, which part may change.

DIR/mapping_file.json, DIR/annotation_images/<image_path>.
Source: cure-lab/PnPInversion 07f97f4, README and evaluation/evaluate.py (mask_decode).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from diffedit_jax.errors import UserError

SIDE = 512  # pixels, height and width of every picture and mask
PICTURES = "annotation_images"
TYPES = {
    "0": "random",
    "1": "change object",
    "2": "add object",
    "3": "delete object",
    "4": "change content",
    "5": "change pose",
    "6": "change colour",
    "7": "change material",
    "8": "change background",
    "9": "change style",
}


@dataclass(frozen=True)
class Task:
    """One edit of the benchmark.

    Attributes:
      key: its name in the mapping file.
      path: of its picture, relative to annotation_images; results lie at the same place.
      source, prompt: the two prompts, without the brackets that mark the change.
      instruction: the same as an order.
      kind: editing type, "0" to "9".
      words: the blended words of the two prompts, "cat dog"; empty where there are none.
      mask: run lengths of the part that may change, see `decode_mask`.
    """

    key: str
    path: str
    source: str
    prompt: str
    instruction: str
    kind: str
    words: str
    mask: tuple[int, ...]

    @property
    def edited(self) -> Bool[np.ndarray, "512 512"]:
        """True where the picture may change."""
        return decode_mask(self.mask)


def decode_mask(runs: Sequence[int], side: int = SIDE) -> Bool[np.ndarray, "side side"]:
    """[start, length, start, length, ...] over the flattened rows -> [side, side] bool.

    Lengths are cut at the end of the picture; the outermost frame of one pixel always counts as
    edited, as the benchmark's code has it.
    """
    if len(runs) % 2:
        raise UserError(f"a mask of {len(runs)} numbers is not made of pairs (start, length)")
    flat = np.zeros(side * side, bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start : start + length] = True
    mask = flat.reshape(side, side)
    mask[[0, -1], :] = True
    mask[:, [0, -1]] = True
    return mask


def encode_mask(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """[h, w] bool -> [start, length, ...]; decode_mask gives it back, up to the frame."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel().astype(np.int8), [0]])))
    starts, ends = edges[::2], edges[1::2]
    return np.stack([starts, ends - starts], axis=1).ravel().tolist()


def read_tasks(folder: str | Path, kinds: Sequence[str] = ()) -> list[Task]:
    """The benchmark's edits in the order of the file, of some editing types only if asked."""
    path = Path(folder) / "mapping_file.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{folder} is no PIE-Bench folder: {path} cannot be read") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(entries, dict):
        raise UserError(f"{path} should map names to edits")
    tasks = [_task(key, entry, path) for key, entry in entries.items()]
    return [task for task in tasks if not kinds or task.kind in kinds]


def _task(key: str, entry: dict, path: Path) -> Task:
    try:
        return Task(
            key=key,
            path=_inside(entry["image_path"]),
            source=_bare(entry["original_prompt"]),
            prompt=_bare(entry["editing_prompt"]),
            instruction=entry["editing_instruction"],
            kind=str(entry["editing_type_id"]),
            words=entry.get("blended_word", "").strip(),
            mask=tuple(int(n) for n in entry["mask"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: the edit {key!r} lacks {error}") from error


def _bare(prompt: str) -> str:
    return prompt.replace("[", "").replace("]", "")


def _inside(path: str) -> str:
    """A path that stays inside the folder: the file comes from elsewhere, and results follow it."""
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise UserError(f"the picture {path!r} lies outside the folder")
    return path


def result_of(pixels: np.ndarray) -> np.ndarray:
    """The edited picture of a result file: its right-most square, as strips end with the edit."""
    height, width = pixels.shape[:2]
    if width < height:
        raise UserError(f"a result of {width}x{height} pixels holds no square picture")
    return pixels[:, width - height :]
