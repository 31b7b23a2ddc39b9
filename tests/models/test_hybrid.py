"""The expert changes the logits of the hard classes only, by what is written out here, and shares the trunk."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.models import CNN, Hybrid
from fishnet.nn.dropout import Dropout

CLASSES, EXPERTS = 6, (4, 1)
OTHERS = [i for i in range(CLASSES) if i not in EXPERTS]
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3)).astype(np.uint8)
FIELDS = {"classes": CLASSES, "widths": (8, 12), "depth": 1}
MODEL, TRUNK = Hybrid(**FIELDS, experts=EXPERTS), CNN(**FIELDS)


def variables():
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: MODEL.init(jax.random.key(0), IMAGES, False))
    filled = jax.tree.map(lambda leaf: (0.1 + rng.uniform(size=leaf.shape)).astype(np.float32), shapes)
    return filled | {"constants": {"standardize": {"mean": np.full(3, 99, np.float32), "std": np.float32([50] * 3)}}}


def by_hand(v, maps):
    """The expert's share of the logits [b, expert] from the trunk's maps, in NumPy."""
    kernel, own, running = v["params"]["conv_2"]["kernel"], v["params"]["norm_2"], v["batch_stats"]["norm_2"]
    h, w = maps.shape[1:3]
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = sum(padded[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(3) for j in range(3))
    x = np.maximum(0, (x - running["mean"]) / np.sqrt(running["var"] + 1e-5) * own["scale"] + own["bias"])
    return x.mean((1, 2)) @ v["params"]["expert_head"]["kernel"] + v["params"]["expert_head"]["bias"]


def test_the_expert_corrects_hard_classes_only():
    v = variables()

    def passes(v):
        maps = MODEL.clone(headless=True).apply(v, IMAGES, False)
        of_others = jax.grad(lambda p: MODEL.apply(v | {"params": p}, IMAGES, False)[:, np.array(OTHERS)].sum())
        apart = TRUNK.apply(v, IMAGES, False), TRUNK.clone(headless=True).apply(v, IMAGES, False)
        return MODEL.apply(v, IMAGES, False), maps, apart, of_others(v["params"])

    program = jax.jit(passes).lower(v).compile(compiler_options={"xla_backend_optimization_level": 0})
    logits, maps, (general, trunk_maps), slopes = jax.tree.map(np.asarray, program(v))
    np.testing.assert_allclose(maps, trunk_maps, rtol=1e-6)
    np.testing.assert_allclose(logits[:, OTHERS], general[:, OTHERS], rtol=1e-6)
    np.testing.assert_allclose(logits[:, EXPERTS], general[:, EXPERTS] + by_hand(v, maps), rtol=1e-4)
    for name in ("conv_2", "norm_2", "expert_head"):
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(slopes[name])), name
    assert (slopes["conv_0"]["kernel"] != 0).any()


def test_the_expert_is_dropped_from_as_the_head_is():
    seen = []

    def record(method, args, kwargs, context):
        seen.append((context.module.name, type(context.module)))
        return method(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(lambda: MODEL.init(jax.random.key(0), IMAGES, False))
    assert [name for name, kind in seen if kind is Dropout] == ["dropout_head", "dropout_expert"]


def test_without_head_there_is_no_expert():
    shapes = jax.eval_shape(lambda: MODEL.clone(headless=True).init(jax.random.key(0), IMAGES, False))
    assert set(shapes["params"]) == {"conv_0", "conv_1", "norm_0", "norm_1"}


@pytest.mark.parametrize(
    ("experts", "match"),
    [
        ((), "one class or more"),
        ((6,), "class 6, but"),
        ((-1,), "class -1, but"),
        ((1, 2, 1), "class 1 is given twice"),
    ],
)
def test_experts_that_make_no_sense_are_refused(experts, match):
    with pytest.raises(UsageError, match=match):
        jax.eval_shape(lambda: MODEL.clone(experts=experts).init(jax.random.key(0), IMAGES, False))
