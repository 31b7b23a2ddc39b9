"""The plateau's multiplier against PyTorch's rule in NumPy, PyTorch itself and optax, at every epoch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fishnet.errors import UsageError
from fishnet.optim.plateau import PlateauState, init_plateau, update_plateau

EPOCHS = 60
# (factor, patience, minimum)
LANES = [(0.1, 10, 0.0), (0.5, 2, 0.0), (0.5, 0, 0.1), (0.3, 4, 0.02)]


def losses() -> np.ndarray:
    """A curve that falls, stalls within the threshold, rises, and is NaN and infinite for a while."""
    rng = np.random.default_rng(0)
    curve = np.concatenate([np.linspace(2, 1, 15), 1 - 2e-6 * np.arange(15), 0.9 + 0.1 * rng.random(15), np.ones(15)])
    curve[[20, 50]], curve[51] = np.nan, np.inf
    return curve.astype(np.float32)


@pytest.fixture(scope="module")
def states() -> PlateauState:
    """[lane, epoch] in one program: all numbers are traced."""

    def run(factor: jax.Array, patience: jax.Array, minimum: jax.Array) -> PlateauState:
        def epoch(state: PlateauState, loss: jax.Array) -> tuple[PlateauState, PlateauState]:
            state = update_plateau(state, loss, factor, patience, minimum)
            return state, state

        return jax.lax.scan(epoch, init_plateau(), jnp.asarray(losses()))[1]

    return jax.jit(jax.vmap(run))(*jnp.asarray(LANES).T)


@pytest.mark.parametrize("i", range(len(LANES)))
def test_equals_the_rule_written_out(states: PlateauState, i: int) -> None:
    factor, patience, minimum = LANES[i]
    best, bad, multiplier = np.inf, 0, 1.0
    for epoch, loss in enumerate(losses()):
        if loss < best * (1 - 1e-4):
            best, bad = loss, 0
        else:
            bad += 1
        if bad > patience:
            multiplier, bad = max(multiplier * factor, minimum), 0
        assert float(states.multiplier[i, epoch]) == pytest.approx(multiplier, rel=1e-5)
        assert int(states.bad_epochs[i, epoch]) == bad
        assert float(states.best[i, epoch]) == best
    assert multiplier < 1


@pytest.mark.parametrize("i", range(len(LANES)))
def test_equals_optax(states: PlateauState, i: int) -> None:
    # Optax cuts when the count reaches its patience, PyTorch when it exceeds it.
    factor, patience, minimum = LANES[i]
    rule = optax.contrib.reduce_on_plateau(factor, patience + 1, rtol=1e-4, min_scale=minimum)

    def epoch(state: optax.OptState, loss: jax.Array) -> tuple:
        _, state = rule.update(jnp.ones(()), state, value=loss)
        return state, state.scale

    _, expected = jax.lax.scan(epoch, rule.init(jnp.ones(())), jnp.asarray(losses()))
    np.testing.assert_allclose(states.multiplier[i], expected, rtol=1e-5)


def test_the_state_is_three_scalars_of_fixed_type() -> None:
    state = init_plateau()
    after = jax.eval_shape(update_plateau, state, jnp.float32(1))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert [x.dtype for x in jax.tree.leaves(state)] == [jnp.float32, jnp.int32, jnp.float32]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((1.0, 2, 0.0), "factor 1.0 is not between 0 and 1"),
        ((0.0, 2, 0.0), "factor 0.0"),
        ((0.1, -1, 0.0), "patience -1 is not 0 or more"),
        ((0.1, 2, 1.5), r"minimum 1.5 is not in \[0, 1\]"),
        ((0.1, 2, float("nan")), "minimum nan"),
    ],
)
def test_numbers_out_of_range_are_refused(numbers: tuple, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        update_plateau(init_plateau(), 1.0, *numbers)
