"""Layers against PyTorch's, values and gradients; where the two differ by definition, the difference is what is tested.

PyTorch computes in float64, so that what is left of a difference is the rounding of float32 here, about 1e-7 of the
numbers that are added up; each tolerance says how many of them there are.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.nn.activations import ACTIVATIONS
from fishnet.nn.dropout import alpha_dropout, dropout, spatial_dropout
from fishnet.nn.lowerings import LOWERINGS
from fishnet.nn.norms import NORMS, WEIGHT_KINDS, BatchNorm
from fishnet.nn.parametric import Parametric
from fishnet.nn.pooling import POOLS
from fishnet.nn.weight_norms import unit_kernel

torch = pytest.importorskip("torch", reason="PyTorch is in the bench extra")
F = torch.nn.functional

# Most of the time here is compilation.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def there(x):
    """A leaf of PyTorch's, in float64."""
    return torch.tensor(np.asarray(x, np.float64), requires_grad=True)


def channels_first(x):
    return x.movedim(-1, 1)


def channels_last(x):
    return x.movedim(1, -1)


def gradients(y, dy, *leaves):
    """Of `sum(y dy)`."""
    return [g.numpy() for g in torch.autograd.grad((y * torch.tensor(np.asarray(dy, np.float64))).sum(), leaves)]


# --- activations

THEIRS = {
    "identity": torch.nn.Identity(),
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": functools.partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "hard_swish": F.hardswish,
    "mish": F.mish,
    "relu6": F.relu6,
    "exponential": torch.exp,
    "prelu": lambda x: F.prelu(x, torch.full((1,), 0.25, dtype=x.dtype)),
    "rrelu": functools.partial(F.rrelu, training=False),
}
# Everywhere but at kinks: near 0, in the middle and far out.
X = np.concatenate([np.linspace(-9, 9, 240), [-60, -30, -1e-3, 1e-3, 30, 60]]).astype(np.float32)
KINKS = np.array([-3, 0, 3, 6], np.float32)


@functools.cache
def activated():
    """Value and slope of every activation at X and at KINKS, in one program."""

    def all_of(x):
        return {name: jax.vjp(lambda x, f=f: f(x), x) for name, f in ACTIVATIONS.items()}

    def both(x):
        return {name: (y, pull(jnp.ones_like(y))[0]) for name, (y, pull) in all_of(x).items()}

    return compiled(lambda: (both(jnp.asarray(X)), both(jnp.asarray(KINKS))))()


def slopes_there(name, x):
    x = there(x)
    y = THEIRS[name](x)
    return y.detach().numpy(), gradients(y, np.ones(len(x)), x)[0]


@pytest.mark.parametrize("name", THEIRS)
def test_activations(name):
    # A rounding of x, of the exponential and of their product; softplus there is linear from 20 on, off by 2e-9.
    for got, expected in zip(activated()[0][name], slopes_there(name, X), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6)


def test_activations_that_pytorch_lacks_are_known():
    assert set(ACTIVATIONS) - set(THEIRS) == {"squareplus"}


# name -> (slope at 0 here, there): ours is the right-hand side's, as the docstrings say: y = x for x >= 0.
AT_ZERO = {"leaky_relu": (1, 0.01), "prelu": (1, 0.25), "rrelu": (1, 11 / 48)}


@pytest.mark.parametrize("name", THEIRS)
def test_slopes_at_kinks(name):
    got, expected = activated()[1][name][1], slopes_there(name, KINKS)[1].copy()
    if name in AT_ZERO:
        here, at_theirs = AT_ZERO[name]
        assert expected[KINKS == 0] == pytest.approx(at_theirs)
        expected[KINKS == 0] = here
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6)


def test_random_slopes_have_pytorchs_range():
    x = -np.ones(4000, np.float32)
    ours = -np.asarray(ACTIVATIONS["rrelu"](jnp.asarray(x), key=jax.random.key(0), train=True))
    theirs = -F.rrelu(torch.tensor(x), training=True).numpy()
    for slopes in (ours, theirs):
        assert 1 / 8 <= slopes.min() < 0.127
        assert 0.331 < slopes.max() <= 1 / 3
        assert slopes.mean() == pytest.approx(11 / 48, abs=4 * (5 / 24) / np.sqrt(12 * len(x)))  # 4 standard errors


