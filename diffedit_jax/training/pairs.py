"""Pairs of pictures, before and after an instruction: rendered, or from a folder."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.files import read_json
from ..errors import UserError
from ..scenes import Edit, instruction, sample_edit
from ..scenes.edits import KINDS
from .kept import stamp
from .pictures import encode_all, read_square, readable

SHARES = (0.3, 0.12, 0.14, 0.1, 0.16, 0.09, 0.09)  # of each of KINDS
_HELD_OUT = 10  # one in so many swaps of objects is never trained


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Encoded pairs.

    Attributes:
      latents: [n, 2, h, w, c] modes of the pictures to be edited and of the edited ones, not
        scaled.
      scale: what the UNet takes the second multiplied by; the first it takes as it is.
      orders: the n instructions.
      share: [n] how often each is drawn, sum 1.
      flip: chance that both pictures of a pair are mirrored.
      mirrored: as latents, of the mirrored pictures; None where flip is 0.
    """

    latents: np.ndarray
    scale: float
    orders: tuple[str, ...]
    share: np.ndarray
    flip: float = 0.0
    mirrored: np.ndarray | None = None

    def batches(self, tokenize: Callable, batch: int, seed: int) -> Callable[[int], dict]:
        """step -> {"latent", "source", "ids"}, a function of (seed, step) alone."""
        ids = tokenize(list(self.orders))

        def make(step: int) -> dict[str, np.ndarray]:
            rng = np.random.default_rng((seed, step, 3))
            chosen = np.sort(rng.choice(len(ids), batch, p=self.share))
            both = self.latents[chosen]
            if self.flip:
                turned = (rng.random(batch) < self.flip)[:, None, None, None, None]
                both = np.where(turned, self.mirrored[chosen], both)
            both = np.asarray(both, np.float32)
            latent = both[:, 1] * np.float32(self.scale)
            return {"latent": latent, "source": both[:, 0], "ids": ids[chosen]}

        return make


def never_trained(edit: Edit) -> bool:
    """Whether this swap of two objects is kept out of training, for a test of what was learned.

    One in ten pairs of different objects, by a checksum of their names.
    """
    if edit.kind != "object":
        return False
    names = "-".join(e.things[0].name for e in (edit.source, edit.target))
    return zlib.crc32(names.encode()) % _HELD_OUT == 0


def rendered(count: int, seed: int) -> list[Edit]:
    """`count` edits of training scenes with exact results, never a held-out swap."""
    rng = np.random.default_rng((104_729, seed))
    found = []
    while len(found) < count:
        edit = sample_edit(rng, str(rng.choice(KINDS, p=SHARES)))
        if not never_trained(edit):
            found.append(edit)
    return found


