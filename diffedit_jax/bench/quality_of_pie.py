"""`diffedit bench quality --what pie`: one method on a folder in PIE-Bench's format.

Edits every picture (or takes the results of --edited), writes OUT/results/..., the metrics of every
picture to OUT/scores.csv and their means to OUT/pie.json. A run that was stopped goes on where it
was; with --shard 0/2 and --shard 1/2 two processes share the work (scores.0of2.csv, ...).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffedit_jax import api, images
from diffedit_jax.bench import shards
from diffedit_jax.bench.pie_arguments import arguments, lacks_a_word
from diffedit_jax.bench.pie_bench import PICTURES, SIDE, TYPES, Task, read_tasks, result_of
from diffedit_jax.bench.pie_scores import Scores, factor
from diffedit_jax.bench.pie_weights import NETS, scores
from diffedit_jax.bench.quality_of_methods import tell
from diffedit_jax.bench.statistics import mean
from diffedit_jax.errors import NotFiniteError, UserError


@dataclass(frozen=True)
class Maker:
    """Edits pictures of the benchmark by one method, and keeps what it made.

    Attributes:
      model: a bundle.
      method: registry name.
      options: parameters beside those that the benchmark gives.
      folder: results, at the pictures' own places, as PNG.
    """

    model: Any
    method: str
    folder: Path
    options: dict = field(default_factory=dict)

    def __call__(self, sources: list[np.ndarray], tasks: list[Task]) -> list[np.ndarray | str]:
        """A picture per task, or the reason why there is none."""
        places = [(self.folder / task.path).with_suffix(".png") for task in tasks]
        todo = [k for k, place in enumerate(places) if not place.is_file()]
        made = self._edited([sources[k] for k in todo], [tasks[k] for k in todo]) if todo else []
        for k, result in zip(todo, made, strict=True):
            if not isinstance(result, str):
                places[k].parent.mkdir(parents=True, exist_ok=True)
                images.write(places[k], result)
        fresh = dict(zip(todo, made, strict=True))
        return [fresh[k] if k in fresh else images.read(p).pixels for k, p in enumerate(places)]

    def _edited(self, sources, tasks) -> list:
        """All at once; one by one where somebody refuses, so that the others are not lost."""
        told = arguments(self.method, tasks)
        try:
            done = api.edit(self.model, sources, self.method, original_size=True,
                            **{**told, **self.options})  # fmt: skip
            return done.images
        except (UserError, NotFiniteError) as error:
            if len(tasks) == 1:
                return [str(error)]
        pairs = zip(sources, tasks, strict=True)
        return [self._edited([source], [task])[0] for source, task in pairs]


def taken(folder: Path):
    """Results that somebody else made: (sources, tasks) -> pictures, at the pictures' places."""

    def take(_, tasks: list[Task]) -> list[np.ndarray | str]:
        found = []
        for task in tasks:
            place = folder / task.path
            place = place if place.is_file() else place.with_suffix(".png")
            found.append(result_of(images.read(place).pixels) if place.is_file()
                         else f"{place} does not exist")  # fmt: skip
        return found

    return take


class Rows:
    """The table of one shard: one line per picture, added when it is done.

    A line that a killed run left unfinished is dropped; a file of other columns is refused.
    """

    def __init__(self, path: Path, columns: Sequence[str]):
        self._path, self._head = path, ["file_id", *columns, "refused"]
        kept = [row for row in _complete_rows(path) if len(row) == len(self._head)]
        if kept and kept[0] != self._head:
            raise UserError(f"{path} has other columns; delete it or choose another --out")
        self.done = {row[0] for row in kept[1:]}
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(kept or [self._head])

    def add(self, key: str, values: dict[str, float], refused: str = "") -> None:
        """One more picture; on disk before the call returns."""
        cells = [f"{values[c]:.6g}" if c in values else "nan" for c in self._head[1:-1]]
        with open(self._path, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([key, *cells, " ".join(refused.split())])
            file.flush()
            os.fsync(file.fileno())
        self.done.add(key)


def _complete_rows(path: Path) -> list[list[str]]:
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    return list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))


def score_all(data: Path, tasks: Sequence[Task], make, judge: Scores, rows: Rows, batch: int,
              say=tell) -> None:  # fmt: skip
    """Edits and scores what is not in the table yet."""
    todo = [task for task in tasks if task.key not in rows.done]
    for start in range(0, len(todo), batch):
        part = todo[start : start + batch]
        sources = [_source(data, task) for task in part]
        for task, source, result in zip(part, sources, make(sources, part), strict=True):
            if isinstance(result, str):
                rows.add(task.key, {}, result)
            else:
                rows.add(task.key, judge(task, source, result))
        say(f"{start + len(part)} of {len(todo)} pictures")


