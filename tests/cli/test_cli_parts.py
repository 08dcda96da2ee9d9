"""The small parts: cost, cache folder, progress, memory of programs, methods, bench, train."""

import importlib.util
import io
import json
import os
import sys
import types

import jax
import jax.numpy as jnp
import pytest

from diffedit_jax import cost
from diffedit_jax.cli import main, process, progress, seen, timing, tools
from diffedit_jax.cli.batches import Batch
from diffedit_jax.cli.jobs import Job
from diffedit_jax.methods.registry import find

from .conftest import Model

# --- cost ---


def test_flops_of_products_convolutions_and_loops():
    a, b = jnp.zeros((3, 4)), jnp.zeros((4, 5))
    assert cost.flops(jnp.dot, a, b) == 2 * 3 * 4 * 5
    batched = jnp.zeros((7, 3, 4)), jnp.zeros((7, 4, 5))
    assert cost.flops(jnp.matmul, *batched) == 7 * 2 * 3 * 4 * 5

    def looped(a, b):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ b), None), a, None, length=11)[0]

    assert cost.flops(jax.jit(looped), a, jnp.zeros((4, 4))) == 11 * 2 * 3 * 4 * 4

    def convolved(x, kernel, groups=1):
        dims = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=dims, feature_group_count=groups
        )

    x = jnp.zeros((2, 8, 8, 4))
    assert cost.flops(convolved, x, jnp.zeros((3, 3, 4, 6))) == 2 * (2 * 8 * 8 * 6) * 9 * 4
    grouped = cost.flops(lambda x, k: convolved(x, k, 2), x, jnp.zeros((3, 3, 2, 6)))
    assert grouped == 2 * (2 * 8 * 8 * 6) * 9 * 2


def test_flops_agree_with_the_compiler():
    def network(x, w):
        return jnp.tanh(x @ w) @ w.T

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((64, 128), (128, 256))]
    counted = jax.jit(network).lower(*shapes).compile().cost_analysis()["flops"]
    assert cost.flops(network, *shapes) == pytest.approx(counted, rel=0.02)


def test_peak_counts_what_is_alive_at_once():
    x = jnp.zeros(1000)  # 4000 bytes
    assert cost.peak_bytes(lambda x: jnp.sin(jnp.cos(jnp.tan(x))), x) == 2 * 4000
    assert cost.peak_bytes(lambda x: jnp.sin(x) + jnp.cos(x), x) == 3 * 4000
    assert cost.peak_bytes(jax.jit(lambda x: jnp.sin(x) + jnp.cos(x)), x) >= 3 * 4000


# --- the process ---


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    for name in ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "JAX_COMPILATION_CACHE_MAX_SIZE"):
        monkeypatch.setenv(name, "0")
    told = {}
    monkeypatch.setattr(jax.config, "update", lambda name, value: told.update({name: value}))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return told


def test_the_cache_is_private_and_outside_the_project(home, tmp_path, capsys):
    process.prepare_process()
    folder = tmp_path / "cache" / "diffedit_jax" / "xla"
    assert home["jax_compilation_cache_dir"] == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert capsys.readouterr().err == ""


def test_a_folder_that_others_can_write_to_is_refused(home, tmp_path, capsys):
    folder = tmp_path / "cache" / "diffedit_jax" / "xla"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    process.prepare_process()
    assert home == {}
    line = capsys.readouterr().err
    assert "other users" in line and line.count("\n") == 1


def test_a_link_or_somebody_elses_folder_is_refused(home, tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match="folder"):
        process.private_folder(tmp_path / "link")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(OSError, match="another user"):
        process.private_folder(tmp_path / "real")


def test_a_users_own_settings_win(home, monkeypatch, tmp_path):
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "mine")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
    process.prepare_process()
    assert home == {} and os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"


# --- progress ---


