"""Every model with every activation and every norm: chosen by traced numbers, and as static components."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.models import MODELS
from fishnet.nn.activations import ACTIVATIONS, prelu, relu
from fishnet.nn.mixed_activation import ActivationByIndex
from fishnet.nn.norm_formulas import KINDS
from fishnet.nn.norms import NORMS, NormByKind

CLASSES = 5
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3)).astype(np.uint8)
CONSTANTS = {"standardize": {"mean": np.full(3, 128, np.float32), "std": np.full(3, 74, np.float32)}}
FUNCTIONS = tuple(ACTIVATIONS.values())
# Each is a large program; how a network takes its components shows in the first two.
NAMES = [name if name in ("mlp", "cnn") else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]


def build(name, **fields):
    own = {"experts": (1, 3)} if name == "hybrid" else {}
    return MODELS[name](classes=CLASSES, widths=(8,), depth=1, **own, **fields)


def shapes(model):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES, False))


def initial(model, gain=1.0):
    """Variables of `model`: normal kernels of variance 2 gain^2 / fan in, scales of `gain`, the rest at rest."""
    rng = np.random.default_rng(1)
    rest = {"scale": gain, "var": 1.0, "slope": 0.25}

    def fill(path, leaf):
        if leaf.ndim > 1:
            std = gain * np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return (rng.normal(size=leaf.shape) * std).astype(np.float32)
        return np.full(leaf.shape, rest.get(path[-1].key, 0.0), np.float32)

    return {**jax.tree_util.tree_map_with_path(fill, shapes(model)), "constants": CONSTANTS}


def compiled(f, *args):
    """`f(*args)` as a program that is quickly made, for it runs little."""
    return jax.jit(f).lower(*args).compile(compiler_options={"xla_backend_optimization_level": 0})


def mixed(name, kind, index):
    return build(name, norm=NormByKind(kind), act=ActivationByIndex(FUNCTIONS, index))


@functools.cache
def mixed_step(name):
    """One program for all norms and activations: `f(kind, index, variables)` -> logits, scales' gradient, finite."""

    def loss(params, kind, index, variables):
        given, rngs = {**variables, "params": params}, {"activation": jax.random.key(0)}
        logits, _ = mixed(name, kind, index).apply(given, IMAGES, True, mutable=["batch_stats"], rngs=rngs)
        return -jax.nn.log_softmax(logits)[:, 0].mean(), logits

    def step(kind, index, variables):
        slope = jax.value_and_grad(loss, has_aux=True)
        (value, logits), grads = slope(variables["params"], kind, index, variables)
        scales = [jnp.abs(grads[site]["scale"]).sum() for site in grads if site.startswith("norm_")]
        return logits, sum(scales), jnp.isfinite(value + sum(jnp.abs(g).sum() for g in jax.tree.leaves(grads)))

    index = np.int32(0)
    return compiled(step, index, index, initial(mixed(name, 0, 0)))


@pytest.mark.parametrize("name", NAMES)
def test_every_activation_with_every_norm_is_finite(name):
    # Small kernels and scales, for `exponential` of `exponential` is soon infinite.
    variables, norms = initial(mixed(name, 0, 0), 0.25), [n for n in KINDS if (name, n) != ("mlp", "instance")]
    for norm, (index, activation) in itertools.product(norms, enumerate(ACTIVATIONS)):
        logits, scales, finite = mixed_step(name)(np.int32(KINDS.index(norm)), np.int32(index), variables)
        assert finite, (activation, norm)
        assert logits.shape == (2, CLASSES) and logits.dtype == jnp.float32
        assert scales == 0 or norm != "none", activation


@pytest.mark.parametrize("name", NAMES)
def test_every_activation_is_used(name):
    variables = initial(mixed(name, 0, 0))
    for site, leaves in variables["params"].items():
        if site.startswith("norm_"):  # so that some channels are above 6 and some below 0
            leaves["scale"], leaves["bias"] = leaves["scale"] * 3, np.resize(np.float32([5, -1]), leaves["bias"].shape)
    batch = np.int32(KINDS.index("batch"))
    outputs = [np.asarray(mixed_step(name)(batch, np.int32(i), variables)[0]) for i in range(len(ACTIVATIONS))]
    for i, a in enumerate(outputs):
        assert all((a != b).any() for b in outputs[:i]), list(ACTIVATIONS)[i]


@pytest.mark.parametrize("name", NAMES)
def test_static_norms_and_activations_give_what_traced_ones_give(name):
    # The kinds differ in `fishnet.nn`; here it is their way into dense layers and convolutions, and that of slopes.
    # The dense layers have eight units, of which each group, like each instance, would be a single value.
    norms = {"mlp": [norm for norm in NORMS if norm not in ("instance", "group")], "cnn": list(NORMS)}.get(name, [])
    pairs = [(norm, relu) for norm in norms] + [("weight", prelu)]
    variables = initial(mixed(name, 0, 0))
    models = [build(name, norm=NORMS[norm], act=act) for norm, act in pairs]
    wanted = [shapes(model) for model in models]
    assert "slope" in str(wanted[-1]) and "slope" not in str(wanted[:-1])

    def statics(variables):
        picked = [jax.tree_util.tree_map_with_path(lambda path, _: at_path(variables, path), w) for w in wanted]
        given = zip(models, picked, strict=True)
        return [model.apply(v, IMAGES, True, mutable=["batch_stats"])[0] for model, v in given]

    for (norm, act), expected in zip(pairs, compiled(statics, variables)(variables), strict=True):
        logits, _, _ = mixed_step(name)(np.int32(KINDS.index(norm)), np.int32(FUNCTIONS.index(act)), variables)
        np.testing.assert_allclose(logits, expected, atol=1e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", NAMES)
def test_norms_of_the_weights_reach_the_kernel_of_every_site(name):
    variables = initial(mixed(name, 0, 0))
    params = variables["params"]
    longer = {site: {"kernel": 2 * params[site]["kernel"]} for site in params if site.startswith(("conv_", "dense_"))}
    given = variables, variables | {"params": params | longer}
    for norm in ("none", "weight", "weight_standardized"):
        kind, index = np.int32(KINDS.index(norm)), np.int32(FUNCTIONS.index(relu))
        short, long = (np.asarray(mixed_step(name)(kind, index, v)[0]) for v in given)
        assert np.allclose(short, long, atol=1e-5) == (norm != "none")


def at_path(tree, path):
    for key in path:
        tree = tree[key.key]
    return tree
