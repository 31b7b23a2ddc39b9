"""Trees: an objective's trunk is the classifier's; from one to the other; refusals."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.models import MODELS
from fishnet.nn.activations import prelu, rrelu
from fishnet.pretraining import OBJECTIVES, transfer_trunk

BESIDE = {
    "autoencoder": {"decoder"},
    "denoising": {"decoder"},
    "rotation": {"rotation_head"},
    "contrastive": {"projection_hidden", "projection_act", "projection_out"},
    "gan": {"generator", "discriminator_head"},
}
HEADS = {"hybrid": {"head", "expert_head", "conv_2", "norm_2", "act_2"}}
# Each model once and each objective once, and the decoder of features.
PAIRS = sorted(
    {*((model, "rotation") for model in MODELS), *(("cnn", name) for name in BESIDE), ("mlp", "autoencoder")}
)
IMAGES = np.zeros((4, 9, 9, 3), np.uint8)
KEY = jax.random.key(0)


def classifier(name="cnn", **fields):
    experts = {"experts": (1,)} if name == "hybrid" else {}
    return MODELS[name](**{"classes": 3, "widths": (8, 16), "depth": 1, **experts, **fields})


def shapes(module, images=IMAGES, train=False):
    """What a module returns, and its variables."""
    return jax.eval_shape(lambda: module.init_with_output(KEY, images, train))


@functools.cache
def classifiers_shapes(name):
    return shapes(classifier(name, act=prelu))[1]


@pytest.mark.parametrize(("model", "name"), PAIRS)
def test_the_trunk_has_the_classifiers_tree(model, name):
    theirs, head = classifiers_shapes(model), HEADS.get(model, {"head"})
    (losses, correct), ours = shapes(OBJECTIVES[name](classifier(model, act=prelu)))
    assert losses == jax.ShapeDtypeStruct((4,), jnp.float32)
    assert correct is None if name in ("autoencoder", "denoising") else correct == losses
    assert ours["constants"] == theirs["constants"]
    for collection in ("params", "batch_stats"):
        trunk = {key: tree for key, tree in theirs[collection].items() if key not in head}
        assert trunk and {key: tree for key, tree in ours[collection].items() if key not in BESIDE[name]} == trunk
    assert {*BESIDE[name]} <= {*ours["params"]}


def test_the_trunk_begins_as_the_classifier_does():
    """The same key gives the same kernels, so that an arm with pretraining differs in nothing else."""

    def init(key, shape, dtype=jnp.float32):
        return jnp.full(shape, jax.random.key_data(key)[-1] % 9973, dtype)  # takes no time to compile

    model = classifier(kernel_init=init)
    modules = model, OBJECTIVES["rotation"](model)
    params, pretrained = jax.jit(lambda: [module.init(KEY, IMAGES, False)["params"] for module in modules])()
    assert {*pretrained} - {*params} == {"rotation_head"}
    jax.tree.map(np.testing.assert_array_equal, transfer_trunk(params, pretrained), params)
    assert np.asarray(params["conv_0"]["kernel"]).max() != np.asarray(params["conv_1"]["kernel"]).max()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_other_trunks(name):
    """Random activations and dropout draw from their own streams; a norm of raw images leaves the constants to us."""
    model = classifier(act=rrelu, dropout=0.5, dropout_layers=("blocks",), input_norm="batch", dtype=jnp.bfloat16)
    apply = partial(OBJECTIVES[name](model).apply, rngs=dict.fromkeys(("objective", "dropout", "activation"), KEY))
    _, variables = shapes(OBJECTIVES[name](model))
    assert "input_norm" in variables["params"]
    assert ("constants" in variables) == (name in ("autoencoder", "denoising"))
    assert jax.tree.all(jax.tree.map(lambda leaf: leaf.dtype == jnp.float32, variables))
    trained, after = jax.eval_shape(lambda v: apply(v, IMAGES, True, mutable=["batch_stats"]), variables)
    assert after["batch_stats"] == variables["batch_stats"]
    assert trained == jax.eval_shape(lambda v: apply(v, IMAGES, False), variables)
    assert trained[0] == jax.ShapeDtypeStruct((4,), jnp.float32)


def test_with_trunk():
    model = {"conv_0": {"kernel": np.zeros((3, 2))}, "norm_0": {"scale": np.ones(2)}, "head": {"kernel": np.ones(2)}}
    pretrained = {"conv_0": {"kernel": np.full((3, 2), 7)}, "norm_0": {"scale": np.full(2, 5)}, "decoder": {"w": 1}}
    found = transfer_trunk(model, pretrained)
    assert {*found} == {*model} and (found["head"]["kernel"] == 1).all()
    assert (found["conv_0"]["kernel"] == 7).all() and (found["norm_0"]["scale"] == 5).all()
    assert (model["conv_0"]["kernel"] == 0).all()
    assert transfer_trunk({}, pretrained) == {}
    with pytest.raises(UsageError, match="no norm_0/scale"):
        transfer_trunk(model, {"conv_0": pretrained["conv_0"]})
    with pytest.raises(UsageError, match=r"conv_0/kernel has shape \(2, 2\) .* \(3, 2\)"):
        transfer_trunk(model, {**pretrained, "conv_0": {"kernel": np.zeros((2, 2))}})
    with pytest.raises(UsageError, match="no head/kernel"):
        transfer_trunk(model, pretrained, head=())


@pytest.mark.parametrize(
    ("name", "fields", "match"),
    [
        ("denoising", {"noise": -0.1}, "got -0.1"),
        ("denoising", {"noise": float("nan")}, "got nan"),
        ("contrastive", {"temperature": 0.0}, "above 0, got 0.0"),
        ("contrastive", {"projection": 0}, "got 0"),
        ("gan", {"latent": 0}, "got 0"),
    ],
)
def test_numbers_out_of_range(name, fields, match):
    with pytest.raises(UsageError, match=match):
        shapes(OBJECTIVES[name](classifier(), **fields))


def test_images_that_do_not_fit():
    with pytest.raises(UsageError, match="9 x 8 pixels"):
        shapes(OBJECTIVES["rotation"](classifier()), IMAGES[:, :, :8])
    with pytest.raises(UsageError, match="got float32"):
        shapes(OBJECTIVES["contrastive"](classifier()), IMAGES.astype(np.float32))