def test_learned_slopes_get_pytorchs_gradient():
    x, slope, dy = draw(4, 3, 3, 5), draw(5), draw(4, 3, 3, 5)
    prelu = ACTIVATIONS["prelu"]
    assert isinstance(prelu, Parametric)

    @compiled
    def run(x, slope, dy):
        y, pull = jax.vjp(lambda x, slope: prelu(x, slope), x, slope)
        return y, pull(dy)

    y, ours = run(x, slope, dy)
    their_x, their_slope = there(x), there(slope)
    expected = channels_last(F.prelu(channels_first(their_x), their_slope))
    np.testing.assert_allclose(y, expected.detach(), rtol=1e-6)
    for got, g in zip(ours, gradients(expected, dy, their_x, their_slope), strict=True):
        np.testing.assert_allclose(got, g, rtol=1e-5, atol=2e-6)  # sums over 36 products


# --- norms

MAPS = (6, 4, 5, 16)


def their_norm(name, x, scale, bias):
    """`x` [b, h, w, c] normalised as the norm of that name does in training."""
    x = channels_first(x)
    if name == "none":
        y = x + bias[:, None, None]
    elif name == "batch":
        y = F.batch_norm(x, None, None, scale, bias, training=True, eps=1e-5)
    elif name == "group":
        y = F.group_norm(x, 8, scale, bias, eps=1e-5)
    elif name == "instance":
        y = F.instance_norm(x, weight=scale, bias=bias, eps=1e-5)
    elif name in ("layer", "rms"):  # over height, width and channels; scale and shift by channel all the same
        y = {"layer": F.layer_norm, "rms": F.rms_norm}[name](x, x.shape[1:], eps=1e-5)
        y = y * scale[:, None, None] + bias[:, None, None]
    else:
        return F.layer_norm(channels_last(x), scale.shape, scale, bias, eps=1e-5)
    return channels_last(y)


