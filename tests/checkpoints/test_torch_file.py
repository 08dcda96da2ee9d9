"""The torch reader: equal to torch.load on sound files; nothing in a file is ever run."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict, defaultdict
from functools import partial

import numpy as np
import pytest

from diffedit_jax.checkpoints.read import read
from diffedit_jax.checkpoints.torch_file import read_torch
from diffedit_jax.errors import UserError

from .golden import PIPELINES

torch = pytest.importorskip("torch")


def as_numpy(tensor):
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy()
    return tensor.detach().numpy()


def equal(ours, theirs):
    for key, tensor in theirs.items():
        found = ours[key]
        if tensor.dtype == torch.bfloat16:
            assert str(found.dtype) == "bfloat16"
            found = np.ascontiguousarray(found).view(np.int16)
        assert found.dtype == as_numpy(tensor).dtype
        np.testing.assert_array_equal(found, as_numpy(tensor))
    assert ours.keys() == theirs.keys()


GOLDEN = ["sd1_single.ckpt", "ip2p_unet_with_ema.ckpt", "legacy_zipless.ckpt"]


@pytest.mark.parametrize("name", [*GOLDEN, "sd1_bin/unet/diffusion_pytorch_model.bin"])
def test_recorded_files(name):
    theirs = torch.load(PIPELINES / name, map_location="cpu", weights_only=False)
    equal(read(PIPELINES / name), theirs.get("state_dict", theirs))


def tensors():
    base = torch.arange(24.0).reshape(4, 6)
    return OrderedDict(
        plain=base,
        transposed=base.T,
        strided=base[::2, 1::2],
        column=base[:, 3],
        expanded=torch.ones(1, 5).expand(3, 5),
        scalar=torch.tensor(3.5),
        empty=torch.zeros(0, 4),
        half=base.half(),
        bfloat=base.bfloat16(),
        double=base.double(),
        long=torch.arange(5),
        int=torch.arange(5, dtype=torch.int32),
        small=torch.arange(5, dtype=torch.int8),
        byte=torch.arange(5, dtype=torch.uint8),
        bool=torch.tensor([True, False, True]),
        parameter=torch.nn.Parameter(base.clone()),
    )


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_views_and_dtypes(tmp_path, zipped, protocol):
    path = tmp_path / "a.ckpt"
    torch.save(tensors(), path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    equal(read(path), tensors())


def test_training_files_give_their_state_dict(tmp_path):
    module = torch.nn.Linear(2, 3)
    optimiser = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    whole = {
        "epoch": 3,
        "lr": 1e-4,
        "callbacks": {"a": [1, (2, None), {True: "x"}]},
        "optimizer_states": [optimiser.state_dict()],
        "state_dict": module.state_dict(),
    }
    torch.save(whole, tmp_path / "a.ckpt")
    equal(read(tmp_path / "a.ckpt"), module.state_dict())
    assert read_torch(tmp_path / "a.ckpt")["callbacks"] == whole["callbacks"]


def test_nothing_is_copied():
    out = read(PIPELINES / "sd1_single.ckpt")["model.diffusion_model.out.2.bias"]
    assert not out.flags.writeable and not out.flags.owndata


def test_recorded_hostile_file():
    with pytest.raises(UserError, match="posix.getcwd") as caught:
        read(PIPELINES / "must_be_refused.ckpt")
    assert "\n" not in str(caught.value)


class Calls:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Item:
    pass


def payloads(marker: str) -> dict:
    """Pickled attempts to run code; each would create `marker` or reach what could."""
    command = f"touch {marker}"
    found = {
        "os.system": Calls(os.system, command),
        "eval": Calls(eval, f"open({marker!r}, 'w')"),
        "exec": Calls(exec, f"open({marker!r}, 'w')"),
        "open": Calls(open, marker, "w"),
        "getattr": Calls(getattr, "text", "upper"),
        "import": Calls(__import__, "os"),
        "partial": Calls(partial, os.system, command),
        "torch.load": Calls(torch.load, marker),
        "defaultdict": defaultdict(list),
        "class": Item(),
        "module function": Calls(np.load, marker),
    }
    packed = {name: pickle.dumps({"a": value}, 2) for name, value in found.items()}
    packed["key"] = pickle.dumps({Calls(os.system, command): 1}, 2)
    shell = f"S'{command}'\n".encode()
    packed["INST"] = b"(" + shell + b"ios\nsystem\n."
    packed["OBJ"] = b"(cos\nsystem\n" + shell + b"o."
    packed["NEWOBJ"] = b"\x80\x02cos\nsystem\n" + shell + b"\x85\x81."
    packed["STACK_GLOBAL"] = b"\x80\x04\x8c\x02os\x8c\x06system\x93" + shell + b"\x85R."
    packed["EXT1"] = b"\x80\x02\x82\x01."
    packed["dotted"] = b"\x80\x04\x8c\x05torch\x8c\x0d_C.os.system.x\x93."
    packed["call of text"] = b"\x80\x02U\x06systemU\x01x\x85R."
    packed["dtype called"] = b"\x80\x02ctorch\nFloatStorage\nK\x08\x85R."
    packed["ordered dict of calls"] = pickle.dumps(OrderedDict(a=Calls(os.system, command)), 2)
    return packed


def zipped(path, data, **members):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", data)
        for name, content in members.items():
            archive.writestr(f"a/{name}", content)
    return path


def legacy(path, data):
    start = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in start) + data + pickle.dumps([], 2))
    return path


@pytest.mark.parametrize("wrap", [zipped, legacy])
@pytest.mark.parametrize("name", payloads("x"))
def test_code_is_refused_and_never_run(tmp_path, name, wrap):
    marker = tmp_path / "marker"
    path = wrap(tmp_path / "a.ckpt", payloads(str(marker))[name])
    with pytest.raises(UserError) as caught:
        read(path)
    assert not marker.exists()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


DAMAGED = {
    "empty pickle": b"",
    "no stop": b"\x80\x02}",
    "nothing on the stack": b"\x80\x02.",
    "mark missing": b"\x80\x02t.",
    "mark as a value": b"\x80\x02(\x85.",
    "memo missing": b"\x80\x02h\x05.",
    "item into a list": b"\x80\x02]U\x01aU\x01bs.",
    "items into a tuple": b"\x80\x02)(U\x01aU\x01bu.",
    "append to a dict": b"\x80\x02}U\x01aa.",
    "odd items": b"\x80\x02}(U\x01au.",
    "list as a key": b"\x80\x02}]U\x01as.",
    "state of a list": b"\x80\x02]}b.",
    "long beyond the end": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "text beyond the end": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "bytes of 2**60": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"abc.",
    "giant memo index": b"\x80\x02}r\xff\xff\xff\x7f.",
    "endless nest": b"\x80\x02" + b"]" * 2000 + b"a" * 1999 + b".",
    "contains itself": b"\x80\x02}q\x00U\x01ah\x00s.",
    "unknown opcode": b"\x80\x02\xff.",
    "storage not a tuple": b"\x80\x02U\x01aQ.",
    "number of 5000 digits": b"I" + b"9" * 5000 + b"\n.",
}


@pytest.mark.parametrize("wrap", [zipped, legacy])
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_pickles_get_one_line(tmp_path, name, wrap):
    path = wrap(tmp_path / "a.ckpt", DAMAGED[name])
    with pytest.raises(UserError, match="a.ckpt") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_doubling_nest_costs_nothing(tmp_path):
    """60 levels of (x, x) are 2**60 values if they are walked one by one."""
    doubling = b"\x80\x02" + b"2\x86" * 20 + b"."
    path = zipped(tmp_path / "a.ckpt", b"\x80\x02}U\x01a" + b"]" + b"2\x86" * 25 + b"s.")
    with pytest.raises(UserError):
        read(path)
    with pytest.raises(UserError):
        read(zipped(tmp_path / "b.ckpt", doubling))


def tensor_pickle(count=4, offset=0, size=(4,), stride=(1,), key="0", kind="FloatStorage") -> bytes:
    """A state dict {"a": tensor} with chosen numbers, as torch pickles it."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            named = ("storage", getattr(torch, kind), key, "cpu", count)
            return named if isinstance(value, Item) else None

    stream = io.BytesIO()
    rebuild = Calls(torch._utils._rebuild_tensor_v2, Item(), offset, size, stride, False, {})
    Pickler(stream, 2).dump({"a": rebuild})
    return stream.getvalue()


