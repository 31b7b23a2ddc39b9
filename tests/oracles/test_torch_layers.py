"""Convolutions, pooling and dropout against PyTorch's, values and gradients."""

import jax
import numpy as np
import pytest

from fishnet.nn.conv_implementations import LOWERINGS
from fishnet.nn.dropout import alpha_dropout, dropout, spatial_dropout
from fishnet.nn.pooling import POOLS
from tests.oracles.there import F, channels_first, channels_last, compiled, draw, gradients, there

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
