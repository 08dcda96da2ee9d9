"""One program per run: steps, restarts and new processes compile nothing again."""

import json

import jax
import pytest

from diffedit_jax.training import loop

from . import small
from .harness import ended

EVENT = "/jax/core/compile/backend_compile_duration"
compiled = []  # (seconds) of everything that was compiled while a test listens
listening = [False]


@pytest.fixture(scope="module", autouse=True)
def counter():
    def hear(event, seconds, **_):
        if event == EVENT and listening[0]:
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(hear)


def programs(folder, steps):
    """How many programs a run of so many steps compiles."""
    compiled.clear()
    listening[0] = True
    try:
        config = small.settings(steps=steps, save_every=3, accumulate=2)
        loop.fit(small.layer_task(), small.data(small.layer_batch), config, folder, quiet=True)
    finally:
        listening[0] = False
    return len(compiled)


def test_more_steps_and_saves_compile_nothing_more(tmp_path):
    programs(tmp_path / "warm", 2)  # programs of a line or two, which jax keeps
    few, many = programs(tmp_path / "few", 2), programs(tmp_path / "many", 12)
    assert few == many > 0


def test_a_new_process_compiles_nothing_when_the_cache_is_warm(launch):
    order = dict(network="layer", settings=dict(steps=4, accumulate=2))
    cold, warm = launch("cold", **order), launch("warm", **order)
    ended(cold.start(count=True))
    ended(warm.start(count=True))
    found = json.loads((warm.base / "compiled").read_text())
    assert found["misses"] == 0 < found["hits"]
    assert warm.result() == cold.result()