FOUR = np.arange(4, dtype=np.float32).tobytes()


def test_the_maker_of_bad_tensors_makes_good_ones(tmp_path):
    path = zipped(
        tmp_path / "a.ckpt", tensor_pickle(size=(2, 2), stride=(1, 2)), **{"data/0": FOUR}
    )
    np.testing.assert_array_equal(read(path)["a"], [[0, 2], [1, 3]])


BAD_TENSORS = {
    "beyond the end": dict(size=(5,)),
    "offset beyond": dict(offset=1),
    "negative offset": dict(offset=-1),
    "negative stride": dict(stride=(-1,)),
    "stride beyond": dict(stride=(2,)),
    "stride overflow": dict(size=(2, 2), stride=(2**62, 2**62)),
    "size overflow": dict(size=(2**62, 2**62), stride=(0, 0)),
    "repeated to a terabyte": dict(size=(2**38,), stride=(0,)),
    "two sizes, one stride": dict(size=(2, 2)),
    "size is text": dict(size="ab"),
    "size of text": dict(size=("a",)),
    "storage claims more": dict(count=400),
    "storage claims less": dict(count=2, size=(2,)),
    "negative count": dict(count=-1),
    "storage elsewhere": dict(key="../../etc/passwd"),
    "other dtype, other size": dict(kind="DoubleStorage"),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_views_outside_their_storage(tmp_path, case):
    path = zipped(tmp_path / "a.ckpt", tensor_pickle(**BAD_TENSORS[case]), **{"data/0": FOUR})
    with pytest.raises(UserError, match="not a sound checkpoint"):
        read(path)


def test_flipped_bits_are_noticed(tmp_path):
    """torch itself does not look at the checksums."""
    data = bytearray((PIPELINES / "sd1_single.ckpt").read_bytes())
    with zipfile.ZipFile(PIPELINES / "sd1_single.ckpt") as archive:
        place = archive.getinfo("sd1_single/data/0").header_offset + 200
    data[place] ^= 1
    (tmp_path / "a.ckpt").write_bytes(data)
    with pytest.raises(UserError, match="checksum|truncated|not where"):
        read(tmp_path / "a.ckpt")


def test_compressed_members_are_refused_before_they_unfold(tmp_path):
    path = tmp_path / "a.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", tensor_pickle(count=10**8))
        archive.writestr("a/data/0", bytes(4 * 10**8))
    with pytest.raises(UserError, match="compressed"):
        read(path)


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_truncated_files(tmp_path, name, share):
    data = (PIPELINES / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match="not a sound checkpoint"):
        read(tmp_path / name)


