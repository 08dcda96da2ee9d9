"""Style files: the original's pickled module and our own, in and out, and what is none."""

import numpy as np
import pytest

from diffedit_jax.checkpoints.style_file import KEPT, StyleParts, read_style, write_style
from diffedit_jax.checkpoints.torch_file import read_torch
from diffedit_jax.checkpoints.write import write_safetensors
from diffedit_jax.errors import UserError

torch = pytest.importorskip("torch")

from tests.torch_style import Attentions, save_official  # noqa: E402


def parts(**changes):
    weights = {k: x.numpy() for k, x in Attentions().state_dict().items()}
    rng = np.random.default_rng(0)
    kept = {
        name: rng.normal(size=n).astype(np.float32)
        for name, n in zip(KEPT, (16, 4, 4), strict=True)
    }
    return StyleParts(**{"weights": weights, "tower": "emoji", "kept": kept} | changes)


def test_the_originals_file_is_its_state_dict(tmp_path, monkeypatch):
    module, path = Attentions(), tmp_path / "embeddings.pt"
    save_official(path, module, monkeypatch)
    found = read_style(path)
    wanted = module.state_dict()
    assert found.weights.keys() == wanted.keys()
    for name, x in wanted.items():
        np.testing.assert_array_equal(found.weights[name], x.numpy())
    assert (found.word, found.tokens, found.heads, found.compat) == ("*", "pooled", 8, "official")
    assert found.sizes == (16, 32, 16) and not found.kept and not found.tower


def test_its_classes_are_read_as_a_style_alone(tmp_path, monkeypatch):
    save_official(tmp_path / "embeddings.pt", Attentions(), monkeypatch)
    with pytest.raises(UserError, match="names ldm.modules.embedding_manager.Attentions"):
        read_torch(tmp_path / "embeddings.pt")


def test_another_class_in_it_is_refused(tmp_path, monkeypatch):
    module = Attentions()
    module.net = torch.nn.Sequential(torch.nn.GELU(), torch.nn.Linear(16, 16))
    save_official(tmp_path / "embeddings.pt", module, monkeypatch)
    with pytest.raises(UserError, match="GELU; refused, and nothing of it was run"):
        read_style(tmp_path / "embeddings.pt")


@pytest.mark.parametrize("tokens, compat", [("pooled", "official"), ("patches", "")])
def test_ours_comes_back(tmp_path, tokens, compat):
    given = parts(tokens=tokens, compat=compat, word="~", heads=2)
    write_style(tmp_path / "style.safetensors", given)
    found = read_style(tmp_path / "style.safetensors")
    for name in ("weights", "kept"):
        own, wanted = getattr(found, name), getattr(given, name)
        assert own.keys() == wanted.keys()
        for key in wanted:
            np.testing.assert_array_equal(own[key], wanted[key])
    for name in ("word", "tokens", "heads", "tower", "compat"):
        assert getattr(found, name) == getattr(given, name)


WRONG = {
    "its header is damaged": dict(tokens="all"),
    "its header is": dict(compat="theirs"),
    "32 channels do not divide into 5 heads": dict(heads=5),
    "mean, deviation is missing": dict(kept={"vector": np.zeros(16)}),
    "vector is no vector of finite": dict(kept=dict.fromkeys(KEPT, np.full(16, np.nan))),
    "not as wide as the module's words": dict(kept=dict.fromkeys(KEPT, np.zeros(9))),
    "net.1.weight is missing": dict(weights={"attn1.to_q.weight": np.zeros((32, 16))}),
}


@pytest.mark.parametrize("why", WRONG)
def test_damaged_files_say_what_is_wrong(tmp_path, why):
    write_style(tmp_path / "style.safetensors", parts(**WRONG[why]))
    with pytest.raises(UserError, match=why) as caught:
        read_style(tmp_path / "style.safetensors")
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path):
    write_safetensors(tmp_path / "word.safetensors", {"<toy>": np.zeros((1, 16), np.float32)})
    torch.save({"string_to_token": {}, "string_to_param": {}}, tmp_path / "word.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"string_to_token": {"*": 1}, "attention": {"a": 1}}, tmp_path / "plain.pt")
    for name in ("word.safetensors", "word.pt", "list.pt", "plain.pt"):
        with pytest.raises(UserError, match="is no style file"):
            read_style(tmp_path / name)
    (tmp_path / "text.pt").write_text("hello")
    for name in ("text.pt", "absent.pt"):
        with pytest.raises(UserError, match=name):
            read_style(tmp_path / name)
