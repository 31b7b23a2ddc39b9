"""Norms against PyTorch's, values, gradients and running statistics; a difference in definition is what is tested."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.nn.norm_formulas import WEIGHT_KINDS
from fishnet.nn.norms import NORMS, BatchNorm
from fishnet.nn.weight_norms import normalize_kernel
from tests.oracles.there import F, channels_first, channels_last, compiled, draw, gradients, there, torch

MAPS = (6, 4, 5, 16)
LAYOUT = ("NHWC", "HWIO", "NHWC")


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
            y = jax.lax.conv_general_dilated(x, normalize_kernel(kernel), (1, 1), "SAME", dimension_numbers=LAYOUT)
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
