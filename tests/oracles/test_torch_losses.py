"""Losses and penalties against PyTorch's, values and gradients; a difference in definition is what is tested."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.losses import (
    class_weighted,
    cross_entropy,
    hinge,
    ldam,
    logit_adjusted,
    mse,
    one_vs_rest,
)
from fishnet.optim.constraints import l1_penalty, l2_penalty
from tests.oracles.there import F, compiled, draw, there, torch

B, K = 12, 5
LOGITS, LABELS, WEIGHTS = 3 * draw(B, K), np.arange(B) % K, np.array([0.5, 2.0, 1.0, 0.25, 3.0], np.float32)
ONE_HOT = np.eye(K)[LABELS]
MARGINS, OFFSETS, COTANGENT = np.array([0.5, 0.1, 0.2, 0.3, 0.4], np.float32), draw(K), draw(B)

KERNELS = {"kernel": draw(6, 5), "bias": draw(5)}


def cross_entropy_there(x, smoothing=0.0):
    return F.cross_entropy(x, torch.tensor(LABELS), reduction="none", label_smoothing=smoothing)


def weights_there(x):
    return torch.tensor(WEIGHTS[LABELS]).to(x.dtype)


def one_vs_rest_there(x, smoothing=0.0):
    targets = torch.tensor((1 - smoothing) * ONE_HOT + smoothing / K)
    return F.binary_cross_entropy_with_logits(x, targets, reduction="none").sum(-1)


LOSSES = {
    "cross-entropy": (cross_entropy, cross_entropy_there),
    "smoothed": (lambda x, y: cross_entropy(x, y, 0.1), lambda x: cross_entropy_there(x, 0.1)),
    "class-weighted": (
        lambda x, y: class_weighted(x, y, WEIGHTS),
        lambda x: F.cross_entropy(x, torch.tensor(LABELS), torch.tensor(WEIGHTS).double(), reduction="none"),
    ),
    "class-weighted, smoothed": (
        lambda x, y: class_weighted(x, y, WEIGHTS, 0.1),
        lambda x: weights_there(x) * cross_entropy_there(x, 0.1),
    ),
    "logit-adjusted": (
        lambda x, y: logit_adjusted(x, y, OFFSETS),
        lambda x: cross_entropy_there(x + torch.tensor(OFFSETS)),
    ),
    "ldam": (
        lambda x, y: ldam(x, y, MARGINS, WEIGHTS, 4.0),
        lambda x: weights_there(x) * cross_entropy_there(4 * (x - torch.tensor(ONE_HOT * MARGINS))),
    ),
    "one-vs-rest": (one_vs_rest, one_vs_rest_there),
    "one-vs-rest, smoothed": (
        lambda x, y: one_vs_rest(x, y, WEIGHTS, 0.2),
        lambda x: weights_there(x) * one_vs_rest_there(x, 0.2),
    ),
    "mse": (mse, lambda x: F.mse_loss(x, torch.tensor(ONE_HOT), reduction="none").mean(-1)),
}


@functools.cache
def losses_here():
    """Value [b] and gradient [b, k] of each of LOSSES, in one program."""

    def both(logits):
        found = {}
        for name, (f, _) in LOSSES.items():
            y, pull = jax.vjp(lambda x, f=f: f(x, jnp.asarray(LABELS)), logits)
            found[name] = y, pull(jnp.asarray(COTANGENT))[0]
        return found

    return compiled(both)(LOGITS)


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name):
    logits = there(LOGITS)
    expected = LOSSES[name][1](logits)
    (gradient,) = torch.autograd.grad((expected * torch.tensor(COTANGENT).double()).sum(), logits)
    y, dx = losses_here()[name]
    # A difference of logits of about 5 (20 in ldam), rounded.
    np.testing.assert_allclose(y, expected.detach(), rtol=2e-6, atol=5e-6)
    np.testing.assert_allclose(dx, gradient, rtol=1e-5, atol=5e-6)


def test_weights_multiply_the_whole_smoothed_term_where_pytorch_weighs_each_class_share():
    weights, labels = torch.tensor(WEIGHTS).double(), torch.tensor(LABELS)
    theirs = F.cross_entropy(there(LOGITS), labels, weights, reduction="none", label_smoothing=0.1).detach().numpy()
    log_p = torch.log_softmax(there(LOGITS), -1).detach().numpy()
    w, own = WEIGHTS.astype(np.float64), WEIGHTS[LABELS].astype(np.float64)
    shares = -0.9 * own * log_p[np.arange(B), LABELS] - 0.1 / K * (w * log_p).sum(-1)
    np.testing.assert_allclose(theirs, shares, rtol=1e-9)
    ours = losses_here()["class-weighted, smoothed"][0]
    np.testing.assert_allclose(ours - theirs, 0.1 / K * ((w - own[:, None]) * log_p).sum(-1), atol=1e-5)


def test_a_weighted_mean_there_is_divided_by_the_weights():
    theirs = F.cross_entropy(there(LOGITS), torch.tensor(LABELS), torch.tensor(WEIGHTS).double()).item()
    mean = float(losses_here()["class-weighted"][0].mean())
    assert mean * B / WEIGHTS[LABELS].sum() == pytest.approx(theirs, rel=1e-6)


def test_hinge_is_the_largest_violation_where_pytorch_takes_the_mean_of_all():
    """Crammer and Singer's against Weston and Watkins's: the same but for its factor with one violation at most."""
    theirs = K * F.multi_margin_loss(there(LOGITS), torch.tensor(LABELS), reduction="none").detach().numpy()
    here = compiled(hinge)
    ours = np.asarray(here(LOGITS, LABELS))
    own = LOGITS[np.arange(B), LABELS][:, None]
    violations = ((1 + LOGITS - own > 0) & (ONE_HOT == 0)).sum(-1)
    assert {0, 1} < set(violations.tolist())
    few = violations <= 1
    np.testing.assert_allclose(ours[few], theirs[few], rtol=1e-6, atol=1e-6)
    assert (ours[~few] < theirs[~few]).all()
    two = there(LOGITS[:, :2])
    expected = 2 * F.multi_margin_loss(two, torch.tensor(LABELS % 2), reduction="none").detach()
    np.testing.assert_allclose(here(LOGITS[:, :2], LABELS % 2), expected, rtol=1e-6, atol=1e-6)


def test_penalties_of_the_kernels_by_pytorchs_norms():
    kernel = there(KERNELS["kernel"])
    got = compiled(jax.grad(lambda params: l1_penalty(params, 0.3) + l2_penalty(params, 0.7)))(KERNELS)
    (0.3 * kernel.norm(1) + 0.35 * kernel.norm(2) ** 2).backward()
    np.testing.assert_allclose(got["kernel"], kernel.grad, rtol=1e-6, atol=1e-6)
    assert not np.any(got["bias"])
