"""Programs compiled for chips that are not there; the compiler's part needs libtpu."""

import dataclasses
import importlib.util
import json
import re

import jax
import jax.numpy as jnp
import pytest

from diffedit_jax.bench import aot, aot_train, tpu
from diffedit_jax.errors import UserError
from diffedit_jax.training.sharding import make_mesh, share


def test_mistakes_get_one_line(capsys):
    assert tpu.main(["--what", "everything"]) == 2
    assert tpu.main(["--topology", "abacus:2x4"]) == 2
    assert tpu.main(["--train", "gardening"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and "everything" in lines[0] and "v5e" in lines[1]
    assert "dreambooth_lora" in lines[2]


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is here")
def test_without_the_compiler_it_says_what_to_install(capsys):
    assert tpu.main(["--tiny"]) == 2
    assert "tpu-aot" in capsys.readouterr().err


def test_peers_miss_the_goals_that_they_set():
    for kind in ("unet", "loop"):
        lines = [line for row in tpu.PEERS[kind] for line in tpu.verdicts(kind, row)]
        assert any("NOT met" in line for line in lines)


def test_table_lines_up():
    head, first, second = tpu.table([*tpu.PEERS["unet"], *tpu.PEERS["loop"]]).splitlines()
    assert head.index("FLOPs") == first.index("1.63e+13") == second.index("3.22e+14")


@pytest.mark.heavy
def test_tiny_programs_need_no_collectives(tmp_path):
    pytest.importorskip("libtpu")
    out = tmp_path / "rows.json"
    assert tpu.main(["--tiny", "--steps", "3", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert [row["collectives"] for row in rows] == ["none", "none"]
    assert all(row["flops"] > 0 and row["hbm"] > 0 for row in rows)


@pytest.mark.heavy
def test_a_layers_gradients_move_less_than_any_peers(tmp_path):
    """Real shapes: both kernels fit into vector memory, and no score is written to HBM."""
    pytest.importorskip("libtpu")
    out = tmp_path / "rows.json"
    assert tpu.main(["--what", "layer_grad", "--json", str(out)]) == 0
    ours, *peers = json.loads(out.read_text())
    assert ours["hbm"] < 2e9 < min(peer["hbm"] for peer in peers)
    assert re.fullmatch(r"all-reduce \S+ B", ours["collectives"])  # of the weights' gradients


@pytest.mark.heavy
def test_a_tiny_training_step_sums_gradients_and_nothing_else(tmp_path):
    """Data parallel LoRA: every chip has the weights, so only gradients and the loss travel."""
    pytest.importorskip("libtpu")
    out = tmp_path / "rows.json"
    assert (
        tpu.main(["--tiny", "--train", "dreambooth_lora", "--batch", "2", "--json", str(out)]) == 0
    )
    (row,) = json.loads(out.read_text())
    assert re.fullmatch(r"all-reduce \S+ B", row["collectives"])
    assert row["flops"] > 0 and row["temporaries"] < row["occupied"] < 1e9


@pytest.mark.parametrize("name", aot_train.TRAININGS)
def test_a_training_has_the_same_step_on_shapes_alone(name):
    """What is compiled is the trainer's own step: on a mesh of what is here, it lowers."""
    mesh, nets = make_mesh("data=-1", jax.devices()[:1]), aot.tiny()
    nets = dataclasses.replace(nets, unet=nets.unet.clone(attention="tiled"))  # no TPU's kernel
    step, arguments = aot_train.train_step(name, nets, mesh, 2)
    state, frozen, batch = arguments
    assert step.lower(*arguments).out_info[0].step.shape == ()
    trained = sum(x.size for x in jax.tree.leaves(state.trained))
    everything = sum(x.size for x in jax.tree.leaves(aot_train.shapes(name, nets)))
    assert 0 < trained <= everything and (trained == everything) == (name == "dreambooth_text")
    assert batch["latent"].shape[0] == 2


def test_a_training_that_keeps_its_latents_has_no_step_that_encodes():
    with pytest.raises(UserError, match="inst keeps"):
        mesh = make_mesh("data=-1", jax.devices()[:1])
        aot_train.train_step("inst", aot.tiny(), mesh, 2, encode=True)


@pytest.mark.parametrize("name", ["dreambooth", "instruct_pix2pix", "paint_by_example"])
def test_a_step_that_encodes_takes_pictures(name):
    mesh, nets = make_mesh("data=-1", jax.devices()[:1]), aot.tiny()
    nets = dataclasses.replace(
        nets, unet=nets.unet.clone(attention="tiled"), vae=nets.vae.clone(attention="tiled")
    )
    step, arguments = aot_train.train_step(name, nets, mesh, 2, encode=True)
    _, frozen, batch = arguments
    assert step.lower(*arguments).out_info[0].step.shape == ()
    assert batch["image"].shape == (2, 32, 32, 3) and batch["image"].dtype == jnp.uint8
    assert not {"latent", "source", "masked"} & set(batch)
    kernels = [x for x in jax.tree.leaves(frozen["vae"]) if len(x.shape) == 4]
    assert {x.dtype.name for x in kernels} == {"bfloat16"}  # handed on, not trained


@pytest.mark.heavy
@pytest.mark.parametrize(
    "topology, slices, mesh",
    [
        ("v5e:16x16", 1, "data=-1,fsdp=8"),
        ("v5e:4x8", 1, "data=-1"),
        ("v6e:4x4", 1, "data=-1,fsdp=8"),
        ("v5p:2x2x4", 1, "data=-1,fsdp=4,tensor=2"),
        ("v5e:4x4", 2, "data=-1,fsdp=8"),
    ],
)
def test_every_host_of_a_pod_knows_its_examples(topology, slices, mesh):
    """Together the hosts load every part of a batch once; what fsdp joins lies in one slice."""
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    made = topologies.get_topology_desc(
        platform="tpu", topology_name=topology, num_slices=slices
    ).devices
    placed = make_mesh(mesh, made)
    found = [share(placed, host) for host in sorted({d.process_index for d in made})]
    ways = placed.shape["data"] * placed.shape["fsdp"]
    loaded = [part for each in found for part in each.parts]
    assert set(loaded) == set(range(ways)) and {each.of for each in found} == {ways}
    if placed.shape["tensor"] == 1:
        assert len(loaded) == ways  # nothing twice
    slice_of = [[getattr(d, "slice_index", 0) for d in row.flat] for row in placed.devices]
    assert all(len(set(row)) == 1 for row in slice_of)


@pytest.mark.heavy
def test_slices_divide_the_data():
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    made = topologies.get_topology_desc(
        platform="tpu", topology_name="v5e:4x4", num_slices=2
    ).devices
    with pytest.raises(UserError, match="2 slices"):
        make_mesh("fsdp=32", made)
