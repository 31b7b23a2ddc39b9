"""All models: parameter counts in closed form, affinity, static against traced components, a golden step each."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.models import MODELS
from fishnet.models.network import at
from fishnet.nn.activations import ACTIVATIONS, identity, relu
from fishnet.nn.convolution import gemm
from fishnet.nn.initializers import INITIALIZERS
from fishnet.nn.norms import KINDS, NORMS, BatchNorm, NoNorm, NormByKind
from fishnet.nn.pooling import mean_pool

SIZE, CLASSES = 9, 5
IMAGES = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3)).astype(np.uint8)
LABELS = jnp.arange(4) % CLASSES
CONSTANTS = {"standardize": {"mean": jnp.full(3, 128.0), "std": jnp.full(3, 74.0)}}
WIDTHS = (8, 16)
PAIRS = [(m, n) for m in MODELS for n in NORMS if (m, n) != ("mlp", "instance")]


def build(name, **fields):
    return MODELS[name](**{"classes": CLASSES, "widths": WIDTHS, "depth": 1, "conv": gemm, **fields})


def initial(model, images=IMAGES):
    """Variables of `model`: normal kernels of variance 2 / fan in, other parameters at rest, the images' constants."""
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        if leaf.ndim > 1:
            return jnp.asarray(rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1])), jnp.float32)
        return jnp.full(leaf.shape, path[-1].key in ("scale", "var"), jnp.float32)

    return {**jax.tree_util.tree_map_with_path(fill, shapes(model, images)), "constants": CONSTANTS}


def shapes(model, images=IMAGES):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images, False))


def size(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def mlp_count(widths, depth, per_norm, bias):
    total, before = 0, SIZE * SIZE * 3
    for width in (w for w in widths for _ in range(depth)):
        total, before = total + (before + per_norm + bias) * width, width
    return total + (before + 1) * CLASSES


def cnn_count(widths, depth, per_norm, bias):
    total, before = 0, 3
    for width in (w for w in widths for _ in range(depth)):
        total, before = total + (9 * before + per_norm + bias) * width, width
    return total + (before + 1) * CLASSES


def resnet_count(widths, depth, per_norm, bias):
    extra = per_norm + bias
    total, before = (9 * 3 + extra) * widths[0], widths[0]
    for stage, width in enumerate(widths):
        for block in range(depth):
            total += (9 * before + extra) * width + (9 * width + extra) * width
            if before != width or (stage and not block):
                total += (before + extra) * width
            before = width
    return total + (before + 1) * CLASSES


def separable_count(widths, depth, per_norm, bias):
    extra = per_norm + bias
    total, before = (9 * 3 + extra) * widths[0], widths[0]
    for width in (w for w in widths for _ in range(depth)):
        total, before = total + (9 + extra) * before + (before + extra) * width, width
    return total + (before + 1) * CLASSES


COUNTS = {"mlp": mlp_count, "cnn": cnn_count, "resnet": resnet_count, "separable": separable_count}


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts(name):
    for widths, depth in (((16, 24), 1), ((16, 24), 2), ((16, 16, 8), 1), ((8,), 3)):
        for norm, per_norm, position, bias in ((NoNorm, 1, "post", 1), (BatchNorm, 2, "pre", 0)):
            model = build(name, widths=widths, depth=depth, norm=norm, norm_position=position)
            assert size(shapes(model)["params"]) == COUNTS[name](widths, depth, per_norm, bias)


@pytest.mark.parametrize("position", ["pre", "post"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_affine_without_its_nonlinear_parts(name, position):
    model = build(name, act=identity, norm=NoNorm, pool=mean_pool, norm_position=position)
    variables = initial(model)
    # Biases start at 0, where an activation that was forgotten could pass as linear on one side.
    rng = np.random.default_rng(2)
    variables["params"] = jax.tree.map(
        lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32) if p.ndim == 1 else p, variables["params"]
    )
    f = jax.jit(lambda x: model.apply(variables, x, True))
    x, y = (jnp.asarray(IMAGES[i : i + 2], jnp.float32) for i in (0, 2))
    whole, parts = f(0.3 * x + 0.7 * y), 0.3 * f(x) + 0.7 * f(y)
    np.testing.assert_allclose(whole, parts, atol=1e-5 * float(jnp.abs(parts).max()))


@functools.cache
def traced_step(name):
    """One program for all norms: `f(kind, variables)` -> logits, gradients, new statistics, logits in evaluation."""

    @jax.jit
    def step(kind, variables):
        return train_step(build(name, norm=NormByKind(kind)), variables)

    return step


def train_step(model, variables):
    def loss(params):
        logits, new = model.apply({**variables, "params": params}, IMAGES, True, mutable=["batch_stats"])
        return cross_entropy(logits), (logits, new)

    (_, (logits, new)), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    return logits, grads, new, model.apply(variables, IMAGES, False)


@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_static_and_traced_norms_are_equal_and_finite(name, norm):
    static, kind = build(name, norm=NORMS[norm]), jnp.int32(KINDS.index(norm))
    variables = initial(build(name, norm=NormByKind(kind)))
    picked = jax.tree_util.tree_map_with_path(lambda path, _: at_path(variables, path), shapes(static))
    logits, grads, new, evaluated = traced_step(name)(kind, variables)
    assert logits.shape == (4, CLASSES) and logits.dtype == jnp.float32
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((logits, grads, new, evaluated)))
    assert norm != "none" or all((grads[site]["scale"] == 0).all() for site in grads if site.startswith("norm"))
    if name == "cnn":
        expected, expected_grads, _, expected_evaluated = jax.jit(partial(train_step, static))(picked)
        scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected_grads))
        for path, leaf in jax.tree_util.tree_leaves_with_path(expected_grads):
            np.testing.assert_allclose(at_path(grads, path), leaf, atol=1e-5 * scale)
    else:
        both = jax.jit(lambda v: [static.apply(v, IMAGES, t, mutable=["batch_stats"])[0] for t in (True, False)])
        expected, expected_evaluated = both(picked)
    for ours, theirs in ((logits, expected), (evaluated, expected_evaluated)):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1, float(jnp.abs(theirs).max())))


