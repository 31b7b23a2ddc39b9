"""What is recorded of a forward pass, and in which order."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.models import MODELS
from fishnet.nn.activations import prelu, relu, tanh
from fishnet.nn.mixed_activation import ActivationByIndex
from fishnet.nn.norms import NORMS
from fishnet.probes import layer_names, record_forward, site_names
from tests.probes.conftest import IMAGES, mlp, variables_of


@pytest.fixture(scope="module")
def resnet():
    model = MODELS["resnet"](classes=3, widths=(8, 8), depth=1, se_reduction=4, act=ActivationByIndex((relu, prelu), 1))
    return model, variables_of(model, shape=(1, 8, 8, 3))


def test_layers_and_sites_come_in_order_of_execution(resnet):
    model, variables = resnet

    def run():
        return model.apply(variables, jnp.zeros((2, 8, 8, 3), jnp.uint8), train=False)

    block = ["conv_{0}", "norm_{0}", "act_{0}", "conv_{1}", "norm_{1}", "se_{1}/reduce", "se_{1}/act", "se_{1}/expand"]
    first, second = ([name.format(*sites) for name in block] for sites in ((1, 2), (3, 4)))
    expected = ["conv_0", "norm_0", "act_0", *first, "act_2_sum", *second, "conv_5", "norm_5", "act_4_sum", "head"]
    assert list(layer_names(run)) == expected
    assert site_names(run) == ("act_0", "act_1", "act_2_sum", "act_3", "act_4_sum")


def test_every_parameter_belongs_to_a_layer(resnet):
    model, variables = resnet
    names = layer_names(lambda: model.apply(variables, jnp.zeros((2, 8, 8, 3), jnp.uint8), train=False))
    paths = jax.tree_util.tree_leaves_with_path(variables["params"])
    assert {"/".join(key.key for key in path[:-1]) for path, _ in paths} == set(names)


@pytest.mark.parametrize("act", [tanh, prelu, ActivationByIndex((relu, tanh, prelu), 2)], ids=["plain", "own", "mixed"])
@pytest.mark.parametrize("position", ["pre", "post"])
def test_what_goes_in_and_out(act, position):
    model = mlp(act=act, norm="batch", norm_position=position)
    variables = variables_of(model)
    seen = record_forward(lambda: model.apply(variables, IMAGES, train=False))
    np.testing.assert_array_equal(seen.result, model.apply(variables, IMAGES, train=False))
    for site in range(2):
        found, layer = seen.sites[f"act_{site}"], seen.outputs[f"{'norm' if position == 'pre' else 'dense'}_{site}"]
        np.testing.assert_array_equal(found.x, layer)
        learned = variables["params"].get(f"act_{site}", {})
        assert set(found.params) == set(learned) == (set() if act is tanh else {"slope"})
        slope = learned.get("slope", 0.0)
        expected = np.tanh(found.x) if act is tanh else np.where(found.x >= 0, found.x, slope * found.x)
        np.testing.assert_allclose(found.y, expected, atol=1e-6)
    last = seen.sites["act_1"].y if position == "pre" else seen.outputs["norm_1"]
    np.testing.assert_array_equal(seen.features, last)
    head = variables["params"]["head"]
    np.testing.assert_allclose(seen.features @ head["kernel"] + head["bias"], seen.result, atol=1e-5)


def test_what_is_recorded_may_leave_a_gradient_as_a_result():
    model = mlp()
    variables = variables_of(model)

    @jax.jit
    def gradient(params):
        def objective(params):
            seen = record_forward(lambda: model.apply({**variables, "params": params}, IMAGES, train=True))
            return seen.result.sum(), {name: site.y.mean() for name, site in seen.sites.items()}

        return jax.grad(objective, has_aux=True)(params)

    plain = jax.grad(lambda p: model.apply({**variables, "params": p}, IMAGES, train=True).sum())(variables["params"])
    grads, means = gradient(variables["params"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), grads, plain)
    seen = record_forward(lambda: model.apply(variables, IMAGES, train=False))
    np.testing.assert_allclose(means["act_1"], seen.sites["act_1"].y.mean(), rtol=1e-5)


class Other(nn.Module):
    """Any Linen module: with layers and without sites."""

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm(name="z")(nn.relu(nn.Dense(4, name="y")(x)))
        return nn.Dense(2, name="x")(x) * self.param("own", nn.initializers.ones, (2,))


def test_a_module_of_another_kind_has_layers():
    x = jnp.ones((3, 5))
    variables = Other().init(jax.random.key(0), x)
    seen = record_forward(lambda: Other().apply(variables, x))
    assert list(seen.outputs) == ["y", "z", "x", ""]
    assert seen.sites == {} and seen.features is None


def test_models_of_all_kinds_record_alike():
    for name, model in MODELS.items():
        fields = {"experts": (1,)} if name == "hybrid" else {}
        made = model(classes=3, widths=(8, 8), norm=NORMS["batch"], **fields)
        shapes = jax.eval_shape(lambda m=made: m.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), False))
        variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
        images = jnp.zeros((1, 8, 8, 3))
        layers = layer_names(lambda m=made, v=variables, i=images: m.apply(v, i, train=False))
        assert layers[-1] in ("head", "expert_head") and len(set(layers)) == len(layers)
        assert site_names(lambda m=made, v=variables, i=images: m.apply(v, i, train=False))
