"""Networks whose norms and activations are computed by the compiled block that they end in: the same to rounding."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.models import MODELS
from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.cpu.deferred import DeferredMaps
from fishnet.nn.mixed_activation import ActivationByIndex
from fishnet.nn.norms import KINDS, NORMS, NormByKind
from fishnet.nn.pooling import mean_pool
from fishnet.probes.recording import record_forward

pytestmark = pytest.mark.usefixtures("kernels")
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 13, 10, 3)).astype(np.uint8)
FUNCTIONS = tuple(ACTIVATIONS[name] for name in ("relu", "elu", "gelu", "prelu"))
GROUP = NormByKind(jnp.int32(KINDS.index("group")), groups=4, pixels=False)
CASES = {
    "cnn": ("cnn", GROUP, ActivationByIndex(FUNCTIONS, jnp.int32(3)), {}),
    "cnn, random slopes": ("cnn", NORMS["batch"], ActivationByIndex((*FUNCTIONS, ACTIVATIONS["rrelu"]), 4), {}),
    "cnn, mean pooling": ("cnn", NORMS["none"], ACTIVATIONS["elu"], {"pool": mean_pool}),
    "cnn, norm behind": ("cnn", NORMS["batch"], ACTIVATIONS["relu"], {"norm_position": "post"}),
    "cnn, norm of pixels": ("cnn", NORMS["layer_channel"], ACTIVATIONS["relu"], {}),
    "cnn, norm of weights": ("cnn", NORMS["weight"], ACTIVATIONS["silu"], {}),
    "resnet": ("resnet", NORMS["batch"], ActivationByIndex(FUNCTIONS, jnp.int32(1)), {}),
    "resnet, preactivation": ("resnet", NORMS["layer"], ACTIVATIONS["prelu"], {"block": "preactivation"}),
    "separable": ("separable", GROUP, ACTIVATIONS["elu"], {}),
    "efficientnet": ("efficientnet", NORMS["instance"], ACTIVATIONS["silu"], {"se_reduction": 0}),
    "hybrid": ("hybrid", NORMS["batch"], ACTIVATIONS["relu"], {"experts": (0, 2)}),
}


def model(name: str, **fields):
    kind, norm, act, more = CASES[name]
    return MODELS[kind](classes=4, widths=(8, 20), norm=norm, act=act, **more, **fields)


def results(model, train: bool):
    """Logits, new statistics and gradients."""
    variables = model.init(jax.random.key(0), IMAGES, train=False)
    keys = {"activation": jax.random.key(1), "dropout": jax.random.key(2)}

    def loss(params):
        given = {**variables, "params": params}
        logits, changed = model.apply(given, IMAGES, train=train, mutable=["batch_stats"], rngs=keys)
        return jnp.square(logits).sum() + logits[:, 0].sum(), (logits, changed)

    return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])


@pytest.mark.parametrize(
    "train", [pytest.param(True, id="train"), pytest.param(False, id="eval", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "name", [name if name in MODELS else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_fused_networks_equal_plain_ones(name, train):
    fused, plain = results(model(name, fused=True), train), results(model(name), train)
    for one, other in zip(jax.tree.leaves(fused), jax.tree.leaves(plain), strict=True):
        assert np.abs(one - other).max() < 3e-5 * (np.abs(other).max() + 1e-2)


def test_recordings_hold_arrays_and_the_same_numbers():
    variables = model("resnet").init(jax.random.key(0), IMAGES, train=False)
    fused, plain = (
        jax.jit(lambda net=net: record_forward(lambda: net.apply(variables, IMAGES, train=False))._replace(sites={}))()
        for net in (model("resnet", fused=True), model("resnet"))
    )
    assert fused.outputs.keys() == plain.outputs.keys()
    for one, other in zip(jax.tree.leaves(fused), jax.tree.leaves(plain), strict=True):
        assert np.abs(one - other).max() < 1e-5 * np.abs(other).max()


def test_layers_hand_on_deferred_maps():
    """Otherwise nothing would be fused, and every other test here would pass."""
    seen = {}

    def watch(method, args, kwargs, context):
        y = method(*args, **kwargs)
        if context.method_name.startswith(("apply_", "conv_")):
            seen.setdefault(context.method_name, []).append(isinstance(y, DeferredMaps))
        return y

    net = model("separable", fused=True)
    variables = net.init(jax.random.key(0), IMAGES, train=False)
    with nn.intercept_methods(watch):
        net.apply(variables, IMAGES, train=False)
    assert all(seen["apply_conv"]) and all(seen["conv_norm_act"]) and len(seen["conv_norm_act"]) == 5
    assert not any(seen["apply_pool"]) and len(seen["apply_pool"]) == 2
