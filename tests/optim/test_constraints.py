"""Max-norm, penalties and the average of the weights against NumPy and optax."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fishnet.errors import UsageError
from fishnet.optim.constraints import ema, l1_penalty, l2_penalty, max_norm
from fishnet.optim.decay import kernel_decay

STEPS = 40


def drawn(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    shapes = {
        "conv": {"kernel": (3, 3, 2, 4), "bias": (4,)},
        "depthwise": {"kernel": (3, 3, 1, 4)},
        "norm": {"scale": (4,)},
        "head": {"kernel": (4, 5), "bias": (5,)},
    }
    return jax.tree.map(lambda s: rng.normal(size=s).astype(np.float32), shapes, is_leaf=lambda s: isinstance(s, tuple))


PARAMS = drawn(0)
KERNELS = [PARAMS[module]["kernel"] for module in ("conv", "depthwise", "head")]
LIMITS = (0.0, 0.5, 2.5, 100.0)


@pytest.fixture(scope="module")
def constrained() -> dict:
    """A lane for each limit and one without, in one program: the limit is traced."""
    return jax.jit(jax.vmap(lambda limit: max_norm(PARAMS, limit)))(jnp.asarray([*LIMITS, jnp.inf]))


@pytest.mark.parametrize("i", range(len(LIMITS)))
def test_max_norm_scales_each_unit_of_each_kernel(constrained: dict, i: int) -> None:
    expected = jax.tree.map(np.float64, PARAMS)
    scaled = 0
    for module in ("conv", "depthwise", "head"):
        kernel = expected[module]["kernel"]
        for unit in range(kernel.shape[-1]):
            norm = np.sqrt((kernel[..., unit] ** 2).sum())
            scaled += norm > LIMITS[i]
            kernel[..., unit] *= min(1, LIMITS[i] / norm)
    mine = jax.tree.map(lambda leaf: leaf[i], constrained)
    chex.assert_trees_all_close(mine, expected, rtol=1e-5)
    assert (0 < scaled < 13) == (LIMITS[i] == 2.5)


def test_without_a_limit_max_norm_changes_nothing_bit_for_bit(constrained: dict) -> None:
    chex.assert_trees_all_equal(jax.tree.map(lambda leaf: leaf[-1], constrained), PARAMS)
    chex.assert_trees_all_equal(max_norm(PARAMS, float("inf")), PARAMS)
    for leaf in (np.float32([[-0.0, np.nan, np.inf]]), np.zeros((2, 3), np.float32)):
        assert np.asarray(max_norm({"kernel": leaf}, np.inf)["kernel"]).tobytes() == leaf.tobytes()


def test_max_norm_leaves_units_within_the_limit_alone_bit_for_bit() -> None:
    once = max_norm(PARAMS, 2.5)
    for module in ("conv", "depthwise", "head"):
        before, after = PARAMS[module]["kernel"], np.asarray(once[module]["kernel"])
        short = np.sqrt((before**2).sum(tuple(range(before.ndim - 1)))) < 2.499
        np.testing.assert_array_equal(after[..., short], before[..., short])


def test_max_norm_constrains_selected_layers_only() -> None:
    paths = []

    def select(path: tuple[str, ...]) -> bool:
        paths.append(path)
        return path[0] == "head"

    found = max_norm(PARAMS, 0.5, select)
    assert sorted(paths) == [("conv", "kernel"), ("depthwise", "kernel"), ("head", "kernel")]
    expected = {**PARAMS, "head": max_norm(PARAMS, 0.5)["head"]}
    chex.assert_trees_all_equal(found, expected)


def test_penalties_are_sums_over_kernels() -> None:
    assert float(l1_penalty(PARAMS, 0.3)) == pytest.approx(0.3 * sum(np.abs(w).sum() for w in KERNELS), rel=1e-6)
    assert float(l2_penalty(PARAMS, 0.3)) == pytest.approx(0.15 * sum((w**2).sum() for w in KERNELS), rel=1e-6)


def test_the_gradient_of_the_l2_penalty_is_coupled_weight_decay() -> None:
    gradient = jax.jit(jax.grad(l2_penalty))(PARAMS, 0.3)
    zeros, decay = jax.tree.map(np.zeros_like, PARAMS), kernel_decay(0.3)
    chex.assert_trees_all_close(gradient, decay.update(zeros, decay.init(PARAMS), PARAMS)[0], rtol=1e-6)


def test_the_gradient_of_the_l1_penalty_is_the_sign() -> None:
    gradient = jax.jit(jax.grad(l1_penalty))(PARAMS, 0.3)
    np.testing.assert_allclose(gradient["head"]["kernel"], 0.3 * np.sign(PARAMS["head"]["kernel"]), rtol=1e-6)
    assert not gradient["head"]["bias"].any()
    assert not jax.grad(l1_penalty)({"kernel": jnp.zeros((2, 2))}, 0.3)["kernel"].any()


@pytest.mark.parametrize("penalty", [l1_penalty, l2_penalty])
def test_a_factor_of_zero_adds_nothing_bit_for_bit(penalty) -> None:
    task = lambda p: jnp.sum(jnp.sin(p["head"]["kernel"])) + jnp.sum(p["head"]["bias"] ** 2)  # noqa: E731
    plain = jax.jit(jax.value_and_grad(task))(PARAMS)
    both = jax.jit(jax.value_and_grad(lambda p, factor: task(p) + penalty(p, factor)))(PARAMS, jnp.float32(0))
    chex.assert_trees_all_equal(both, plain)


DECAYS = (0.0, 0.5, 0.99, 0.9999)


@pytest.fixture(scope="module")
def averages() -> dict:
    """[lane, step, ...] in one program: decay and step are traced. The average is filled with rubbish at the start."""

    def run(decay: jax.Array) -> dict:
        def step(average: dict, i: jax.Array) -> tuple:
            average = ema(average, {"w": jnp.asarray(path())[i]}, decay, i + 1)
            return average, average

        return jax.lax.scan(step, {"w": jnp.full(3, jnp.nan)}, jnp.arange(STEPS))[1]

    return jax.jit(jax.vmap(run))(jnp.asarray(DECAYS))


def path() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(STEPS, 3)).astype(np.float32)


@pytest.mark.parametrize("i", range(len(DECAYS)))
def test_the_average_is_the_debiased_one_at_every_step(averages: dict, i: int) -> None:
    decay, params = DECAYS[i], path().astype(np.float64)
    moment, expected = np.zeros(3), []
    for step in range(STEPS):
        moment = decay * moment + (1 - decay) * params[step]
        expected.append(moment / (1 - decay ** (step + 1)))
    # float32's rounding of 1 - decay shows where decay is next to 1.
    np.testing.assert_allclose(averages["w"][i], expected, rtol=1e-4, atol=1e-5)


def test_the_average_equals_optax(averages: dict) -> None:
    rule = optax.ema(0.99, debias=True)
    step = lambda state, w: rule.update(w, state)[::-1]  # noqa: E731
    expected = jax.jit(lambda: jax.lax.scan(step, rule.init(jnp.zeros(3)), jnp.asarray(path()))[1])()
    np.testing.assert_allclose(averages["w"][DECAYS.index(0.99)], expected, rtol=1e-4, atol=1e-5)


def test_without_decay_the_average_is_the_params_bit_for_bit(averages: dict) -> None:
    np.testing.assert_array_equal(averages["w"][0], path())


def test_the_first_average_is_the_first_params_bit_for_bit(averages: dict) -> None:
    for i in range(len(DECAYS)):
        np.testing.assert_array_equal(averages["w"][i, 0], path()[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: max_norm(PARAMS, -1.0), "limit -1.0 is not 0 or a positive number"),
        (lambda: max_norm(PARAMS, float("nan")), "limit nan"),
        (lambda: l1_penalty(PARAMS, -0.1), "penalty factor -0.1"),
        (lambda: l2_penalty(PARAMS, float("inf")), "penalty factor inf"),
        (lambda: ema(PARAMS, PARAMS, 1.0, 1), r"decay 1.0 .* is not in \[0, 1\)"),
        (lambda: ema(PARAMS, PARAMS, -0.1, 1), "decay -0.1"),
    ],
)
def test_numbers_out_of_range_are_refused(call, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()