def test_lines_come_now_and_then_and_never_when_quiet(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    for quiet in (False, True):
        with progress.Progress(quiet) as said:
            said.stage("work")
            for done in range(1, 41):
                clock[0] += 1
                said.step(done, 40)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all("work: step" in line and "s left" in line for line in lines)


def test_a_short_run_says_nothing(capsys):
    with progress.Progress(quiet=False) as said:
        said.stage("work")
        for done in range(1, 41):
            said.step(done, 40)
    assert capsys.readouterr().err == ""


def test_the_bar_of_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress.Progress(quiet=False) as said:
        said.stage("editing")
        said.step(1, 2)
        said.note("a [note]")
    assert "diffedit: a [note]" in sys.stderr.getvalue()
    assert "editing" in sys.stderr.getvalue()


def test_nested_compiling_is_counted_once(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    spent = timing.Timing()
    with spent.part("run"):
        for now, event, seconds in [
            (3.0, "jaxpr_trace_duration", 2.0),  # 1..3, inside the next
            (5.0, "jaxpr_trace_duration", 5.0),  # 0..5
            (9.0, "backend_compile_duration", 3.0),  # 6..9
            (9.0, "something_else", 9.0),
        ]:
            clock[0] = now
            spent._lasted(f"/jax/core/compile/{event}", seconds)
        clock[0] = 10.0
    assert spent.seconds == {"compile": 8.0, "run": 2.0}
    assert str(spent) == "10.0 s: compile 8.0, run 2.0"


# --- which programs have been seen ---


class Networks(Model):
    configs = {"unet": {"layers": 2}}

    class denoiser:
        kind, module = "epsilon", "UNet()"


def batch(pictures, canvas=(64, 64), length=1, **rest):
    job = Job(find("negate"), pictures / "cat.png", pictures / "o.png", 0, {"prompt": "a"}, rest)
    return Batch((job,), length, canvas)


def test_knobs_keep_the_programs_and_kinds_do_not(pictures):
    key = seen.key_of(Networks(), batch(pictures))
    assert key == seen.key_of(Networks(), batch(pictures, strength=0.1, steps=7))
    assert key != seen.key_of(Networks(), batch(pictures, canvas=(64, 32)))
    assert key != seen.key_of(Networks(), batch(pictures, length=2))
    assert key != seen.key_of(Networks(), batch(pictures, solver="euler"))
    assert key != seen.key_of(Networks(), batch(pictures, tidy=True))


def test_a_batch_is_compiled_once_its_programs_lie_in_the_cache(pictures, monkeypatch, tmp_path):
    folder = tmp_path / "xla"
    folder.mkdir()
    monkeypatch.setattr(seen, "_folder", lambda: folder)
    assert not seen.is_compiled(Networks(), batch(pictures))
    with seen.recorded(Networks(), batch(pictures)):
        (folder / "jit_f-123-cache").write_bytes(b"program")
        (folder / "jit_f-123-atime").write_bytes((seen._BEGAN + 1).to_bytes(8, "little"))
        (folder / "jit_old-atime").write_bytes((5).to_bytes(8, "little"))
    assert seen.is_compiled(Networks(), batch(pictures))
    assert not seen.is_compiled(Networks(), batch(pictures, length=2))
    (folder / "jit_f-123-cache").unlink()
    assert not seen.is_compiled(Networks(), batch(pictures))


# --- methods, bench, train, help ---


def test_methods_are_listed_and_explained(diffedit):
    code, out, _ = diffedit("methods")
    assert code == 0 and "negate" in out and "sdedit" in out
    code, out, _ = diffedit("methods", "negate")
    assert "how much red. [required]" in out and "strength" in out and "[default 0.8]" in out
    assert "4 network evaluations of 2 rows" in out
    schema = json.loads(diffedit("methods", "--json")[1])
    assert {"sdedit", "negate"} <= {method["name"] for method in schema}


def test_every_registered_method_can_be_explained(capsys):
    from diffedit_jax import methods

    for name in methods():
        assert main(["methods", name]) == 0
        assert "paper:" in capsys.readouterr().out


def test_unknown_method_bench_and_training(refused):
    assert "did you mean 'negate'" in refused("methods", "negat")
    assert "no bench 'quality2'" in refused("bench", "quality2")
    assert "no training 'nothing'" in refused("train", "nothing", "--config", "c", "--out", "o")
    assert "--config" in refused("train", "pretrain_vae")
    assert "no.py" in refused("train", "pretrain_vae", "--config", "no.py", "--out", "o")


def test_bench_hands_over_the_words(diffedit, monkeypatch):
    made = types.ModuleType("diffedit_jax.bench.speed")
    made.main = lambda words: print(words)
    made.__spec__ = importlib.util.spec_from_loader(made.__name__, None)
    monkeypatch.setitem(sys.modules, made.__name__, made)
    monkeypatch.setattr(tools, "_BENCHES", ("speed",))
    words = ["--what", "unet", "--help"]
    assert diffedit("bench", "speed", *words) == (0, f"{words}\n", "")
    assert "speed" in diffedit("bench")[1]


def test_train_runs_a_script_with_its_words(diffedit, pictures, monkeypatch):
    folder = pictures / "train"
    folder.mkdir()
    (folder / "toy.py").write_text('"""Trains a toy."""\nimport sys\nprint(sys.argv[1:])\n')
    (pictures / "c.py").write_text("")
    monkeypatch.setattr(tools, "_folders", lambda: [folder])
    assert diffedit("train")[1].split() == ["toy", "Trains", "a", "toy."]
    words = ("--config", "c.py", "--out", "o", "--set", "steps=2")
    assert diffedit("train", "toy", *words)[1] == f"{list(words)}\n"


def test_the_trainings_of_this_checkout_are_listed(diffedit):
    assert "pretrain_vae" in diffedit("train")[1]


@pytest.mark.parametrize(
    "command", ["", "edit", "generate", "methods", "replay", "plan", "convert"]
)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as done:
        main([*command.split(), "--help"])
    assert done.value.code == 0 and "usage: diffedit" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("diffedit 0.")
