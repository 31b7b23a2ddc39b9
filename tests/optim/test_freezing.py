"""Freezing by pattern, rates by layer and stage: against rules written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.models import MODELS
from fishnet.optim.freezing import STAGES, frozen_layers, frozen_mask, layer_scales, select_by_layer, stop_gradients

PARAMS = {
    "conv_0": {"kernel": jnp.ones((3, 3, 1, 2))},
    "norm_0": {"scale": jnp.ones(2), "bias": jnp.zeros(2)},
    "conv_10": {"kernel": jnp.ones((1, 1, 2, 2))},
    "head": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)},
}


def names(mask) -> set[str]:
    return {"/".join(k.key for k in path) for path, leaf in jax.tree_util.tree_leaves_with_path(mask) if leaf}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], set()),
        (["conv_0"], {"conv_0/kernel"}),
        (["conv_1*"], {"conv_10/kernel"}),
        (["*/bias"], {"norm_0/bias", "head/bias"}),
        (["norm_*", "head/kernel"], {"norm_0/scale", "norm_0/bias", "head/kernel"}),
        (["trunk"], {"conv_0/kernel", "norm_0/scale", "norm_0/bias", "conv_10/kernel"}),
        (["trunk/*"], {"conv_0/kernel", "norm_0/scale", "norm_0/bias", "conv_10/kernel"}),
    ],
)
def test_frozen(patterns, expected):
    assert names(frozen_mask(PARAMS, patterns)) == expected


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], ()),
        (["trunk"], ("conv_0", "norm_0", "conv_10")),
        (["norm_*", "conv_10"], ("norm_0", "conv_10")),
        (["norm_0/scale", "norm_0/bias"], ()),
        (["trunk/*", "norm_*/*", "*/kernel"], ()),
        (["head"], ("head",)),
    ],
)
def test_layers_are_frozen_by_their_name_and_parameters_behind_a_slash(patterns, expected):
    assert frozen_layers(PARAMS, patterns) == expected


def test_what_cannot_be_frozen():
    with pytest.raises(UsageError, match="'dense_0' matches no parameter; layers are trunk, conv_0"):
        frozen_mask(PARAMS, ["conv_0", "dense_0"])
    with pytest.raises(UsageError, match="freezes every parameter"):
        frozen_mask(PARAMS, ["trunk", "head"])


def test_a_frozen_leaf_has_no_gradient_and_costs_none():
    def loss(params, mask):
        params = stop_gradients(params, mask)
        hidden = jnp.tanh(jnp.ones((4, 2)) @ params["conv_10"]["kernel"][0, 0])
        return jnp.square(hidden @ params["head"]["kernel"] + params["head"]["bias"]).sum()

    masks = frozen_mask(PARAMS, ["trunk"]), frozen_mask(PARAMS, [])
    grads, whole = (jax.grad(loss)(PARAMS, mask) for mask in masks)
    assert (grads["conv_10"]["kernel"] == 0).all() and (whole["conv_10"]["kernel"] != 0).any()
    np.testing.assert_array_equal(grads["head"]["kernel"], whole["head"]["kernel"])
    costs = [jax.jit(lambda p, m=m: jax.grad(loss)(p, m)).lower(PARAMS).compile().cost_analysis() for m in masks]
    assert costs[0]["flops"] < costs[1]["flops"]


def test_rates_at_every_step():
    """Against the rule, layer by layer and step by step."""
    layers, decay, unfreeze, factors, per_epoch = 5, 0.5, (1, 3), (1.0, 0.3, 0.1), 4
    rates = layer_scales(layers, decay, unfreeze, factors, per_epoch)
    at = jax.jit(rates.at)
    for step in range(20):
        epoch = step // per_epoch
        stage = 0 if epoch < 1 else 1 if epoch < 3 else 2
        learns = {0: [5], 1: [5, 4, 3, 2], 2: [5, 4, 3, 2, 1, 0]}[stage]  # blocks of 3 and 2 layers
        expected = [0.5 ** (5 - layer) * factors[stage] if layer in learns else 0 for layer in range(6)]
        np.testing.assert_allclose(at(step), expected, rtol=1e-6)


def test_neutral_rates_are_exactly_one():
    rates = layer_scales(7)
    assert (np.asarray(rates.at(jnp.int32(0))) == 1).all() and rates.stage_start.shape == (STAGES,)


def test_one_factor_holds_for_all_stages():
    rates = layer_scales(2, unfreeze=(1,), stage_factors=(0.25,))
    np.testing.assert_array_equal(rates.at(jnp.int32(0)), [0, 0, 0.25])
    np.testing.assert_array_equal(rates.at(jnp.int32(1)), [0.25] * 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decay": 0.0}, "layer_rate: 0 is not above 0"),
        ({"unfreeze": (3, 1)}, "'3-1' is not a list of epochs from 0 that go up"),
        ({"unfreeze": (-1,)}, "from 0"),
        ({"unfreeze": tuple(range(8))}, "8 epochs are more than 7"),
        ({"unfreeze": (1, 2, 3, 4)}, "4 blocks of layers, but the network has 3"),
        ({"unfreeze": (1,), "stage_factors": (1.0, 0.1, 0.1)}, "3 factors for 2 stages"),
        ({"stage_factors": (0.0,)}, "not above 0"),
    ],
)
def test_refused_stages(arguments, message):
    with pytest.raises(UsageError, match=message):
        layer_scales(3, **arguments)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet", "separable"])
def test_every_leaf_of_every_model_has_a_layer(name):
    model = MODELS[name](classes=3, widths=(8, 8))
    images = jnp.zeros((1, 8, 8, 1), jnp.uint8)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), images, False))["params"]
    layers = sum(name.startswith("norm_") for name in params)
    found = select_by_layer(params, layers, list(range(layers + 1)))
    assert found["head"]["kernel"] == layers
    for layer in range(layers):
        assert found[f"norm_{layer}"]["bias"] == layer
    with pytest.raises(UsageError, match=f"no layer of {layers - 1}"):
        select_by_layer(params, layers - 1, range(layers))