def rendered_pairs(model: Any, count: int, seed: int, keep: Path, flip: float = 0.0) -> Pairs:
    """Encoded pairs of `rendered` edits; latents are kept in `keep` for a resume."""
    edits = rendered(count, seed)

    def picture(i):
        return edits[i // 2].target_image if i % 2 else edits[i // 2].source_image

    orders, about = [instruction(e) for e in edits], {"pictures": "rendered", "seed": seed}
    return _encoded(model, picture, orders, np.ones(count), keep, about, flip)


def folder_pairs(
    model: Any, folder: Path, keep: Path, flip: float = 0.0, *, skip_broken: bool = False
) -> Pairs:
    """Encoded pairs of a folder of instruct-pix2pix' layout; each prompt counts the same.

    seeds.json [[name, [seed, ...]], ...] if it is there; name/prompt.json {"edit"}, and
    name/{seed}_0.jpg and _1.jpg, before and after (.png too). With `skip_broken`, pairs of which a
    picture cannot be read are never drawn.
    Raises: UserError that names what is missing or unreadable.
    Source: timothybrooks/instruct-pix2pix edit_dataset.py.
    """
    flat, orders, share = [], [], []
    for order, files in orders_of(folder):
        flat += [file for pair in files for file in pair]
        orders += [order] * len(files)
        share += [1 / len(files)] * len(files)
    about = {"pictures": stamp(flat), "size": model.size}

    def picture(i):
        return readable(flat[i], read_square, model.size, skip_broken)

    found = _encoded(model, picture, orders, np.asarray(share), keep, about, flip)
    return _good(found, folder, skip_broken)


def orders_of(folder: Path) -> list[tuple[str, list[tuple[Path, Path]]]]:
    """(instruction, its pairs of files before and after) of every prompt of a folder, in order.

    Raises: UserError that names what is missing, and for a folder without pairs.
    """
    found = []
    for name, seeds in listed(folder):
        said = read_json(folder / name / "prompt.json").get("edit")
        if not isinstance(said, str):
            raise UserError(f'{folder / name / "prompt.json"} has no text "edit"')
        files = [tuple(side_file(folder / name, seed, side) for side in (0, 1)) for seed in seeds]
        found.append((said, files))
    if not found:
        raise UserError(f"{folder} holds no pairs; see the layout in docs/personalisation.md")
    return found


def _good(pairs: Pairs, folder: Path, skip_broken: bool) -> Pairs:
    """Pairs of which a picture was left out (its mode is NaN) are never drawn."""
    good = np.isfinite(pairs.latents[..., 0, 0, 0]).all(1)
    if not skip_broken and not good.all():
        raise UserError(f"{(~good).sum()} pairs of {folder} have a picture that cannot be read "
                        "(--set skip_broken=True leaves them out)")  # fmt: skip
    if not good.any():
        raise UserError(f"{folder} holds no pair that can be read")
    share = pairs.share * good
    return dataclasses.replace(pairs, share=share / share.sum())


def listed(folder: Path) -> list[tuple[str, list[str]]]:
    """(name, seeds) of every prompt of a folder, in order.

    Raises: UserError for a seeds.json of another form.
    """
    if (folder / "seeds.json").is_file():
        return _of_list(folder / "seeds.json")
    found = []
    for place in sorted(path.parent for path in folder.glob("*/prompt.json")):
        names = {path.stem for path in place.iterdir()}
        seeds = sorted(n.removesuffix("_0") for n in names if n.endswith("_0"))
        found.append((place.name, [s for s in seeds if f"{s}_1" in names]))
    return [(name, seeds) for name, seeds in found if seeds]


def _of_list(path: Path) -> list[tuple[str, list[str]]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is no JSON") from None
    good = isinstance(found, list) and all(
        isinstance(row, list) and len(row) == 2 and isinstance(row[1], list) for row in found
    )
    if not good:
        raise UserError(f'{path} must be like [["0000000", ["17", "42"]], ...]')
    return [(str(name), [str(seed) for seed in seeds]) for name, seeds in found if seeds]


def side_file(place: Path, seed: str, side: int) -> Path:
    """The file of one side of a pair. Raises UserError if there is none."""
    for kind in (".jpg", ".png", ".jpeg", ".webp"):
        if (path := place / f"{seed}_{side}{kind}").is_file():
            return path
    raise UserError(f"{place / f'{seed}_{side}.jpg'} is missing")


def _encoded(model, picture, orders, share, keep: Path, about: dict, flip: float) -> Pairs:
    """Both sides of all pairs, picture 2 k + side being one side of pair k; then all mirrored."""
    count, times = 2 * len(orders), 2 if flip else 1

    def either(i):
        found = picture(i % count)
        return found if found is None or i < count else found[:, ::-1]

    latents = encode_all(model, either, times * count, keep, {**about, "mirrored": bool(flip)})
    both = latents.reshape(times, len(orders), 2, *latents.shape[1:])
    mirrored = both[1] if flip else None
    more = (float(model.scaling_factor), tuple(orders), share / share.sum(), flip, mirrored)
    return Pairs(both[0], *more)