@pytest.mark.parametrize("name", [name for name in NORMS if name not in WEIGHT_KINDS])
def test_norms_in_training(name):
    # Off-centre and of unequal spread, so that mean and variance have to be right.
    x, dy = draw(*MAPS) * np.linspace(0.3, 3, 16, dtype=np.float32) + 2, draw(*MAPS)
    params = {"scale": 1 + 0.3 * draw(16), "bias": draw(16)}
    if name == "none":
        del params["scale"]
    norm = NORMS[name]()
    state = {"batch_stats": {"mean": np.zeros(16, np.float32), "var": np.ones(16, np.float32)}}

    @compiled
    def run(params, x, dy):
        def apply(params, x):
            return norm.apply({"params": params} | (state if name == "batch" else {}), x, True, mutable="batch_stats")

        y, pull, _ = jax.vjp(apply, params, x, has_aux=True)
        return y, pull(dy)

    y, (d_params, dx) = run(params, x, dy)
    leaves = {"x": there(x)} | {k: there(v) for k, v in params.items()}
    expected = their_norm(name, leaves["x"], leaves.get("scale"), leaves["bias"])
    np.testing.assert_allclose(y, expected.detach(), rtol=1e-5, atol=5e-6)
    theirs = dict(zip(leaves, gradients(expected, dy, *leaves.values()), strict=True))
    # Sums over 120 products for the parameters; dx is what is left of dy once its projections are taken off.
    np.testing.assert_allclose(dx, theirs.pop("x"), rtol=1e-4, atol=2e-5)
    for k, expected in theirs.items():
        np.testing.assert_allclose(d_params[k], expected, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("ghost", [0, 3])
def test_running_statistics_of_batch_norm(ghost):
    """PyTorch's momentum is the fraction replaced, and it keeps the unbiased variance: ours is the biased one."""
    steps, count = [draw(*MAPS) + i for i in range(2)], 4 * 5 * (ghost or 6)
    norm, theirs = BatchNorm(ghost=ghost), torch.nn.BatchNorm2d(16, eps=1e-5, momentum=0.1).double()
    train = compiled(lambda variables, x: norm.apply(variables, x, True, mutable=["batch_stats"]))
    variables = {
        "params": {"scale": jnp.ones(16), "bias": jnp.zeros(16)},
        "batch_stats": {"mean": jnp.zeros(16), "var": jnp.ones(16)},
    }
    biased = np.ones(16)
    for x in steps:
        y, moved = train(variables, x)
        before = [s.clone() for s in (theirs.running_mean, theirs.running_var)]
        outs, means, variances = [], [], []
        for part in np.split(x, 6 // ghost if ghost else 1):  # each ghost batch starts from the same running statistics
            theirs.running_mean, theirs.running_var = (s.clone() for s in before)
            outs.append(channels_last(theirs(channels_first(there(part)))).detach().numpy())
            means.append(theirs.running_mean)
            variances.append(theirs.running_var)
        theirs.running_mean, theirs.running_var = torch.stack(means).mean(0), torch.stack(variances).mean(0)
        new = (theirs.running_var.numpy() - 0.9 * before[1].numpy()) / 0.1
        biased = 0.9 * biased + 0.1 * new * (count - 1) / count
        np.testing.assert_allclose(y, np.concatenate(outs), rtol=1e-5, atol=5e-6)
        variables = {**variables, **moved}
    statistics = variables["batch_stats"]
    np.testing.assert_allclose(statistics["mean"], theirs.running_mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(statistics["var"], biased, rtol=1e-5)
    assert np.abs(statistics["var"] / theirs.running_var.numpy() - 1).max() > 1e-3  # the difference is there
    with torch.no_grad():
        theirs.running_var = torch.tensor(np.asarray(statistics["var"], np.float64))
    expected = channels_last(theirs.eval()(channels_first(there(steps[0])))).detach()
    got = compiled(lambda variables, x: norm.apply(variables, x, False))(variables, steps[0])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-6)


def test_weight_norm():
    """PyTorch's parametrisation: `original0` is g, `original1` is v."""
    x, kernel, scale, dy = draw(2, 6, 5, 4), draw(3, 3, 4, 7), 1 + 0.3 * draw(7), draw(2, 6, 5, 7)

    @compiled
    def run(x, kernel, scale, dy):
        def apply(x, kernel, scale):
            y = jax.lax.conv_general_dilated(x, unit_kernel(kernel), (1, 1), "SAME", dimension_numbers=LAYOUT)
            params = {"scale": scale, "bias": jnp.zeros(7)}
            return NORMS["weight"]().apply({"params": params}, y, True)

        y, pull = jax.vjp(apply, x, kernel, scale)
        return y, pull(dy)

    y, (dx, d_kernel, d_scale) = run(x, kernel, scale, dy)
    conv = torch.nn.Conv2d(4, 7, 3, padding=1, bias=False, dtype=torch.float64)
    conv = torch.nn.utils.parametrizations.weight_norm(conv)
    g, v = conv.parametrizations.weight.original0, conv.parametrizations.weight.original1
    with torch.no_grad():
        v.copy_(there(kernel).permute(3, 2, 0, 1))
        g.copy_(there(scale)[:, None, None, None])
    their_x = there(x)
    expected = channels_last(conv(channels_first(their_x)))
    np.testing.assert_allclose(y, expected.detach(), rtol=1e-5, atol=5e-6)
    dx_there, dv, dg = gradients(expected, dy, their_x, v, g)
    np.testing.assert_allclose(dx, dx_there, rtol=1e-5, atol=1e-5)
    # Sums over 60 pixels and, in the projection off v, over the 36 weights of a unit.
    np.testing.assert_allclose(d_kernel, dv.transpose(2, 3, 1, 0), rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(d_scale, dg.ravel(), rtol=1e-5, atol=2e-5)


# --- convolutions

LAYOUT = ("NHWC", "HWIO", "NHWC")
# name -> (sides, channels in and out, kernel, stride, padding, PyTorch's padding (left, right, top, bottom), groups)
CONVOLUTIONS = {
    "same": ((7, 8), (32, 16), 3, 1, "SAME", (1, 1, 1, 1), 1),
    "valid": ((7, 8), (5, 6), 3, 1, "VALID", (0, 0, 0, 0), 1),
    "same, stride 2, odd": ((9, 7), (5, 6), 3, 2, "SAME", (1, 1, 1, 1), 1),
    # Only to the right and below: XLA's (and TensorFlow's) rule, where PyTorch's padding=1 is on all sides.
    "same, stride 2, even": ((8, 10), (5, 6), 3, 2, "SAME", (0, 1, 0, 1), 1),
    "explicit": ((6, 7), (5, 6), 3, 2, ((2, 0), (1, 3)), (1, 3, 2, 0), 1),
    "5 x 5": ((7, 6), (3, 4), 5, 1, "SAME", (2, 2, 2, 2), 1),
    "1 x 1, stride 2": ((7, 6), (6, 4), 1, 2, "SAME", (0, 0, 0, 0), 1),
    "depthwise": ((7, 6), (8, 8), 3, 1, "SAME", (1, 1, 1, 1), 8),
    "depthwise, stride 2": ((8, 6), (8, 8), 3, 2, "SAME", (0, 1, 0, 1), 8),
    "groups": ((5, 6), (8, 12), 3, 1, "SAME", (1, 1, 1, 1), 4),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(case):
    (h, w), (i, o), size, stride, padding, pads, groups = CONVOLUTIONS[case]
    # Winograd's form is the matrix form below 32 channels; XLA's own convolution is no code of ours.
    lowerings = {"gemm": LOWERINGS["gemm"]} if i < 32 else LOWERINGS
    x, kernel = draw(2, h, w, i), draw(size, size, i // groups, o)
    their_x, their_kernel = there(x), there(kernel)
    padded = F.pad(channels_first(their_x), pads)
    expected = channels_last(F.conv2d(padded, their_kernel.permute(3, 2, 0, 1), stride=stride, groups=groups))
    dy = draw(*expected.shape)

    @compiled
    def run(x, kernel, dy):
        def by(conv):
            numbers = {"dimension_numbers": LAYOUT, "feature_group_count": groups}
            y, pull = jax.vjp(lambda x, kernel: conv(x, kernel, (stride, stride), padding, **numbers), x, kernel)
            return y, pull(dy)

        return {name: by(conv) for name, conv in lowerings.items()}

    theirs = gradients(expected, dy, their_x, their_kernel)
    for name, (y, ours) in run(x, kernel, dy).items():
        # Sums of up to 288 products; Winograd's transforms add and take away numbers some ten times as large.
        np.testing.assert_allclose(y, expected.detach(), rtol=1e-5, atol=5e-5, err_msg=name)
        for got, g in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(got, g, rtol=1e-5, atol=5e-5, err_msg=name)


def test_same_padding_at_stride_2_is_not_pytorchs_padding():
    x, kernel = draw(1, 8, 8, 3), draw(3, 3, 3, 2)
    conv = compiled(lambda x, kernel: LOWERINGS["gemm"](x, kernel, (2, 2), "SAME", dimension_numbers=LAYOUT))
    ours = conv(x, kernel)
    their_x, their_kernel = channels_first(there(x)), there(kernel).permute(3, 2, 0, 1)
    symmetric = channels_last(F.conv2d(their_x, their_kernel, stride=2, padding=1)).detach()
    assert ours.shape == symmetric.shape
    assert np.abs(ours - symmetric.numpy()).max() > 0.1


# --- pooling and dropout

THEIR_POOLS = {"max": F.max_pool2d, "mean": F.avg_pool2d}


@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("name", POOLS)
def test_pooling(name, window):
    # A third of the maps is made of few levels: ties, whose gradient goes to the first pixel in reading order.
    x = draw(3, 7, 9, 4)
    x[0] = np.round(x[0])
    their_x = there(x)
    expected = channels_last(THEIR_POOLS[name](channels_first(their_x), window))
    dy = draw(*expected.shape)

    @compiled
    def run(x, dy):
        y, pull = jax.vjp(lambda x: POOLS[name](x, window), x)
        return y, *pull(dy)

    y, dx = run(x, dy)
    np.testing.assert_allclose(y, expected.detach(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(dx, gradients(expected, dy, their_x)[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_alpha_dropout_is_pytorchs_affine_map(rate):
    """Kept entries lie on a line and dropped ones at a point: both are PyTorch's, and with them all moments."""
    x = draw(20000)
    theirs = F.alpha_dropout(there(x), rate, training=True).detach().numpy()
    ours = np.asarray(compiled(alpha_dropout)(jax.random.key(1), x, rate))
    values, counts = np.unique(theirs, return_counts=True)
    point = values[counts.argmax()]
    assert counts.max() / len(x) == pytest.approx(rate, abs=0.02)
    kept = theirs != point
    slope, shift = np.polyfit(x[kept].astype(np.float64), theirs[kept], 1)
    on_point, on_line = np.abs(ours - point) < 1e-5, np.abs(ours - (slope * x + shift)) < 1e-5
    assert (on_point | on_line).all()
    assert np.mean(on_point) == pytest.approx(rate, abs=0.02)
    for y in (ours, theirs):  # within about four standard errors
        assert y.mean() == pytest.approx(0, abs=0.03)
        assert y.var() == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize(("ours", "theirs"), [(dropout, F.dropout), (spatial_dropout, F.dropout2d)])
def test_dropout_scales_and_drops_as_pytorchs(ours, theirs):
    x, rate = 1 + np.abs(draw(30, 4, 4, 20)), 0.3
    y = np.asarray(compiled(ours)(jax.random.key(0), x, rate))
    expected = channels_last(theirs(channels_first(there(x)), rate, training=True)).detach().numpy()
    for z in (y, expected):
        gone = z == 0
        np.testing.assert_allclose(z[~gone], (x / (1 - rate))[~gone], rtol=1e-6)
        whole = gone.all((1, 2)) | (~gone).all((1, 2))  # [b, c]: a map is dropped as a whole or not at all
        assert whole.all() == (ours is spatial_dropout)
        # Four standard errors of the share of 600 maps, or of 9,600 pixels.
        spread = np.sqrt(rate * (1 - rate) / (600 if ours is spatial_dropout else 9600))
        assert gone.mean() == pytest.approx(rate, abs=4 * spread)
