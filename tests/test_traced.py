"""Numbers that are known are checked whatever holds them; traced ones are taken on trust."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.checks.traced import check_progress, is_whole_in, violates
from fishnet.errors import UsageError
from fishnet.losses import cross_entropy, defer_weights, focal, poly1
from fishnet.models.mc_dropout import check_passes
from fishnet.nn.dropout import alpha_dropout, apply_in_training, check_rate, dropout, mixed_dropout, spatial_dropout
from fishnet.nn.parametric import coefficient_or_default
from fishnet.nn.stochastic_depth import linear_rates, stochastic_depth
from fishnet.optim.clipping import check_limit
from fishnet.optim.constraints import check_factor
from fishnet.optim.decay import check_numbers
from fishnet.optim.plateau import init_plateau, update_plateau
from fishnet.optim.sam import sam_ascend
from fishnet.optim.schedules import cyclic_sine, with_floor, with_warmup
from fishnet.pretraining.contrastive import nt_xent

KEY, MAPS = jax.random.key(0), jnp.ones((2, 4, 4, 3))
LOGITS, LABELS = jnp.zeros((2, 3)), jnp.array([0, 2])
HOLDERS = {
    "Python": float,
    "NumPy scalar": np.float32,
    "NumPy array": lambda x: np.array([x, x]),
    "JAX scalar": jnp.float32,
    "JAX array": lambda x: jnp.array([0.5, x]),
}
# What takes a number, and numbers that it must refuse.
RANGES = {
    "progress": (check_progress, [-0.1, 1.1, 50]),
    "warmup": (lambda x: with_warmup(jnp.ones_like, 0.5, x), [-0.1, 1, 2]),
    "floor": (lambda x: with_floor(0.5, x), [-0.1, 1.1]),
    "cycles": (lambda x: cyclic_sine(0.5, x), [0, -1, np.inf]),
    "plateau factor": (lambda x: update_plateau(init_plateau(), 1.0, factor=x), [0, 1, -1]),
    "plateau patience": (lambda x: update_plateau(init_plateau(), 1.0, patience=x), [-1]),
    "plateau minimum": (lambda x: update_plateau(init_plateau(), 1.0, minimum=x), [-0.1, 1.1]),
    "momentum": (lambda x: check_numbers(x, 0.0), [-0.1, 1]),
    "weight decay": (lambda x: check_numbers(0.0, x), [-0.1, np.inf]),
    "penalty": (check_factor, [-1, np.inf]),
    "clipping": (check_limit, [-1]),
    "rho": (lambda x: sam_ascend(jnp.ones(3), jnp.ones(3), x), [-1, np.inf]),
    "gamma": (lambda x: focal(LOGITS, LABELS, gamma=x), [-1, np.inf]),
    "smoothing": (lambda x: cross_entropy(LOGITS, LABELS, smoothing=x), [-0.1, 1]),
    "epsilon": (lambda x: poly1(LOGITS, LABELS, epsilon=x), [-2, np.inf]),
    "start": (lambda x: defer_weights(jnp.ones(3), 0.5, x), [-0.1, 1.1]),
    "deferred's progress": (lambda x: defer_weights(jnp.ones(3), x), [-1, 160]),
    "dropout": (check_rate, [-0.1, 1, 2]),
    "dropout, by layers": (lambda x: apply_in_training(print, x, print, jnp.ones(2), True), [-0.1, 1]),
    "dropout, pure": (lambda x: dropout(KEY, MAPS, x), [-0.1, 1, 2]),
    "spatial dropout": (lambda x: spatial_dropout(KEY, MAPS, x), [-0.1, 1, 2]),
    "alpha dropout": (lambda x: alpha_dropout(KEY, MAPS, x), [-0.1, 1, 2]),
    "one of the dropouts": (lambda x: mixed_dropout(0, KEY, MAPS, x), [-0.1, 1, 2]),
    "kind of dropout": (lambda x: mixed_dropout(x, KEY, MAPS, 0.5), [-1, 3, 0.5]),
    "stochastic depth, pure": (lambda x: stochastic_depth(KEY, MAPS, x), [-0.1, 1, 2]),
    "stochastic depth": (lambda x: linear_rates(x, 3), [-0.1, 1]),
    "coefficient": (lambda x: coefficient_or_default(x, 0.1), [np.inf]),
    "temperature": (lambda x: nt_xent(jnp.ones((4, 2)), x), [0, -1, np.inf]),
    "passes": (check_passes, [0, -1, 2.5, np.inf]),
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("what", RANGES)
def test_a_known_number_out_of_its_range_is_refused_whatever_holds_it(what: str, holder: str) -> None:
    f, values = RANGES[what]
    nan = [] if what == "coefficient" else [np.nan]  # where NaN stands for the default
    for value in [*values, *nan]:
        with pytest.raises(UsageError):
            f(HOLDERS[holder](value))


def test_traced_numbers_are_taken_on_trust() -> None:
    seen = []

    def f(x: jax.Array) -> jax.Array:
        seen.append(violates(x, lambda x: x < 0))
        return x

    for transformed in (jax.jit(f), jax.vmap(f), jax.grad(lambda x: f(x).sum())):
        transformed(jnp.ones(3))
    assert seen == [False] * 3
    assert violates(jnp.ones(3), lambda x: x < 0)


@pytest.mark.parametrize("value", [0, 3.0, np.uint8(255), np.int64(2**31 - 1), [0, 1.0], jnp.arange(3)])
def test_whole_numbers_hold(value) -> None:
    assert not violates(value, is_whole_in(0, 2**31))


@pytest.mark.parametrize("value", [-1, 0.5, 2**31, np.nan, np.inf, [0, 1.5], jnp.array([-1, 0])])
def test_others_do_not(value) -> None:
    assert violates(value, is_whole_in(0, 2**31))