def at_path(tree, path):
    for key in path:
        tree = tree[key.key]
    return tree


def cross_entropy(logits):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), LABELS[:, None], 1).mean()


# Loss, norm of the gradient, loss after a step of length 0.1 down the gradient. Written down at the first version that
# passed everything else here (jax 0.10.1, CPU); they change only when the meaning of a model does.
GOLDEN = {
    "mlp": (1.754457, 6.898035, 1.442121),
    "cnn": (1.885242, 3.226962, 1.609249),
    "resnet": (2.037960, 2.077320, 1.841896),
    "separable": (2.591260, 4.234395, 2.208286),
}


@pytest.mark.parametrize("name", MODELS)
def test_golden_step(name):
    kind = jnp.int32(KINDS.index("batch"))
    variables = initial(build(name, norm=NormByKind(kind)))
    logits, grads, _, _ = traced_step(name)(kind, variables)
    norm = jnp.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grads)))
    moved = jax.tree.map(lambda p, g: p - 0.1 * g / norm, variables["params"], grads)
    after, _, _, _ = traced_step(name)(kind, {**variables, "params": moved})
    found = cross_entropy(logits), norm, cross_entropy(after)
    np.testing.assert_allclose(found, GOLDEN[name], rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_every_activation_is_used(name):
    variables = initial(build(name))

    @jax.jit
    def logits(index):
        act = partial(jax.lax.switch, index, list(ACTIVATIONS.values()))
        return build(name, act=act).apply(variables, loud, False)

    loud = 4.0 * IMAGES  # so that some pre-activations are above 6
    outputs = [logits(i) for i in range(len(ACTIVATIONS))]
    for i, (activation, a) in enumerate(zip(ACTIVATIONS, outputs, strict=True)):
        assert jnp.isfinite(a).all() or activation == "exponential"  # exp of exp overflows
        assert all((a != b).any() for b in outputs[:i])


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_keeps_parameters_and_logits_in_float32(name):
    model = build(name, dtype=jnp.bfloat16)
    variables = initial(model)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    logits, grads, new, _ = jax.eval_shape(partial(train_step, model), variables)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((logits, grads, new)))
    if name == "cnn":
        low, exact = (jax.jit(partial(m.apply, train=False))(variables, IMAGES) for m in (model, build(name)))
        np.testing.assert_allclose(low, exact, atol=0.05 * float(jnp.abs(exact).max()))