def test_duplicate_members(tmp_path):
    path = zipped(tmp_path / "a.ckpt", tensor_pickle(), **{"data/0": FOUR})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning):
        archive.writestr("a/data/0", FOUR)
    with pytest.raises(UserError, match="twice"):
        read(path)


def test_programs_are_not_weights(tmp_path):
    path = zipped(tmp_path / "a.pt", b"\x80\x02}.", **{"constants.pkl": b"\x80\x02)."})
    with pytest.raises(UserError, match="TorchScript"):
        read(path)


def test_files_without_names(tmp_path):
    torch.save([torch.ones(2)], tmp_path / "a.pt")
    with pytest.raises(UserError, match="no tensors by name"):
        read(tmp_path / "a.pt")
    torch.save({"a": torch.ones(2), "b": "text"}, tmp_path / "b.pt")
    with pytest.raises(UserError, match="not tensors: 'b'"):
        read(tmp_path / "b.pt")


@pytest.mark.slow
def test_random_damage_never_escapes(tmp_path):
    """2,000 random changes of a pickle, checksums right: sound, or UserError, nothing else."""
    random = np.random.default_rng(0)
    buffer = io.BytesIO()
    torch.save(
        {"a": torch.ones(2, 3), "b": {"c": [1, "x", None]}, "d": torch.ones(2).half()}, buffer
    )
    with zipfile.ZipFile(buffer) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    for _ in range(2000):
        data = bytearray(members[name])
        for place in random.integers(0, len(data), random.integers(1, 4)):
            data[place] = random.integers(0, 256)
        with zipfile.ZipFile(tmp_path / "d", "w") as archive:
            for other, content in members.items():
                archive.writestr(other, bytes(data) if other == name else content)
        try:
            read_torch(tmp_path / "d")
        except UserError as error:
            assert "\n" not in str(error)
