"""Compound scaling: widths, depth and resolution against the published networks and in closed form."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.models import EfficientNet
from fishnet.models.efficientnet import compound_depth, compound_resolution, compound_widths
from fishnet.nn.stochastic_depth import StochasticDepth

# EfficientNet-B0's channels and blocks a stage, and those of B2, whose coefficients are 1.1 and 1.2: phi = 1.
B0, B2 = (32, 16, 24, 40, 80, 112, 192, 320, 1280), (32, 16, 24, 48, 88, 120, 208, 352, 1408)
B0_BLOCKS, B2_BLOCKS = (1, 2, 2, 3, 3, 4, 1), (2, 3, 3, 4, 4, 5, 2)


def test_the_published_network_at_phi_1():
    assert compound_widths(B0, 1.0) == B2
    assert tuple(compound_depth(blocks, 1.0) for blocks in B0_BLOCKS) == B2_BLOCKS


@pytest.mark.parametrize("phi", [0.5, 1.0, 2.0, 3.7])
def test_widths_are_multiples_of_8_and_never_much_smaller(phi):
    widths = range(1, 300)
    for width, scaled in zip(widths, compound_widths(widths, phi), strict=True):
        assert scaled % 8 == 0 and 0.9 * width * 1.1**phi <= scaled <= max(8, width * 1.1**phi + 8)


def test_phi_0_leaves_all_as_it_is():
    assert compound_widths((12, 20), 0.0) == (12, 20)
    assert compound_depth(3, 0.0) == 3
    assert compound_resolution(32, 0.0) == 32


def test_depth_and_resolution_in_closed_form():
    assert [compound_depth(25, phi) for phi in (1.0, 2.0)] == [30, 36]
    assert [compound_resolution(100, phi) for phi in (1.0, 2.0, 3.0)] == [115, 132, 152]


def test_the_model_is_scaled():
    def shapes(**fields):
        model = EfficientNet(classes=5, **fields)
        images = np.zeros((1, 8, 8, 3), np.uint8)
        return jax.eval_shape(lambda: model.init(jax.random.key(0), images, False))

    assert shapes(widths=(16, 40), depth=1, compound=1.0) == shapes(widths=(16, 48), depth=2)


def test_blocks_that_keep_their_shape_may_be_skipped():
    model, rates = EfficientNet(classes=5, widths=(8, 16), depth=2, stochastic_depth=0.4), {}

    def record(method, args, kwargs, context):
        if isinstance(context.module, StochasticDepth):
            rates[context.module.name] = context.module.rate
        return method(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.uint8), False))
    assert rates == pytest.approx({"depth_2": 0.1, "depth_4": 0.2, "depth_10": 0.4})


@pytest.mark.parametrize("phi", [-0.1, float("nan"), float("inf")])
def test_what_scales_nothing_up_is_refused(phi):
    for f, argument in ((compound_widths, (8,)), (compound_depth, 1), (compound_resolution, 32)):
        with pytest.raises(UsageError, match="compound must be 0 or more"):
            f(argument, phi)
