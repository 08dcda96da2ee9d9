"""The CLIP towers against transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.models import CLIPText, CLIPVision

from .reference import nhwc, relative, torch_params

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "projection_dim": 24,
}
TEXT = SIZES | {"vocab_size": 99, "max_position_embeddings": 17}
VISION = SIZES | {"image_size": 32, "patch_size": 8}
IDS = np.array([[97, 5, 8, 98, 98, 98], [97, 3, 98, 0, 0, 0], [97, 98, 98, 98, 98, 98]], np.int32)


def build(kind, config, **more):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, config)(**more)
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return torch, model


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("eos", [2, 98])
@pytest.mark.parametrize("kind", ["CLIPTextModel", "CLIPTextModelWithProjection"])
def test_text_tower(kind, act, eos):
    more = TEXT | {"hidden_act": act, "eos_token_id": eos}
    torch, model = build(kind, "CLIPTextConfig", **more)
    with torch.no_grad():
        theirs = model(torch.from_numpy(IDS).long(), output_hidden_states=True)
    text = CLIPText.from_config(model.config.to_dict() | {"architectures": [kind]})
    last, ours = text.apply(torch_params(model), jnp.asarray(IDS))
    assert relative(last, theirs.last_hidden_state) < 2e-5
    assert len(ours["hidden_states"]) == len(theirs.hidden_states) == 4
    for a, b in zip(ours["hidden_states"], theirs.hidden_states, strict=True):
        assert relative(a, b) < 2e-5
    if kind == "CLIPTextModel":
        assert "projected" not in ours
        assert relative(ours["pooled"], theirs.pooler_output) < 2e-5
    else:
        assert relative(ours["projected"], theirs.text_embeds) < 2e-5


def small_text(**more):
    text = CLIPText(**(TEXT | more))
    return text, text.init(jax.random.key(0), jnp.asarray(IDS))


def test_the_legacy_rule_pools_at_the_largest_id_the_newer_at_the_first_end():
    ids = jnp.array([[97, 5, 40, 9, 40, 98]])
    text, params = small_text(eos_token_id=2)
    last, more = text.apply(params, ids)
    np.testing.assert_array_equal(more["pooled"][0], last[0, 5])
    last, more = text.clone(eos_token_id=40).apply(params, ids)
    np.testing.assert_array_equal(more["pooled"][0], last[0, 2])


def test_words_see_only_words_before_them():
    text, params = small_text()
    changed = jnp.asarray(IDS).at[:, 4:].set(7)
    before, after = (text.apply(params, ids)[0] for ids in (jnp.asarray(IDS), changed))
    np.testing.assert_allclose(after[:, :4], before[:, :4], atol=1e-6)
    assert float(jnp.abs(after[:, 4:] - before[:, 4:]).max()) > 1e-3


def test_vectors_stand_in_for_token_embeddings():
    text, params = small_text()
    table = params["params"]["embeddings"]["token_embedding"]["embedding"]
    ids = jnp.asarray(IDS)
    same, _ = text.apply(params, jnp.zeros_like(ids), vectors=table[ids])
    np.testing.assert_allclose(same, text.apply(params, ids)[0], atol=1e-6)


def test_clip_skip_is_the_final_norm_of_an_earlier_state():
    text, params = small_text()
    last, more = text.apply(params, jnp.asarray(IDS))
    again = text.apply(params, more["hidden_states"][-1], method="normalise")
    np.testing.assert_allclose(again, last, atol=1e-6)


def test_text_gradients_match_torch():
    torch, model = build("CLIPTextModel", "CLIPTextConfig", **TEXT)
    model(torch.from_numpy(IDS).long()).last_hidden_state.square().mean().backward()
    text, params = CLIPText.from_config(model.config.to_dict()), torch_params(model)

    def loss(params):
        return jnp.square(text.apply(params, jnp.asarray(IDS))[0]).mean()

    for module in (text, text.clone(remat=True)):
        text = module
        ours = jax.grad(loss)(params)["params"]["embeddings"]["token_embedding"]["embedding"]
        theirs = dict(model.named_parameters())
        name = next(key for key in theirs if key.endswith("token_embedding.weight"))
        assert relative(ours, theirs[name].grad) < 1e-4


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("kind", ["CLIPVisionModel", "CLIPVisionModelWithProjection"])
def test_image_tower(kind, act):
    torch, model = build(kind, "CLIPVisionConfig", **(VISION | {"hidden_act": act}))
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        theirs = model(torch.from_numpy(x), output_hidden_states=True)
    vision = CLIPVision.from_config(model.config.to_dict() | {"architectures": [kind]})
    tokens, ours = vision.apply(torch_params(model), nhwc(x))
    assert relative(tokens, theirs.last_hidden_state) < 2e-5
    for a, b in zip(ours["hidden_states"], theirs.hidden_states, strict=True):
        assert relative(a, b) < 2e-5
    if kind == "CLIPVisionModel":
        assert relative(ours["pooled"], theirs.pooler_output) < 2e-5
    else:
        assert relative(ours["projected"], theirs.image_embeds) < 2e-5


def test_a_whole_clip_config_gives_both_towers():
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=20)
    text = CLIPText.from_config(config.to_dict())
    vision = CLIPVision.from_config(config.to_dict())
    assert text.with_projection and vision.with_projection
    assert text.projection_dim == vision.projection_dim == 20
    assert (text.vocab_size, vision.patch_size) == (99, 8)


@pytest.mark.parametrize("numbers", [{"dtype": jnp.bfloat16}, {"operands": jnp.bfloat16}])
def test_bfloat16_stays_finite_and_close(numbers):
    text, params = small_text()
    exact, _ = text.apply(params, jnp.asarray(IDS))
    last, _ = text.clone(**numbers).apply(params, jnp.asarray(IDS))
    assert relative(last, exact) < 0.05


@pytest.mark.parametrize("kind", [CLIPText, CLIPVision])
def test_an_unknown_activation_is_named(kind):
    with pytest.raises(UserError, match="hidden_act"):
        kind.from_config({"hidden_act": "relu"})


@pytest.mark.parametrize("kind", [CLIPText, CLIPVision])
def test_absent_keys_mean_the_defaults_of_transformers(kind):
    transformers = pytest.importorskip("transformers")
    theirs = getattr(transformers, f"{kind.__name__}Config")().to_dict()
    ours = kind.from_config({})
    for name in ours.__dataclass_fields__:
        if name in theirs and name != "dtype":
            assert getattr(ours, name) == theirs[name], name
