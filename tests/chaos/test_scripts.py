"""The training scripts themselves: on several processes, twice in one folder, with mistakes."""

import ast
import json
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffedit_jax.bundles import load, save
from diffedit_jax.errors import NotFiniteError, UserError
from diffedit_jax.models import UNet
from diffedit_jax.training import launch as launching
from diffedit_jax.training.checkpoint import Checkpoints
from diffedit_jax.training.launch import load_config
from diffedit_jax.training.lock import Lock
from diffedit_jax.training.optimisers import make_optimiser
from diffedit_jax.training.settings import complete
from diffedit_jax.training.sharding import make_mesh
from diffedit_jax.training.state import shapes_of_state
from diffedit_jax.training.tasks import dreambooth

from .harness import ROOT, ended

TINY = ROOT / "tests" / "golden" / "latent" / "12_pipelines" / "sd1"
SMALL = dict(steps=2, batch=4, save_every=9, log_every=1, kind="cat", word="sks",
             class_pictures=2, class_steps=1, templates="a photo of {}",
             class_prompts="a {}", dtype="float32", mesh="data=1,fsdp=2")  # fmt: skip
SPY = """
import json, os, runpy, sys
log = sys.argv.pop(1) + os.environ["JAX_PROCESS_ID"]
sys.argv.pop(0)
names = []

def hear(event, found):
    if event == "open" and (found[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        names.append(str(found[0]))
    if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"):
        names.append(str(found[0]))

sys.addaudithook(hear)
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(json.dumps(sorted(set(names))), file=open(log, "w"))
"""


@pytest.fixture
def pictures(tmp_path):
    folder, rng = tmp_path / "pictures", np.random.default_rng(0)
    folder.mkdir()
    for k in range(2):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{k}.png")
    return folder


def words(script, out, data, **settings):
    chosen = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    config = ROOT / "configs" / f"{script}.py"
    return [f"train/{script}.py", "--config", str(config), "--out", str(out),
            "--data", str(data), *chosen]  # fmt: skip


def written(log: Path, out: Path):
    """What a spied process has written in the run's folder, by its first name there."""
    found = [Path(name) for name in json.loads(log.read_text())]
    return {path.relative_to(out).parts[0] for path in found if out in path.parents}


@pytest.fixture
def model(tmp_path):
    """The tiny model with a UNet of one level, which compiles soon."""
    tiny = load(TINY)
    level = dict(block_out_channels=[32], layers_per_block=1,
                 down_block_types=["CrossAttnDownBlock2D"],
                 up_block_types=["CrossAttnUpBlock2D"])  # fmt: skip
    config = {**tiny.configs["unet"], **level}
    module, x = UNet.from_config(config), jnp.zeros((1, 16, 16, 4))
    make = jax.eval_shape(module.init, jax.random.key(0), x, jnp.zeros(1), jnp.zeros((1, 77, 16)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: rng.normal(0, 0.1, a.shape).astype(np.float32), make["params"])
    unet = tiny.denoiser.replace(params=params, module=module)
    text = json.dumps({**tiny.configs, "unet": config})
    save(tiny.replace(denoiser=unet, configs_json=text), tmp_path / "small")
    return tmp_path / "small"


@pytest.mark.slow
def test_two_processes_prepare_and_write_once(launch, pictures, model):
    """The UNet and its moments are spread over both; the product is what the checkpoint holds."""
    run, log = launch(), "written"
    order = words("dreambooth", run.folder, pictures, model=model, **SMALL)
    ranks = run.start_ranks(2, command=[sys.executable, "-c", SPY, str(run.base / log), *order])
    texts = [ended(process, seconds=900) for process in ranks]
    assert [text.count("the subject is called: sks cat") for text in texts] == [1, 0]
    first, second = (written(run.base / f"{log}{i}", run.folder) for i in range(2))
    assert {"class", "log.csv", ".model.new", "checkpoints"} <= first
    assert second <= {"checkpoints", "compiled"}
    changes = [f"{name}={value}" for name, value in SMALL.items() if name != "mesh"]
    config = complete(load_config(ROOT / "configs" / "dreambooth.py", changes))
    about = (dreambooth.full_task(load(model), config), make_optimiser(config), config)
    with Checkpoints(run.checkpoints) as checkpoints:
        state, step, _ = checkpoints.restore(shapes_of_state(*about, make_mesh("data=-1")))
    product = load(run.folder / "model").denoiser.params
    jax.tree.map(np.testing.assert_array_equal, product, state.trained["unet"])
    before = load(model).denoiser.params
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, product)
    assert step == 2 and max(jax.tree.leaves(moved)) > 1e-5


def test_a_mistake_is_one_line_and_final_and_a_folder_in_use_is_told_at_once(launch, pictures):
    """Before the model is read, and before anything is drawn or encoded."""
    run = launch()
    absent = words("dreambooth", run.folder, run.base / "nowhere", word="sks", prior="0.0")
    mistaken = run.start(command=[sys.executable, *absent])
    other = launch("other")
    other.folder.mkdir()
    lock = Lock(other.folder)
    order = words("dreambooth", other.folder, pictures, model="nowhere either")
    refused = other.start(command=[sys.executable, *order])
    text = ended(mistaken, 2)
    assert "nowhere" in text and "Traceback" not in text
    text = ended(refused, 2)
    lock.release()
    assert f"{other.folder} is in use by another run (pid {os.getpid()}" in text
    assert text.count("\n") == 1 and [p.name for p in other.folder.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("give\n another"), 2, "diffedit: give another\n"),
        (NotFiniteError("NaN at step 3"), 2, "diffedit: NaN at step 3\n"),
        (KeyboardInterrupt(), 130, "diffedit: interrupted\n"),
    ],
)
def test_what_ends_a_script_is_one_line_and_a_code(capsys, tmp_path, error, code, line):
    def main():
        monkeys.append(Lock(tmp_path))
        raise error

    monkeys = launching._locks
    with pytest.raises(SystemExit) as end:
        launching.start(main)
    assert end.value.code == code and capsys.readouterr().err == line
    Lock(tmp_path).release()  # the folder was given back


def test_an_error_of_ours_keeps_its_traceback():
    def main():
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        launching.start(main)
    assert launching.start(lambda: None) is None


@pytest.mark.parametrize("path", sorted((ROOT / "train").glob("*.py")), ids=lambda p: p.stem)
def test_every_script_is_started_by_the_guard(path):
    last = ast.parse(path.read_text()).body[-1]
    assert isinstance(last, ast.If) and ast.unparse(last.body[-1]) == "start(main)"


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_scripts_say_nothing(capsys, tmp_path, quiet):
    launching.Launch({}, tmp_path, None, quiet).say("the subject is called: sks cat")
    assert (capsys.readouterr().out == "") == quiet
    for path in (ROOT / "train").glob("*.py"):
        if "import arguments" in (text := path.read_text()):
            assert "print(" not in text, path
