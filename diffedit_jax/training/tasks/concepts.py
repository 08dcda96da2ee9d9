"""A folder of folders: each holds the few pictures of one concept, and all are learned at once."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ...errors import UserError
from ..data import Stepped
from ..farm import concept
from ..products import produce
from ..task import Task
from . import dreambooth, textual_inversion
from .shared import learned

SETTINGS = "concept.json"
_OWN = ("word", "initial", "kind", "templates", "class_prompts", "flip")


class Concept(NamedTuple):
    """One concept: its name (of its folder), its pictures, and the config with its own settings."""

    name: str
    pictures: Path
    config: Any


class Lessons(NamedTuple):
    """What `train_farm` needs, and what to do with what was learned.

    Attributes:
      tasks, data: one per concept.
      called: what each concept is called in prompts.
      write: (folder, index, what one concept has learned) writes its file into the folder.
    """

    tasks: list[Task]
    data: list[Stepped]
    called: list[str]
    write: Callable[[Path, int, Any], None]


def concepts_of(data: Path | None, config: Any) -> list[Concept]:
    """The concepts of a folder, by name; concept i is trained with the seed config.seed + i.

    A folder's concept.json changes settings for it alone, such as {"initial": "dog"}: word,
    initial, kind, templates, class_prompts, flip, as far as the config has them. Words that are
    not given there are "<name of the folder>".

    Raises: UserError for no folders, or for settings that are unknown or of the wrong type.
    """
    if data is None or not Path(data).is_dir():
        raise UserError(f"there is no folder {data}; name one of folders with pictures with --data")
    folders = sorted(p for p in Path(data).iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise UserError(f"{data} holds no folder; each concept needs one of its own")
    return [_concept(folder, config, config.seed + i) for i, folder in enumerate(folders)]


def _concept(folder, config, seed) -> Concept:
    own = {"seed": seed}
    if "vectors" in config:
        own["word"] = f"<{folder.name}>"
    found = ConfigDict({**config, **own, **_settings(folder / SETTINGS, config)})
    return Concept(folder.name, folder, found)


def _settings(path, config) -> dict:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is no JSON") from None
    known = [name for name in _OWN if name in config]
    if not isinstance(found, dict) or set(found) - set(known):
        raise UserError(f"{path} may set {', '.join(known)} alone")
    for name, value in found.items():
        if isinstance(config[name], str) != isinstance(value, str):
            raise UserError(f"{path}: {name} wants a value like {config[name]!r}")
    return found


def about(concepts: Sequence[Concept]) -> dict[str, Any]:
    """What concepts keep when their run goes on: {"concept": {name: its own settings}}."""
    own = {each.name: {n: each.config[n] for n in _OWN if n in each.config} for each in concepts}
    return {"concept": own}


def lessons(model: Any, concepts: Sequence[Concept], out: Path) -> Lessons:
    """Words of concepts whose config has `vectors`, LoRAs of those whose has `rank`.

    out: gets the class pictures of each concept, where prior preservation asks for them.
    """
    config = concepts[0].config
    if not config.get("cache_latents", True) or config.get("cache_texts"):
        raise UserError("a farm keeps its latents and reads its texts; leave cache_latents=True "
                        "and cache_texts=0")  # fmt: skip
    if "vectors" in config:
        return _words(model, concepts)
    if "rank" in config:
        return _low_ranks(model, concepts, out)
    raise UserError("a farm learns words (configs/textual_inversion.py) or LoRAs "
                    "(configs/dreambooth_lora.py)")  # fmt: skip


def _words(model, concepts) -> Lessons:
    tasks, data = [], []
    for _, pictures, config in concepts:
        own, rows = textual_inversion.with_word(model, config.word, config.vectors)
        task = textual_inversion.inversion_task(own, config, rows)
        tasks.append(task if not tasks else dataclasses.replace(task, params=tasks[0].params))
        data.append(Stepped(textual_inversion.inversion_batches(own, config, pictures, rows)))

    def write(folder, index, found):
        path = folder / f"{concepts[index].name}.safetensors"
        textual_inversion.write_word(path, concepts[index].config.word, found)

    return Lessons(tasks, data, [each.config.word for each in concepts], write)


def _low_ranks(model, concepts, out) -> Lessons:
    tasks = [dreambooth.lora_task(model, each.config) for each in concepts]
    data = [
        Stepped(dreambooth.dreambooth_batches(model, each.config, each.pictures, out / each.name))
        for each in concepts
    ]

    def write(folder, index, found):
        config = concepts[index].config
        path = folder / f"{concepts[index].name}.safetensors"
        dreambooth.write_low_rank(path, dreambooth.lora(config), found, config.layout)

    called = [dreambooth.identifier(model, each.config) for each in concepts]
    return Lessons(tasks, data, called, write)


def write_all(found: Lessons, names: Sequence[str], out: Path) -> Callable:
    """watch(step, states, metrics) for `train_farm`: every concept's file, a line of losses.csv."""

    def write(trained: Any, step: int, losses: np.ndarray):
        for i in range(len(names)):
            found.write(out, i, concept(trained, i))
        fresh = not (out / "losses.csv").exists()
        with (out / "losses.csv").open("a", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            if fresh:
                table.writerow(("step", *names))
            table.writerow((step, *(float(loss) for loss in losses)))

    def watch(step: int, states: Any, metrics: dict[str, np.ndarray]) -> None:
        produce(lambda trained: write(trained, step, metrics["loss"]), learned(states))

    return watch
