"""Non-finite values that were planted are found in the layer and phase where they began."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.losses import cross_entropy
from fishnet.nn.activations import identity
from fishnet.probes import layer_names, record_forward
from fishnet.probes.failures import PHASES, failure_text, finite_outputs, first_failure
from tests.probes.conftest import IMAGES, LABELS, mlp, variables_of

MODEL = mlp(act=identity, norm="batch", widths=(5, 4, 3))
VARIABLES = variables_of(MODEL)
LAYERS = layer_names(lambda: MODEL.apply(VARIABLES, IMAGES, train=False))


@jax.jit
def failure_of(params, factor=1.0, inward=1.0):
    """Of a step whose loss is multiplied by `factor`, and the gradient behind the second layer by `inward`."""

    def objective(params):
        seen = record_forward(lambda: MODEL.apply({**VARIABLES, "params": params}, IMAGES, train=False))
        loss = factor * cross_entropy(seen.result, LABELS).mean()
        return loss, finite_outputs(seen.outputs, LAYERS)

    (loss, outputs), grads = jax.value_and_grad(objective, has_aux=True)(params)
    grads = {**grads, "dense_0": jax.tree.map(lambda g: g * inward, grads["dense_0"])}
    return first_failure(params, outputs, loss, grads, LAYERS)


def text_of(failure):
    return failure_text(int(failure.phase), int(failure.layer), LAYERS)


def kernel_layers(layer, value):
    kernel = VARIABLES["params"][layer]["kernel"]
    return {**VARIABLES["params"], layer: {**VARIABLES["params"][layer], "kernel": kernel.at[0, 0].set(value)}}


def test_a_sound_step_has_none():
    assert text_of(failure_of(VARIABLES["params"])) == (None, None)


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("layer", ["dense_0", "dense_2", "head"])
def test_parameters_that_an_update_has_spoilt(layer, value):
    """Whatever follows from them in later layers, and however the leaves are sorted."""
    assert text_of(failure_of(kernel_layers(layer, value))) == ("update", layer)


def test_the_first_of_several_layers():
    params = kernel_layers("dense_2", jnp.nan) | {"head": kernel_layers("head", jnp.nan)["head"]}
    assert text_of(failure_of(params)) == ("update", "dense_2")


def test_an_output_that_overflows():
    params = VARIABLES["params"]
    huge = {**params, "dense_1": {"kernel": params["dense_1"]["kernel"] * 1e38}}
    huge["norm_0"] = {**params["norm_0"], "scale": params["norm_0"]["scale"] * 100}
    assert text_of(failure_of(huge)) == ("forward", "dense_1")


def test_a_loss_that_overflows():
    assert text_of(failure_of(VARIABLES["params"], factor=jnp.inf)) == ("loss", None)


def test_a_gradient_that_overflows_on_the_way_back():
    assert text_of(failure_of(VARIABLES["params"], inward=jnp.inf)) == ("backward", "dense_0")
    # Finite, but its length is not: that too is what stops training.
    assert text_of(failure_of(VARIABLES["params"], inward=1e30)) == ("backward", "dense_0")


def one_step(norms, outputs=(True, True, True), loss=1.0):
    layers = ("c", "a", "b")
    grads = {name: {"kernel": jnp.float32([norm])} for name, norm in zip(layers, norms, strict=True)}
    params = jax.tree.map(jnp.zeros_like, grads)
    found = first_failure(params, jnp.array(outputs), jnp.float32(loss), grads, layers)
    return failure_text(int(found.phase), int(found.layer), layers)


def test_order_of_execution():
    nan = np.nan
    assert one_step([nan, nan, nan]) == ("backward", "b")
    assert one_step([nan, nan, 1.0]) == ("backward", "a")
    assert one_step([nan] * 3, outputs=(True, False, False), loss=nan) == ("forward", "a")
    assert one_step([nan] * 3, loss=nan) == ("loss", None)
    # Each length is finite, that of all together is not.
    assert one_step([1.2e19, 1.8e19, 1.0]) == ("backward", "a")


def test_phases_are_in_the_order_in_which_they_happen():
    assert PHASES == ("update", "forward", "loss", "backward")
    assert finite_outputs({"a": jnp.ones(2)}, ("a", "b")).all()
