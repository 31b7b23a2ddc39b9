"""Pre-activation and MBConv blocks, and where squeeze-and-excitation stands, against what is written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fishnet.errors import UsageError
from fishnet.models import CNN, EfficientNet, ResNet, Separable

IMAGES = np.random.default_rng(0).normal(size=(2, 7, 7, 3)).astype(np.float32)
WIDTHS = (8, 16)
BLOCKS = ("basic", "preactivation")


def random_variables(model, seed=1):
    """Every parameter and statistic drawn, so that none can be left out unseen."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        if leaf.ndim > 1:
            return (rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))).astype(np.float32)
        low, high = {"scale": (0.5, 1.5), "var": (0.5, 1.5), "std": (1, 1)}.get(path[-1].key, (-0.5, 0.5))
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES, False))
    return jax.tree_util.tree_map_with_path(fill, shapes) | {"constants": neutral()}


def neutral():
    return {"standardize": {"mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32)}}


def compiled(f, *args):
    """`f(*args)` as a program that is quickly made, for it runs once or twice."""
    return jax.jit(f).lower(*args).compile(compiler_options={"xla_backend_optimization_level": 0})


def run(f, *args):
    return jax.tree.map(np.asarray, compiled(f, *args)(*args))


def conv(x, kernel, stride=1, groups=1):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", None, None, layout, groups)


def convolved(v, x, site, stride=1, groups=1):
    return conv(x, v["params"][f"conv_{site}"]["kernel"], stride, groups)


def normed(v, x, site):
    own, running = v["params"][f"norm_{site}"], v["batch_stats"][f"norm_{site}"]
    return (x - running["mean"]) / jnp.sqrt(running["var"] + 1e-5) * own["scale"] + own["bias"]


def layer(v, x, site, stride=1, groups=1):
    return jax.nn.relu(normed(v, convolved(v, x, site, stride, groups), site))


def head(v, x):
    return x.mean((1, 2)) @ v["params"]["head"]["kernel"] + v["params"]["head"]["bias"]


def preactivation_net(v, x):
    a = carried = layer(v, x, 0)
    for first, second, stride in ((1, 2, 1), (3, 4, 1), (5, 6, 2), (7, 8, 1)):
        y = convolved(v, layer(v, a, first, stride), second)
        y = y + (conv(a, v["params"]["projection_6"]["kernel"], 2) if second == 6 else carried)
        a, carried = jax.nn.relu(normed(v, y, second)), y
    return head(v, a)


def test_preactivation_blocks():
    model = ResNet(classes=5, widths=WIDTHS, block="preactivation")
    variables = random_variables(model)
    found, expected = run(lambda v: (model.apply(v, IMAGES, False), preactivation_net(v, IMAGES)), variables)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_without_shortcuts_both_blocks_are_the_same_layers_in_a_row():
    models = [ResNet(classes=5, widths=WIDTHS, depth=1, block=b, shortcut="none") for b in BLOCKS]
    variables = [random_variables(model) for model in models]
    assert jax.tree.structure(variables[0]) == jax.tree.structure(variables[1])

    def by_hand(v):
        x = IMAGES
        for site, stride in enumerate((1, 1, 1, 2, 1)):
            x = layer(v, x, site, stride)
        return head(v, x)

    *found, expected = run(lambda v: [*(model.apply(v, IMAGES, False) for model in models), by_hand(v)], variables[0])
    for logits in found:
        np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


def gated(v, y, site):
    own = v["params"][f"se_{site}"]
    hidden = jax.nn.relu(y.mean((1, 2)) @ own["reduce"]["kernel"] + own["reduce"]["bias"])
    gate = 1 / (1 + jnp.exp(-(hidden @ own["expand"]["kernel"] + own["expand"]["bias"])))
    return y * gate[:, None, None]


def efficient_net(v, x):
    x = layer(v, x, 0)
    for expand, depthwise, project, stride, channels in (
        (None, 1, 2, 1, 8),
        (None, 3, 4, 1, 8),
        (5, 6, 7, 2, 32),
        (8, 9, 10, 1, 64),
    ):
        y = x if expand is None else layer(v, x, expand)
        y = gated(v, layer(v, y, depthwise, stride, channels), depthwise)
        y = normed(v, convolved(v, y, project), project)
        x = y if stride == 2 else y + x
    return head(v, layer(v, x, 11))


def test_mbconv_blocks():
    model = EfficientNet(classes=5, widths=WIDTHS, depth=2)
    variables = random_variables(model)
    hidden = {site: variables["params"][f"se_{site}"]["reduce"]["kernel"].shape for site in (1, 3, 6, 9)}
    assert hidden == {1: (8, 8), 3: (8, 8), 6: (32, 8), 9: (64, 8)}  # never less than 8, of the channels before expand
    found, expected = run(lambda v: (model.apply(v, IMAGES, False), efficient_net(v, IMAGES)), variables)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def pooled(x):
    b, _, _, c = x.shape
    return x[:, :6, :6].reshape(b, 3, 2, 3, 2, c).max((2, 4))


def gated_cnn(v, x):
    return pooled(gated(v, layer(v, layer(v, x, 0), 1), 1))


def gated_separable(v, x):
    x = layer(v, layer(v, layer(v, x, 0), 1, groups=8), 2)
    x = layer(v, layer(v, gated(v, x, 2), 3, groups=8), 4)
    return pooled(gated(v, x, 4))


def gated_basic(v, x):
    x = layer(v, x, 0)
    for first, second in ((1, 2), (3, 4)):
        x = jax.nn.relu(gated(v, normed(v, convolved(v, layer(v, x, first), second), second), second) + x)
    return x


def gated_preactivation(v, x):
    a = carried = layer(v, x, 0)
    for first, second in ((1, 2), (3, 4)):
        carried = gated(v, convolved(v, layer(v, a, first), second), second) + carried
        a = jax.nn.relu(normed(v, carried, second))
    return a


@pytest.mark.parametrize(
    ("model", "by_hand"),
    [
        (CNN(5), gated_cnn),
        (Separable(5), gated_separable),
        (ResNet(5), gated_basic),
        (ResNet(5, block="preactivation"), gated_preactivation),
    ],
)
def test_where_squeeze_and_excitation_stands(model, by_hand):
    model = model.clone(widths=(8,), depth=2, se_reduction=4, headless=True)
    variables = random_variables(model)
    found, expected = run(lambda v: (model.apply(v, IMAGES, False), by_hand(v, IMAGES)), variables)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_refusals():
    def refused(model, match):
        with pytest.raises(UsageError, match=match):
            jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES, False))

    refused(ResNet(classes=5, block="bottleneck"), "basic, preactivation, got 'bottleneck'")
    refused(ResNet(classes=5, shortcut="zero"), "identity, none, got 'zero'")
    refused(ResNet(classes=5, block="preactivation", norm_position="post"), "norm_position post")
    refused(ResNet(classes=5, shortcut="none", stochastic_depth=0.1), "nothing left")
    refused(CNN(classes=5, se_reduction=-2), "1 or more, got -2")