@pytest.mark.parametrize("name", ["mlp", "cnn"])  # the others drop where the cnn does
def test_dropout(name):
    variables = initial(build(name))

    def logits(rate, key, train=True):
        rngs = {"dropout": jax.random.key(key)}
        return build(name, dropout=rate).apply(variables, IMAGES, train, mutable=["batch_stats"], rngs=rngs)[0]

    static, traced = jax.jit(partial(logits, 0.5)), jax.jit(logits)
    without = jax.jit(partial(logits, 0.0))(0)
    assert (static(0) != without).any() and (static(0) != static(1)).any()
    np.testing.assert_allclose(traced(0.5, 0), static(0), atol=1e-5)
    np.testing.assert_allclose(traced(0.0, 0), without, atol=1e-5)
    assert (logits(0.5, 0, train=False) == logits(0.0, 0, train=False)).all()


@pytest.mark.parametrize(("name", "sites"), [("mlp", 2), ("cnn", 2), ("resnet", 6), ("separable", 5)])
def test_norms_at_some_sites_only(name, sites):
    for where in range(sites):
        norms = [BatchNorm if site == where else NoNorm for site in range(sites)]
        variables = shapes(build(name, norm=norms))
        assert list(variables["batch_stats"]) == [f"norm_{where}"]
        assert [f"norm_{site}" in variables["params"] for site in range(sites + 1)] == [True] * sites + [False]
    with pytest.raises(UsageError, match=f"site {sites - 1}"):
        shapes(build(name, norm=[NoNorm] * (sites - 1)))


@pytest.mark.parametrize("name", ["resnet", "separable"])
def test_the_gemm_lowering_gives_what_xla_gives(name):
    variables = initial(build(name))
    models = build(name), build(name, conv=jax.lax.conv_general_dilated)
    ours, native = (jax.jit(partial(model.apply, train=False))(variables, IMAGES) for model in models)
    np.testing.assert_allclose(ours, native, atol=1e-5 * float(jnp.abs(native).max()))


def test_images_as_bytes_or_floats():
    variables = initial(build("cnn"))
    apply = jax.jit(partial(build("cnn").apply, train=False))
    assert (apply(variables, IMAGES) == apply(variables, IMAGES.astype(np.float32))).all()


def test_maps_stop_shrinking():
    variables = shapes(build("cnn", widths=(8,) * 6))
    assert "conv_5" in variables["params"]


def test_stem_stride():
    model = build("resnet", stem_stride=2)
    assert size(shapes(model)["params"]) == size(shapes(build("resnet"))["params"])
    assert jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), IMAGES, False))[0].shape == (4, CLASSES)


@pytest.mark.parametrize("name", MODELS)
def test_the_initialiser_reaches_every_kernel(name):
    model = build(name, kernel_init=lambda key, shape, dtype: jnp.full(shape, 7.0, dtype))
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), IMAGES)
    assert all((leaf == 7).all() for leaf in jax.tree.leaves(variables["params"]) if leaf.ndim > 1)
    at_rest = initial(model)["params"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        assert leaf.ndim > 1 or (leaf == at_path(at_rest, path)).all()
    assert build(name).kernel_init is INITIALIZERS["he_normal"]


def test_refusals():
    with pytest.raises(UsageError, match="pre, post, got 'middle'"):
        shapes(build("cnn", norm_position="middle"))
    with pytest.raises(UsageError, match="channels"):
        shapes(build("cnn"), images=IMAGES[0])
    with pytest.raises(UsageError, match="variance is zero"):
        shapes(build("mlp", norm=NORMS["instance"]))
    with pytest.raises(UsageError, match="8 groups, 12 channels"):
        shapes(build("cnn", widths=(8, 12), norm=NORMS["group"]))


def test_at():
    assert at(relu, 3) is relu
    assert at([relu, identity], 1) is identity
