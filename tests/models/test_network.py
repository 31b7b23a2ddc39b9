"""What all models share: dropout, Monte-Carlo passes, statistics of the batch in evaluation, the norm of the input."""

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.models import CNN, MLP, EfficientNet, ResNet
from fishnet.nn.activations import rrelu
from fishnet.nn.norm_formulas import KINDS
from fishnet.nn.norms import NoNorm, NormByKind

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3)).astype(np.uint8)
KEYS = [jax.random.key(i) for i in range(2)]


def build(kind, **fields):
    return kind(**{"classes": 5, "widths": (8,), "depth": 1, **fields})


def variables_of(model):
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: model.init(KEYS[0], IMAGES, False))

    def fill(path, leaf):
        if leaf.ndim > 1:
            return (rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))).astype(np.float32)
        return np.full(leaf.shape, {"scale": 1, "var": 1, "mean": 128, "std": 74}.get(path[-1].key, 0), np.float32)

    filled = jax.tree_util.tree_map_with_path(fill, shapes)
    filled["batch_stats"] = jax.tree.map(lambda leaf: leaf % 128, filled.get("batch_stats", {}))
    return jax.tree.map(jnp.asarray, filled)


def compiled(f, *args):
    return jax.jit(f).lower(*args).compile(compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize("kind", [MLP, CNN])  # the others drop where the cnn does
def test_dropout(kind):
    variables = variables_of(build(kind, widths=(8, 8)))

    def logits(rate, key, train=True):
        model = build(kind, widths=(8, 8), dropout=rate)
        return model.apply(variables, IMAGES, train, mutable=["batch_stats"], rngs={"dropout": key})[0]

    def all_rates(rate, key):
        return logits(rate, key), logits(0.5, key), logits(0.0, key), logits(0.5, key, False), logits(0.0, key, False)

    program = compiled(all_rates, np.float32(0), KEYS[0])
    traced, static, without, evaluated, evaluated_without = program(np.float32(0.5), KEYS[0])
    np.testing.assert_allclose(traced, static, atol=1e-5)
    assert (np.asarray(static) != without).any() and (np.asarray(static) != program(np.float32(0.5), KEYS[1])[1]).any()
    np.testing.assert_allclose(program(np.float32(0), KEYS[0])[0], without, atol=1e-5)
    np.testing.assert_array_equal(evaluated, evaluated_without)


RANDOM = {"dropout": 0.5, "dropout_layers": ("dense", "input", "blocks")}


@pytest.mark.parametrize(
    ("kind", "fields"), [(MLP, {}), (ResNet, {"stochastic_depth": 0.5}), (EfficientNet, {"stochastic_depth": 0.5})]
)
def test_a_monte_carlo_pass_drops_as_in_training(kind, fields):
    model = build(kind, norm=NoNorm, **RANDOM, **fields)
    variables = variables_of(model)

    def logits(key):
        passes = [(model.clone(monte_carlo=True), False), (model, True), (model, False)]
        return [m.apply(variables, IMAGES, train, rngs={"dropout": key}) for m, train in passes]

    program = compiled(logits, KEYS[0])
    (sampled, trained, evaluated), (other, _, evaluated_again) = (jax.tree.map(np.asarray, program(k)) for k in KEYS)
    np.testing.assert_allclose(sampled, trained, atol=1e-5)
    assert (sampled != other).any() and (sampled != evaluated).any()
    np.testing.assert_array_equal(evaluated, evaluated_again)


def test_activations_are_not_random_in_a_monte_carlo_pass():
    model = build(CNN, act=rrelu, monte_carlo=True, se_reduction=4, **RANDOM)
    variables = variables_of(model)
    rngs = {"dropout": KEYS[0]}
    jax.eval_shape(lambda: model.apply(variables, IMAGES, False, rngs=rngs))
    with pytest.raises(flax.errors.InvalidRngError, match="activation"):
        jax.eval_shape(lambda: model.apply(variables, IMAGES, True, mutable=["batch_stats"], rngs=rngs))
    with pytest.raises(flax.errors.InvalidRngError, match="dropout"):
        jax.eval_shape(lambda: model.apply(variables, IMAGES, False))


@pytest.mark.parametrize("input_norm", ["standardize", "batch"])
def test_statistics_of_the_batch_in_evaluation(input_norm):
    fields = {"widths": (8, 8), "input_norm": input_norm}
    model = build(CNN, batch_statistics=True, dropout=0.5, act=rrelu, **fields)
    variables = variables_of(model)

    def passes(variables):
        frozen = model.apply(variables, IMAGES, False)  # no streams: nothing is random
        moved = model.apply(variables, IMAGES, False, mutable=["batch_stats"])
        # rrelu draws in training, so that the reference is a plain model with its mean slope.
        plain = build(CNN, act=lambda x: rrelu(x), **fields)
        return frozen, moved, plain.apply(variables, IMAGES, True, mutable=["batch_stats"])

    frozen, (logits, moved), (trained, expected) = compiled(passes, variables)(variables)
    np.testing.assert_allclose(frozen, trained, atol=1e-5)
    np.testing.assert_allclose(logits, trained, atol=1e-5)
    for found, wanted in zip(jax.tree.leaves(moved), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        assert (np.asarray(found) != 0).all() and (np.asarray(found) != 1).all()


def test_running_statistics_that_are_precise_leave_no_gap():
    traced = NormByKind(jnp.int32(KINDS.index("batch")))
    model = build(CNN, batch_statistics=True, norm=traced)
    variables = variables_of(model)

    def gap(variables):
        """Between evaluation by the batch's own statistics and by running ones, at first and after 200 estimates."""

        def estimate(_, stats):
            return model.apply(variables | {"batch_stats": stats}, IMAGES, False, mutable=["batch_stats"])[1][
                "batch_stats"
            ]

        precise = jax.lax.fori_loop(0, 200, estimate, variables["batch_stats"])
        plain = model.clone(batch_statistics=False)
        own = model.apply(variables, IMAGES, False)
        return [
            jnp.abs(plain.apply(variables | {"batch_stats": s}, IMAGES, False) - own).max()
            for s in (precise, variables["batch_stats"])
        ]

    after, before = compiled(gap, variables)(variables)
    assert after < 1e-5 and before > 0.01


def test_training_without_mutable_statistics_is_still_refused():
    model = build(CNN, batch_statistics=True)
    variables = variables_of(model)
    with pytest.raises(flax.errors.ModifyScopeVariableError):
        jax.eval_shape(lambda: model.apply(variables, IMAGES, True))


def test_the_norm_of_the_input():
    model = build(CNN, input_norm="batch")
    variables = variables_of(model)
    assert set(variables["params"]["input_norm"]) == {"scale", "bias"} and "constants" not in variables
    pixels = IMAGES.reshape(-1, 3).astype(np.float64)
    constants = {"mean": pixels.mean(0), "std": np.sqrt(pixels.var(0) + 1e-5)}
    known = variables | {"constants": {"standardize": {k: v.astype(np.float32) for k, v in constants.items()}}}
    # Scale and shift act as the same on standardised images would: the first kernel takes them up.
    scaled = jax.tree.map(np.copy, variables)
    scaled["params"]["input_norm"]["scale"] *= 2
    known["params"] = known["params"] | {"conv_0": {"kernel": 2 * known["params"]["conv_0"]["kernel"]}}

    def passes(variables, known):
        logits, new = model.apply(variables, IMAGES, True, mutable=["batch_stats"])
        return logits, new, build(CNN).apply(known, IMAGES, True, mutable=["batch_stats"])[0]

    logits, new, expected = compiled(passes, scaled, known)(scaled, known)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    np.testing.assert_allclose(new["batch_stats"]["input_norm"]["mean"], 0.1 * pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(new["batch_stats"]["input_norm"]["var"], 0.9 + 0.1 * pixels.var(0), rtol=1e-5)


def test_the_norm_of_the_input_is_in_the_dtype_of_the_computation():
    model = build(CNN, input_norm="batch", dtype=jnp.bfloat16, headless=True)
    maps, variables = jax.eval_shape(lambda: model.init_with_output(KEYS[0], IMAGES, False))
    assert maps.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_images_as_bytes_or_floats():
    model = build(MLP)
    variables, floats = variables_of(model), IMAGES.astype(np.float32)
    program = compiled(lambda v, *images: [model.apply(v, i, False) for i in images], variables, IMAGES, floats)
    np.testing.assert_array_equal(*program(variables, IMAGES, floats))


def test_refusals():
    def refused(match, images=IMAGES, kind=CNN, **fields):
        with pytest.raises(UsageError, match=match):
            jax.eval_shape(lambda: build(kind, **fields).init(KEYS[0], images, False))

    refused("pre, post, got 'middle'", norm_position="middle")
    refused("standardize, batch, got 'layer'", input_norm="layer")
    refused("channels", images=IMAGES[0])
    refused("channels", images=IMAGES[0], input_norm="batch")
    refused("an mlp has none", kind=MLP, se_reduction=4)
