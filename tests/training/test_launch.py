"""Training scripts: their settings, and a short run from the command line."""

import csv
import os
import pathlib
import subprocess
import sys

import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.training.checks import check
from diffedit_jax.training.launch import load_config
from diffedit_jax.training.settings import complete

ROOT = pathlib.Path(__file__).parents[2]
TRAININGS = sorted(p for p in (ROOT / "configs").glob("*.py") if "method=" not in p.read_text())
CONFIG = """from ml_collections import ConfigDict
def get_config():
    return ConfigDict(dict(steps=3, drop=0.1, betas=(0.9, 0.99), flag=True, part=dict(size=4)))
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return path


def test_changes_are_read_as_what_they_replace(config):
    words = ["steps=7", "drop=1", "betas=(0.5, 0.6)", "flag=false", "part.size=8"]
    found = load_config(config, [*words, "mesh=data=2,fsdp=-1", "clip=0"])
    assert (found.steps, found.drop, found.betas) == (7, 1.0, (0.5, 0.6))
    assert found.flag is False and found.part.size == 8
    assert isinstance(found.drop, float)
    assert found.mesh == "data=2,fsdp=-1" and found.clip == 0.0  # the trainer's, not in the file


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("stepz=3", "there is no such setting"),
        ("part.width=3", "there is no such setting"),
        ("whole.size=3", "no whole to reach into"),
        ("steps=many", "wants a value like 3"),
        ("steps=2.5", "wants a value like 3"),
        ("flag=1", "wants a value like True"),
        ("steps", "name=value"),
    ],
)
def test_changes_that_cannot_be_are_refused(config, change, problem):
    with pytest.raises(UserError, match=problem) as told:
        load_config(config, [change])
    assert change.split("=")[0] in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("path", TRAININGS, ids=lambda p: p.stem)
def test_the_configs_of_all_trainings_go_with_the_trainers_settings(path):
    """As the scripts read them: a setting of a task must not take the name of the trainer's."""
    own = load_config(path)
    found = complete(own)
    assert dict(own).items() <= dict(found).items() and found.log_every > 0


def test_a_setting_of_another_type_is_one_line():
    with pytest.raises(UserError, match="'clip'") as told:
        complete(dict(clip=dict(many="lines", of="yaml")))
    assert "\n" not in str(told.value)


def test_a_config_must_be_there_and_be_one(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_config(tmp_path / "no.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match="no get_config"):
        load_config(tmp_path / "empty.py")


def train(out, *more):
    words = ["train", "pretrain_judge", "--config", "configs/pretrain_judge.py", "--out", str(out)]
    return subprocess.run(
        [sys.executable, "-m", "diffedit_jax", *words, "--set", "batch=4", *more],
        cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True,
        timeout=600,
    )  # fmt: skip


@pytest.mark.slow
def test_a_training_runs_from_the_command_line_and_goes_on(tmp_path):
    short = ["--set", "log_every=1", "--quiet"]
    for steps in (2, 3):
        done = train(tmp_path, "--set", f"steps={steps}", "--max-restarts", "1", *short)
        assert done.returncode == 0, done.stderr[-3000:]
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert (tmp_path / "judge.safetensors").stat().st_size > 1e5
    for wrong, problem in (("seed=9", "seed is 11 there and 9 here"), ("mesh=data=5", "mesh=")):
        refused = train(tmp_path, "--set", wrong)
        assert refused.returncode == 2 and problem in refused.stderr
        assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("textual_inversion", "vectors=0", "vectors=0: vectors must be 1 or more"),
        ("textual_inversion", "batch=0", "batch must be 1 or more"),
        ("textual_inversion", "accumulate=0", "accumulate must be 1 or more"),
        ("textual_inversion", "log_every=0", "log_every must be 1 or more"),
        ("textual_inversion", "save_every=0", "save_every must be 1 or more"),
        ("textual_inversion", "progressive=-1", "progressive must be 0 or more"),
        ("textual_inversion", "flip=1.5", "flip must be from 0 to 1"),
        ("textual_inversion", "focus=-0.5", "focus must be from 0 to 1, or -1"),
        ("textual_inversion", "compat=offical", "compat must be one of '', 'official'"),
        ("dreambooth", "rate=0", "rate must be a number above 0"),
        ("dreambooth", "compute=float17", "compute must be one of 'float32', 'bfloat16'"),
        ("dreambooth", "dtype=float8", "dtype must be one of"),
        ("dreambooth", "class_pictures=0", "class_pictures must be 1 or more, or prior 0"),
        ("dreambooth", "betas=(0.9, 1.5)", "betas must be two numbers"),
        ("dreambooth", "steps=-3", "steps must be 1 or more"),
        ("dreambooth_lora", "layout=peft", "layout must be one of 'diffusers', 'kohya'"),
        ("dreambooth_lora", "rank=0", "rank must be 1 or more"),
        ("make_pairs", "share=(0.9, 0.1)", "share must be two numbers, the lower one first"),
        ("make_pairs", "image=75.0", "image must be from -1 to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_the_start(name, change, problem):
    path = ROOT / "configs" / f"{name}.py"
    with pytest.raises(UserError) as told:
        check(complete(load_config(path, [change])))
    assert problem in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "fast"])
def test_a_rate_that_is_no_number_is_refused(value):
    config = complete({})
    with config.unlocked():
        del config["rate"]
        config["rate"] = value
    with pytest.raises(UserError, match="rate must be a number above 0"):
        check(config)


SCRIPTS = sorted(p for p in (ROOT / "train").glob("*.py") if not p.stem.startswith("assemble"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_a_script_knows_the_settings_of_its_config_alone(script):
    names = {"farm": "dreambooth_lora", "inst": "train_inst"}
    names |= {name: f"train_{name}" for name in ("instruct_pix2pix", "paint_by_example")}
    config = load_config(ROOT / "configs" / f"{names.get(script.stem, script.stem)}.py")
    own, task = complete(config), next(n for n in config if n not in complete({}))
    assert check(own, script) is own
    own.look_every = 5
    if "looks.of_" in script.read_text():
        assert check(own, script) is own
    else:
        with pytest.raises(UserError, match="look_every must be 0"):
            check(own, script)
    own.look_every = 0
    with own.unlocked():
        own["sead"] = 3
    with pytest.raises(UserError, match=f"{script.stem} knows no setting sead; did you mean seed?"):
        check(own, script)
    with own.unlocked():
        del own["sead"], own[task]
    with pytest.raises(UserError, match=f"does not say {task}"):
        check(own, script)
