"""Clipping against optax and NumPy; no limit is no change, bit for bit."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fishnet.errors import UsageError
from fishnet.optim.clipping import CLIPPINGS

LIMITS = {"value": [0.0, 0.3, 1.0, 50.0], "norm": [0.0, 0.5, 5.0, 500.0], "adaptive": [0.0, 0.01, 0.5, 5000.0]}


def drawn(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    shapes = {
        "conv": {"kernel": (3, 3, 2, 4), "bias": (4,)},
        "depthwise": {"kernel": (3, 3, 1, 4)},
        "head": {"kernel": (4, 5), "bias": (5,)},
    }
    drawn = jax.tree.map(
        lambda s: rng.normal(size=s).astype(np.float32), shapes, is_leaf=lambda s: isinstance(s, tuple)
    )
    drawn["head"]["kernel"] *= 0.01  # so that some units are clipped and others not
    return drawn


GRADS, PARAMS = drawn(0), drawn(1)
PARAMS["head"]["bias"][:] = 0


@functools.partial(jax.jit, static_argnums=0)
def clip(name: str, grads: dict, limits: jax.Array) -> tuple[dict, jax.Array]:
    """A lane for each limit, in one program: the limit is traced."""
    return jax.vmap(lambda limit: CLIPPINGS[name](grads, PARAMS, limit))(limits)


@functools.cache
def lanes(name: str) -> tuple[dict, jax.Array]:
    """A lane for each of LIMITS and one without."""
    return clip(name, GRADS, jnp.asarray([*LIMITS[name], jnp.inf]))


def by_hand(name: str, limit: float) -> tuple[dict, float]:
    leaves, tree = jax.tree.flatten(jax.tree.map(np.float64, GRADS))
    if name == "value":
        flat = np.concatenate([g.ravel() for g in leaves])
        return tree.unflatten([np.clip(g, -limit, limit) for g in leaves]), float((np.abs(flat) > limit).mean())
    if name == "norm":
        norm = np.sqrt(sum((g**2).sum() for g in leaves))
        return tree.unflatten([g * min(1, limit / norm) for g in leaves]), float(norm > limit)
    clipped, long = [], []
    for g, w in zip(leaves, jax.tree.leaves(PARAMS), strict=True):
        g = g.copy()
        for unit in range(g.shape[-1]) if g.ndim > 1 else [slice(None)]:
            norm, allowed = np.linalg.norm(g[..., unit]), limit * max(np.linalg.norm(w[..., unit]), 1e-3)
            long.append(norm > allowed)
            g[..., unit] *= min(1, allowed / norm)
        clipped.append(g)
    return tree.unflatten(clipped), float(np.mean(long))


def test_the_table_is_complete() -> None:
    assert list(CLIPPINGS) == ["value", "norm", "adaptive"]


@pytest.mark.parametrize("i", range(4))
@pytest.mark.parametrize("name", CLIPPINGS)
def test_equals_the_rule_written_out(name: str, i: int) -> None:
    grads, share = jax.tree.map(lambda leaf: leaf[i], lanes(name))
    expected, expected_share = by_hand(name, LIMITS[name][i])
    chex.assert_trees_all_close(grads, expected, rtol=1e-5, atol=1e-9)
    assert share.shape == ()
    assert share.dtype == jnp.float32
    assert float(share) == pytest.approx(expected_share, rel=1e-6)


def test_limits_between_none_and_all_were_tried() -> None:
    for name in ("value", "adaptive"):
        shares = lanes(name)[1]
        assert float(shares[0]) == 1
        assert 0 < float(shares[2]) < 1
        assert float(shares[3]) == 0


OPTAX = {"value": optax.clip, "norm": optax.clip_by_global_norm, "adaptive": optax.adaptive_grad_clip}


@pytest.mark.parametrize("name", CLIPPINGS)
def test_equals_optax(name: str) -> None:
    def by_optax(limit: jax.Array) -> dict:
        rule = OPTAX[name](limit)
        return rule.update(GRADS, rule.init(PARAMS), PARAMS)[0]

    expected = jax.jit(jax.vmap(by_optax))(jnp.asarray(LIMITS[name]))
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[:-1], lanes(name)[0]), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", CLIPPINGS)
def test_no_limit_is_no_change_bit_for_bit(name: str) -> None:
    traced = jax.tree.map(lambda leaf: leaf[-1], lanes(name))
    plain = jax.jit(lambda: CLIPPINGS[name](GRADS, PARAMS, np.inf))()
    for grads, share in (traced, plain):
        assert float(share) == 0
        same = jax.tree.map(lambda a, b: np.asarray(a).tobytes() == b.tobytes(), grads, GRADS)
        assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("name", CLIPPINGS)
def test_without_a_limit_what_is_not_finite_stays_so(name: str) -> None:
    grads = {"kernel": np.float32([[np.inf, -np.inf, np.nan, 1.0]]).T, "bias": np.float32([-0.0])}
    clipped, _ = CLIPPINGS[name](grads, grads, jnp.inf)
    chex.assert_trees_all_equal(clipped, grads)


@pytest.mark.parametrize("name", CLIPPINGS)
def test_zero_gradients_stay_zero(name: str) -> None:
    zeros = jax.tree.map(np.zeros_like, GRADS)
    grads, shares = clip(name, zeros, jnp.asarray([*LIMITS[name], jnp.inf]))
    assert not any(leaf.any() for leaf in jax.tree.leaves((grads, shares)))


@pytest.mark.parametrize("limit", [-0.1, float("nan"), np.float32(-1)])
@pytest.mark.parametrize("name", CLIPPINGS)
def test_a_limit_out_of_range_is_refused(name: str, limit: float) -> None:
    with pytest.raises(UsageError, match=r"limit .* is not 0 or a positive number"):
        CLIPPINGS[name](GRADS, PARAMS, limit)


@pytest.mark.parametrize("name", CLIPPINGS)
def test_parameters_without_gradient_do_not_count(name: str) -> None:
    """Such as the slopes that only a neighbour in the program learns: the share is the run's own."""
    unused = {"act": {"slope": np.zeros(4, np.float32)}}
    limit = LIMITS[name][1]
    _, share = CLIPPINGS[name](GRADS | unused, PARAMS | unused, limit)
    assert float(share) == pytest.approx(by_hand(name, limit)[1], rel=1e-6)
