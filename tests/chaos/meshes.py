"""What needs eight devices, in a process of its own: `python -m tests.chaos.meshes FOLDER`.

Writes found.json: digests of runs on several meshes, of states that moved from one mesh to another,
losses after that, and digests of programs lowered from shapes and from arrays.
"""

import csv
import hashlib
import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np

from diffedit_jax.training import digests, loop
from diffedit_jax.training.checkpoint import Checkpoints
from diffedit_jax.training.frozen import place_frozen
from diffedit_jax.training.optimisers import make_optimiser
from diffedit_jax.training.sharding import make_mesh, spread
from diffedit_jax.training.state import create_state, shapes_of_state
from diffedit_jax.training.step import make_step
from diffedit_jax.training.tree import shapes_of
from tests.chaos import small

MESHES = ["data=1", "data=2", "data=2,fsdp=2", "fsdp=4", "data=2,fsdp=2,tensor=2"]


def mesh_of(text):
    return make_mesh(text, jax.devices()[: int(np.prod([int(p[-1]) for p in text.split(",")]))])


def fit(folder, text, told, poison=(), **changes):
    task, make = small.setup(told)
    mesh = mesh_of(text)

    def poisoned(step):
        batch = make(step)
        if step in poison:
            batch = {k: v.copy() for k, v in batch.items()}
            batch["x"][5, 3] = np.inf  # one number of one example: of one device's share
        return batch

    config = small.settings(steps=6, keep_last=9, **changes)
    return loop.fit(task, small.data(poisoned), config, folder, mesh=mesh, quiet=True)


def losses(folder):
    return [float(row["loss"]) for row in csv.DictReader((folder / "log.csv").open())]


def twice(base, text, told):
    """Digests of two runs on one mesh."""
    return [digests.of_tree(fit(base / f"{i}", text, told)) for i in range(2)]


def moved(base, source, text, told):
    """A state saved on one mesh, restored on another: its digest, and the losses that follow."""
    folder = base / text
    shutil.copytree(source / "checkpoints" / "00000003", folder / "checkpoints" / "00000003")
    task, _ = small.setup(told)
    config = small.settings(steps=6)
    shapes = shapes_of_state(task, make_optimiser(config), config, mesh_of(text))
    with Checkpoints(folder / "checkpoints") as runs:
        digest = digests.of_tree(runs.restore(shapes)[0])
    fit(folder, text, told)
    return digest, losses(folder)


def programs(text, told):
    """Digests of the compiled step, from shapes alone and from the arrays of a run."""
    task, make = small.setup(told)
    mesh, config = mesh_of(text), small.settings()
    about = (task, make_optimiser(config), config)
    shapes = shapes_of_state(*about, mesh)
    placed = jax.tree.map(lambda x: x.sharding, shapes)
    real = (create_state(*about, mesh), place_frozen(task, shapes.trained, mesh, "float32"),
            spread(make(0), mesh))  # fmt: skip
    abstract = shapes_of(real[1:])
    made = [make_step(*about, placed=placed).lower(*arguments).compile().as_text()
            for arguments in (real, (shapes, *abstract))]  # fmt: skip
    return [hashlib.sha256(text.encode()).hexdigest() for text in made]


def main(base: Path):
    toy, layer = {"network": "toy"}, {"network": "layer"}
    found = {"twice": {}, "moved": {}}
    for text in MESHES:
        found["twice"][text] = twice(base / "layer" / text, text, layer)
    found["twice"]["toy"] = twice(base / "toy", MESHES[-1], toy)
    source = base / "layer" / MESHES[-1] / "0"
    found["losses"] = losses(source)
    for text in MESHES[:3]:
        found["moved"][text] = moved(base / "moved", source, text, layer)
    found["saved"] = digest_of(source / "checkpoints", layer)
    found["programs"] = programs(MESHES[-1], layer)
    bad = fit(base / "bad", "data=8", layer, poison=(2, 3))
    found["skipped"] = [int(x.data) for x in bad.skipped.addressable_shards]
    copies = [[np.asarray(s.data).tobytes() for s in x.addressable_shards]
              for x in jax.tree.leaves(bad.trained)]  # fmt: skip
    found["same on all devices"] = all(len(set(c)) == 1 for c in copies)
    found["finite"] = bool(np.isfinite(np.asarray(bad.trained["layer"])).all())
    (base / "found.json").write_text(json.dumps(found))


def digest_of(folder, told):
    """Of the third step, restored as plain arrays of one device."""
    task, _ = small.setup(told)
    config = small.settings(steps=6)
    shapes = shapes_of_state(task, make_optimiser(config), config, mesh_of("data=1"))
    only = folder.parent / "only"
    shutil.copytree(folder / "00000003", only / "00000003")
    with Checkpoints(only) as runs:
        return digests.of_tree(runs.restore(shapes)[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