def _source(data: Path, task: Task) -> np.ndarray:
    pixels = images.read(data / PICTURES / task.path).pixels
    if pixels.shape[:2] != (SIDE, SIDE):
        raise UserError(f"{task.path} has {pixels.shape[1]}x{pixels.shape[0]} pixels, not {SIDE}")
    return pixels


def means(folder: Path, tasks: Sequence[Task], absent: dict) -> dict:
    """Means over all shards' tables, scaled as the published table is: {"all", by type, ...}."""
    kinds = {task.key: task.kind for task in tasks}
    table = {row["file_id"]: row for row in _all_rows(folder) if row["file_id"] in kinds}
    refused = {key: row["refused"] for key, row in table.items() if row["refused"]}
    every = _means(list(table.values()))
    found = {"factors": {name: factor(name) for name in every}, "done": len(table),
             "of": len(tasks), "absent": absent, "refused": refused,
             "lacks_a_word": [task.key for task in tasks if lacks_a_word(task)],
             "all": every}  # fmt: skip
    for kind, name in TYPES.items():
        rows = [row for key, row in table.items() if kinds[key] == kind]
        if rows:
            found[f"{kind} {name}"] = _means(rows)
    return found


def _all_rows(folder: Path) -> Iterator[dict]:
    for path in sorted(folder.glob("scores*.csv")):
        with open(path, newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)


def _means(rows: list[dict]) -> dict:
    """A mean per column over the pictures that have a finite value."""
    found = {}
    for name in [c for c in rows[0] if c not in ("file_id", "refused")] if rows else []:
        values = np.asarray([float(row[name]) for row in rows]) * factor(name)
        finite = values[np.isfinite(values)]
        if len(finite):
            found[name] = mean(finite)
    return found


def table(found: dict) -> str:
    """Means with their intervals as lines of text."""
    refused = found["refused"]
    lacking = len(refused.keys() & set(found["lacks_a_word"]))
    lines = [f"{found['done']} of {found['of']} pictures, {len(refused)} refused and left out, "
             f"{lacking} of these with a blended word that its prompt lacks"]  # fmt: skip
    for name, row in found["all"].items():
        span = f"[{row['low']:.3f}, {row['high']:.3f}]"
        lines.append(f"{name:40s} {row['value']:9.3f}  {span:20s}  x {factor(name):g}")
    return "\n".join([*lines, *(f"no {name}: {why}" for name, why in found["absent"].items())])


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="diffedit bench quality --what pie", description=__doc__, formatter_class=form
    )
    parser.add_argument("--data", required=True, help="folder with mapping_file.json")
    parser.add_argument("--out", default="pie")
    parser.add_argument("--method", default="pnp_inversion")
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--edited", help="score the results in this folder; nothing is edited")
    parser.add_argument("--types", default="", help="editing types, 0 to 9: 1,8")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--clip", help="CLIP: a folder or file, or emoji for the embedded one")
    parser.add_argument("--dino", help="file or folder of DINO's ViT-B/8")
    parser.add_argument("--lpips", choices=NETS, help="squeeze is the benchmark's own; alex and "
                        "vgg fill a column of another name")  # fmt: skip
    parser.add_argument("--lpips-trunk", metavar="FILE",
                        help="torchvision's file of that network: squeezenet1_1")  # fmt: skip
    parser.add_argument("--lpips-heads", metavar="FILE",
                        help="the heads of lpips 0.1, weights/v0.1/squeeze.pth")  # fmt: skip
    parser.add_argument("--shard", default="0/1", metavar="K/N", help="part K of N of the pictures")
    return parser


def main(words: list[str]) -> None:
    """Edits, scores and prints."""
    given = _parser().parse_args(words)
    folder, (own, of) = Path(given.out), shards.parse_shard(given.shard)
    tasks = read_tasks(given.data, [kind for kind in given.types.split(",") if kind])
    judge, absent = scores(given.clip, given.dino, given.lpips,
                           trunk=given.lpips_trunk, heads=given.lpips_heads)  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    name = "scores.csv" if of == 1 else f"scores.{own}of{of}.csv"
    rows = Rows(folder / name, judge.columns)
    score_all(Path(given.data), tasks[own::of], _maker(given, folder), judge, rows, given.batch)
    found = means(folder, tasks, absent)
    (folder / "pie.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


def _maker(given: argparse.Namespace, folder: Path):
    if given.edited:
        return taken(Path(given.edited))
    from diffedit_jax.cli.values import parameters_of
    from diffedit_jax.methods import find

    options = parameters_of(find(given.method), given.set)
    return Maker(api.load(given.model), given.method, folder / "results", options)
