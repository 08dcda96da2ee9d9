"""Many devices and several processes train as one device does."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.training.sharding import parse_mesh

ROOT = pathlib.Path(__file__).parents[2]
ALL = "data=2,fsdp=2,tensor=2"
MESHES = ("data=8", ALL, f"{ALL}#again")


def start(folder, meshes, devices, **environment):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
             "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}  # fmt: skip
    own = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", **cache, **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.devices_script", str(folder), *meshes],
        cwd=ROOT, env={**os.environ, **own},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def told(process):
    out, problem = process.communicate(timeout=900)
    assert process.returncode == 0, problem[-3000:]
    return json.loads(out.splitlines()[-1]) if out.strip() else {}


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """{mesh: what its run told} of one process with eight devices."""
    return told(start(tmp_path_factory.mktemp("eight"), ("one", *MESHES), 8))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The same mesh over two processes with four devices each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("two")
    common = dict(JAX_COORDINATOR_ADDRESS=f"127.0.0.1:{port}", JAX_NUM_PROCESSES="2")
    both = [start(folder, (ALL,), 4, **common, JAX_PROCESS_ID=str(k)) for k in (0, 1)]
    return [told(process) for process in both][0]


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_eight_devices_train_as_one_does(eight, mesh):
    one = eight["one"]["losses"]
    assert len(one) == 20 and len(set(one)) == 20
    assert eight[mesh]["losses"] == pytest.approx(one, abs=1e-5)


@pytest.mark.slow
def test_the_same_mesh_twice_is_bit_equal(eight):
    assert eight[ALL]["losses"] == eight[f"{ALL}#again"]["losses"]
    assert eight[ALL]["state"] == eight[f"{ALL}#again"]["state"]


@pytest.mark.slow
def test_parameters_are_spread_as_the_rules_say(eight):
    split = {path for path, axes in eight[ALL]["axes"].items() if "tensor" in axes}
    for part in ("attn1/to_q", "attn2/to_out_0", "ff/net_0/proj", "ff/net_2"):
        assert any(f"{part}/kernel" in path and path.startswith("unet/") for path in split), part
    for part in ("q_proj", "out_proj", "fc1", "fc2"):
        assert any(f"{part}/kernel" in path and path.startswith("text_") for path in split), part
    assert not any("tensor" in axes for axes in eight["data=8"]["axes"].values())
    assert eight["one"]["largest"] == eight["data=8"]["largest"] == 1
    assert eight[ALL]["largest"] <= 0.5


@pytest.mark.heavy  # two processes that compile side by side; tests/chaos has small ones
def test_two_processes_train_as_one_device_does(eight, two):
    assert two[ALL]["losses"] == pytest.approx(eight["one"]["losses"], abs=1e-5)


def test_a_mesh_is_read_and_filled_up():
    assert parse_mesh("data=-1", 8) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert parse_mesh("fsdp=2, tensor=2, data=-1", 8) == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
    "text", ["data=3", "data=-1,fsdp=3", "data=-1,fsdp=-1", "rows=8", "data", "data=0"]
)
def test_a_mesh_that_does_not_fit_is_refused_in_one_line(text):
    with pytest.raises(UserError, match="mesh=") as told:
        parse_mesh(text, 8)
    assert "\n" not in str(told.value)
