"""A training run in a process of its own: `python -m tests.chaos.driver ORDER.json`.

The order holds: folder, settings, network, and what shall go wrong: `pause` seconds per step, `bad`
steps whose batch is not finite, `fails`, the rank and the step at which it raises, `scattered`, a
mesh in which no two devices of a process are neighbours, as on a pod. Every batch that
is asked for leaves a line in `progress`; at the end `result` gets the step and the state's digest.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np


def main(order: str) -> int:
    from diffedit_jax.errors import NotFiniteError, UserError

    told = json.loads(Path(order).read_text())
    try:
        return run(told)
    except (UserError, NotFiniteError) as error:
        print(f"diffedit: {error}", file=sys.stderr)
        return 2


def run(told: dict) -> int:
    from diffedit_jax.training import digests, loop, ranks
    from diffedit_jax.training.sharding import make_mesh, share

    ranks.join()
    import jax

    counts = counted(jax) if told.get("count") else {}

    from tests.chaos import small

    task, make = small.setup(told)
    config = small.settings(**told["settings"])
    mesh = make_mesh(config.mesh, scattered(jax.devices()) if told.get("scattered") else None)
    data = Watched(small.data(make, share(mesh)), told, jax.process_index())
    state = loop.fit(task, data, config, told["folder"], mesh=mesh, quiet=True)
    result = {
        "step": int(state.step),
        "updates": int(state.updates),
        "skipped": int(state.skipped),
        "digest": digests.of_tree(state),
        "data": data.state(),
    }
    if jax.process_index() == 0:
        Path(told["result"]).write_text(json.dumps(result))
        Path(told["compiled"]).write_text(json.dumps(counts))
    return 0


def scattered(devices) -> list:
    """The devices of two processes, by turns."""
    return [
        device for pair in zip(*np.split(np.asarray(devices), 2), strict=True) for device in pair
    ]


def counted(jax) -> dict:
    """How often jax looks for a compiled program, and does not find it."""
    counts = {"hits": 0, "misses": 0}

    def hear(event, **_):
        _, _, name = event.rpartition("/cache_")
        if event.startswith("/jax/compilation_cache/") and name in counts:
            counts[name] += 1

    jax.monitoring.register_event_listener(hear)
    return counts


class Watched:
    """Data that tells how far it is, takes its time, and is not finite where it is told so."""

    def __init__(self, inner, told, index):
        self.inner, self.told, self.index = inner, told, index
        self.progress = Path(f"{told['progress']}.{index}")

    def next(self):
        step = self.inner.state()["step"]
        with self.progress.open("a") as handle:
            handle.write(f"{step} {os.getpid()}\n")
        time.sleep(self.told.get("pause", 0))
        if self.told.get("fails") == [self.index, step]:
            raise RuntimeError("this rank was told to fail")
        batch = self.inner.next()
        if step in self.told.get("bad", ()):
            batch = {k: np.full_like(v, np.nan) if v.dtype == np.float32 else v
                     for k, v in batch.items()}  # fmt: skip
        return batch

    def state(self):
        return self.inner.state()

    def restore(self, state):
        self.inner.restore(state)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
