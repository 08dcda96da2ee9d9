"""Trains a farm of eight LoRAs over all devices: `python -m tests.training.farm_script FOLDER`."""

import pathlib
import sys

import numpy as np
from flax.traverse_util import flatten_dict

from diffedit_jax.training import farm, products, ranks
from diffedit_jax.training.data import Stepped
from diffedit_jax.training.sharding import make_mesh
from diffedit_jax.training.tasks.shared import learned
from tests.chaos import small

COUNT = 8


def config():
    return small.settings(steps=4, save_every=2, rate=1e-2)


def data(number):
    """Batches of one concept; concept 3 has one that is not finite."""

    def make(step):
        found = small.unet_batch(1000 * number + step)
        sick = np.float32(np.nan if (number, step) == (3, 1) else 1)
        return {**found, "latent": found["latent"] * sick}

    return Stepped(make)


def main(folder):
    def write(found):
        np.savez(folder / "learned.npz", **flatten_dict(found, sep="/"))

    def watch(step, states, metrics):
        assert metrics["loss"].shape == (COUNT,)
        products.produce(write, learned(states))

    tasks, mesh = [small.toy_task("lora")] * COUNT, make_mesh("data=4,fsdp=2")
    farm.train_farm(tasks, [data(i) for i in range(COUNT)], config(), folder, mesh=mesh,
                    watch=watch, quiet=True)  # fmt: skip


if __name__ == "__main__":
    ranks.join()
    main(pathlib.Path(sys.argv[1]))
