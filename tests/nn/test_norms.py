"""Norms against flax.linen and against naive formulas: values, gradients, running statistics, static and traced."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fishnet.errors import UsageError
from fishnet.nn.moments import affine, moments
from fishnet.nn.norm_formulas import EPS, KINDS, WEIGHT_KINDS, check_norm
from fishnet.nn.norms import NORMS, BatchNorm, GroupNorm, InstanceNorm, LayerNorm, MomentNorm, RMSNorm
from fishnet.nn.weight_norms import initial_scale, normalize_kernel, normalize_kernel_by_kind, standardize_kernel

C = 16
SHAPES = {"maps": (6, 5, 4, C), "values": (12, C)}
CASES = [(kind, rank) for kind in KINDS for rank in SHAPES if (kind, rank) != ("instance", "values")]


def data(rank, offset=0.7, dtype=jnp.float32):
    """Inputs with a mean and a spread that differ from channel to channel, an upstream gradient, scale and bias."""
    rng = np.random.default_rng(len(rank))
    shape = SHAPES[rank]
    x = rng.normal(size=shape) * rng.uniform(0.5, 2, C) + offset * rng.normal(size=C)
    scale, bias = rng.uniform(0.5, 1.5, C), rng.normal(size=C)
    return [jnp.asarray(a, jnp.float32) for a in (x, rng.normal(size=shape), scale, bias)]


def reference(kind, rank):
    """The same norm from flax.linen, whose default E[x^2] - E[x]^2 loses the digits that are compared."""
    sound = {"epsilon": 1e-5, "use_fast_variance": False}
    if kind == "none":
        return nn.BatchNorm(use_running_average=True, epsilon=0.0, use_scale=False)
    if kind == "batch":
        return nn.BatchNorm(use_running_average=False, momentum=0.9, **sound)
    if kind == "layer":
        return nn.LayerNorm(reduction_axes=(1, 2, 3) if rank == "maps" else (1,), feature_axes=-1, **sound)
    if kind == "layer_channel":
        return nn.LayerNorm(**sound)
    if kind in ("rms", *WEIGHT_KINDS):
        return ByHand(kind)
    return nn.GroupNorm(num_groups=8, **sound) if kind == "group" else nn.InstanceNorm(**sound)


class ByHand(nn.Module):
    """What flax.linen has not, or has without a bias."""

    kind: str

    @nn.compact
    def __call__(self, x):
        scale, bias = self.param("scale", nn.initializers.ones, (C,)), self.param("bias", nn.initializers.zeros, (C,))
        if self.kind == "rms":
            x = nn.RMSNorm(epsilon=1e-5, reduction_axes=tuple(range(1, x.ndim)), use_scale=False).apply({}, x)
        return x * scale + bias


def close(ours, theirs, tol=1e-5):
    """Equal within `tol` of the largest entry, or of 1."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tol * max(1.0, float(np.abs(theirs).max())))


def evaluate(apply, variables, x, dy):
    """Output, updates and gradients with respect to parameters and x of `apply(variables, x)`."""

    def f(params, x):
        return apply({**variables, "params": params}, x)

    @jax.jit
    def run(params, x, dy):
        y, pull, updates = jax.vjp(f, params, x, has_aux=True)
        return y, updates, *pull(dy)

    return run(variables["params"], x, dy)


def ours(module, variables, x, dy, train=True):
    return evaluate(lambda v, x: module.apply(v, x, train, mutable=["batch_stats"]), variables, x, dy)


def restricted(kind, variables):
    """The variables of MomentNorm that the static module has."""
    shapes = jax.eval_shape(lambda: NORMS[kind]().init(jax.random.key(0), jnp.zeros((2, 2, 2, C)), False))
    return {name: {leaf: variables[name][leaf] for leaf in leaves} for name, leaves in shapes.items()}


def all_variables(scale, bias):
    stats = {"mean": jnp.linspace(-1, 1, C), "var": jnp.linspace(0.5, 2, C)}
    return {"params": {"scale": scale, "bias": bias}, "batch_stats": stats}


@pytest.mark.parametrize(("kind", "rank"), CASES)
def test_equals_flax(kind, rank):
    x, dy, scale, bias = data(rank)
    variables = restricted(kind, all_variables(scale, bias))
    flax = reference(kind, rank)
    known = flax.init(jax.random.key(0), x)
    known = {**known, "params": {k: variables["params"][k] for k in known["params"]}}
    if kind == "batch":
        known["batch_stats"] = variables["batch_stats"]
    y, updates, d_params, dx = ours(NORMS[kind](), variables, x, dy)
    expected = evaluate(lambda v, x: flax.apply(v, x, mutable=["batch_stats"]), known, x, dy)
    close(y, expected[0])
    close(dx, expected[3])
    jax.tree.map(close, d_params, expected[2])
    if kind == "batch":
        jax.tree.map(close, updates["batch_stats"], expected[1]["batch_stats"])
        flax = nn.BatchNorm(use_running_average=True, epsilon=1e-5)
        close(NORMS[kind]().apply(variables, x, False), flax.apply(variables, x))
    else:
        assert not jax.tree.leaves(updates)
        assert (NORMS[kind]().apply(variables, x, False) == NORMS[kind]().apply(variables, x, True)).all()


@jax.jit
def traced(kind, variables, x, dy, train_scale=1.0):
    """MomentNorm with a traced kind: output, new statistics, gradients, and the output in evaluation."""

    def f(params, x):
        return MomentNorm(kind).apply({**variables, "params": params}, x, True, mutable=["batch_stats"])

    y, pull, updates = jax.vjp(f, variables["params"], x, has_aux=True)
    return y, updates["batch_stats"], *pull(dy), MomentNorm(kind).apply(variables, x, False)


@pytest.mark.parametrize(
    ("kind", "rank"), [case if case[1] == "values" else pytest.param(*case, marks=pytest.mark.slow) for case in CASES]
)
def test_a_traced_kind_equals_the_static_module(kind, rank):
    x, dy, scale, bias = data(rank)
    variables = all_variables(scale, bias)
    index = KINDS.index(kind)
    y, stats, d_params, dx, y_eval = traced(jnp.int32(index), variables, x, dy)
    static = [(NORMS[kind](), restricted(kind, variables))]
    if rank == "values":  # where it is soon compiled
        static.append((MomentNorm(index), variables))
    for module, own in static:
        expected, updates, d_expected, dx_expected = ours(module, own, x, dy)
        close(y, expected)
        close(dx, dx_expected)
        close(y_eval, module.apply(own, x, False))
        jax.tree.map(close, {name: d_params[name] for name in d_expected}, d_expected)
        if kind == "batch":
            jax.tree.map(close, stats, updates["batch_stats"])
    if kind != "batch":
        jax.tree.map(np.testing.assert_array_equal, stats, variables["batch_stats"])
    if kind == "none":
        assert (y == x + bias).all() and (dx == dy).all() and (d_params["scale"] == 0).all()


@pytest.mark.slow
def test_kinds_side_by_side_under_vmap():
    x, dy, scale, bias = data("maps")
    variables = all_variables(scale, bias)
    kinds = jnp.arange(len(KINDS))
    run = partial(traced, variables=variables, x=x, dy=dy)
    alone = [run(kind) for kind in kinds]
    together = jax.jit(jax.vmap(run))(kinds)
    for i, one in enumerate(alone):
        jax.tree.map(lambda a, b, i=i: close(a[i], b), together, one)


def test_equivalences():
    x, dy, scale, bias = data("maps")
    variables = {"params": {"scale": scale, "bias": bias}}
    for special, general in ((LayerNorm(), GroupNorm(groups=1)), (InstanceNorm(), GroupNorm(groups=C))):
        jax.tree.map(close, ours(special, variables, x, dy)[2:], ours(general, variables, x, dy)[2:])
    centred = x - x.mean((1, 2, 3), keepdims=True)
    close(RMSNorm().apply(variables, centred, True), LayerNorm().apply(variables, x, True))
    pixels = x.reshape(-1, C)
    close(NORMS["layer_channel"]().apply(variables, x, True).reshape(-1, C), LayerNorm().apply(variables, pixels, True))


@pytest.mark.parametrize("rank", ["values", pytest.param("maps", marks=pytest.mark.slow)])
def test_ghost_batches_are_batches_of_their_own(rank):
    x, dy, scale, bias = data(rank)
    variables = all_variables(scale, bias)
    parts = jnp.split(x, 3), jnp.split(dy, 3)
    apart = [ours(BatchNorm(), variables, *part) for part in zip(*parts, strict=True)]
    size, batch = len(x) // 3, jnp.int32(KINDS.index("batch"))
    for ghosts in (BatchNorm(ghost=size), MomentNorm(batch, ghost=size)):
        y, updates, d_params, dx = ours(ghosts, variables, x, dy)
        close(y, jnp.concatenate([part[0] for part in apart]))
        close(dx, jnp.concatenate([part[3] for part in apart]))
        jax.tree.map(lambda mine, *theirs: close(mine, sum(theirs)), d_params, *[part[2] for part in apart])
        expected = jax.tree.map(lambda *s: sum(s) / 3, *[part[1]["batch_stats"] for part in apart])
        jax.tree.map(close, updates["batch_stats"], expected)
        close(ghosts.apply(variables, x, False), BatchNorm().apply(variables, x, False))
    whole = ours(MomentNorm(batch, ghost=len(x)), variables, x, dy)
    jax.tree.map(close, whole, ours(MomentNorm(batch), variables, x, dy))
    with pytest.raises(UsageError, match="ghost batches of 5 do not divide a batch of"):
        ours(BatchNorm(ghost=5), variables, x, dy)


@pytest.mark.parametrize("shape", [(7, 5), (3, 3, 4, 5), (3, 3, 1, 5)])
def test_normalised_kernels(shape):
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(0.3, 1, shape), jnp.float32)
    x = jnp.asarray(rng.normal(size=(6, shape[0])), jnp.float32)
    rows, by_kind = kernel.reshape(-1, shape[-1]), partial(normalize_kernel_by_kind, weight=1, standardized=2)
    np.testing.assert_allclose(jnp.linalg.norm(normalize_kernel(kernel).reshape(-1, 5), axis=0), 1, rtol=1e-5)
    standard = standardize_kernel(kernel).reshape(-1, 5)
    np.testing.assert_allclose(standard, (rows - rows.mean(0)) / rows.std(0) / np.sqrt(len(rows)), atol=1e-6)
    for kind, expected in enumerate((kernel, normalize_kernel(kernel), standardize_kernel(kernel))):
        close(jax.jit(by_kind)(jnp.int32(kind), kernel=kernel), expected, tol=1e-6)
    np.testing.assert_array_equal(jax.jit(by_kind)(jnp.int32(0), kernel=kernel), kernel)
    close(normalize_kernel(kernel) * initial_scale("weight", kernel), kernel)
    close(standardize_kernel(kernel) * initial_scale("weight_standardized", kernel), kernel - rows.mean(0))
    assert not normalize_kernel(jnp.zeros(shape)).any()
    assert jnp.isfinite(jax.grad(lambda k: normalize_kernel(k).sum())(jnp.zeros(shape))).all()
    if len(shape) == 2:
        dense = nn.Dense(5, use_bias=False)
        theirs = nn.WeightNorm(dense, variable_filter={"kernel"})
        variables = theirs.init(jax.random.key(0), x)
        scale = next(leaf for leaf in jax.tree.leaves(variables["params"]) if leaf.ndim == 1)
        held = jax.tree.map(lambda leaf: kernel if leaf.ndim == 2 else leaf, variables)
        close(x @ normalize_kernel(kernel) * scale, theirs.apply(held, x))


def test_leaves():
    x = jnp.zeros((2, 4, 4, C))
    leaves = {kind: jax.tree.map(jnp.shape, NORMS[kind]().init(jax.random.key(0), x, True)) for kind in KINDS}
    params = {"scale": (C,), "bias": (C,)}
    assert leaves["none"] == {"params": {"bias": (C,)}}
    assert leaves["batch"] == {"params": params, "batch_stats": {"mean": (C,), "var": (C,)}}
    assert all(leaves[kind] == {"params": params} for kind in KINDS if kind not in ("none", "batch"))
    initial = MomentNorm(jnp.int32(1)).init(jax.random.key(0), x, True)
    assert jax.tree.map(jnp.shape, initial) == leaves["batch"]
    assert (initial["batch_stats"]["mean"] == 0).all() and (initial["batch_stats"]["var"] == 1).all()


@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4])
def test_moments_lose_no_digits_to_an_offset(offset):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 7, 9, C)) + offset, jnp.float32)
    mean, var = moments(x)
    exact = np.asarray(x, np.float64)
    # The mean is a float32 sum (1e-6 of the offset at most), and the variance is taken around it.
    np.testing.assert_allclose(mean, exact.mean((1, 2)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(var, exact.var((1, 2)), rtol=1e-5 + (1e-6 * offset) ** 2)


def test_a_constant_map_stays_quiet():
    x = jnp.full((2, 5, 7, C), 123.456)
    assert (moments(x)[1] >= 0).all()
    for kind in ("batch", "layer", "group", "instance", "layer_channel"):
        y = NORMS[kind]().init_with_output(jax.random.key(0), x, True)[0]
        assert jnp.abs(y).max() < 0.02  # the rounding of the mean, 1e-7 of 123, over sqrt(eps)


def naive_norm(x, scale, bias):
    axes = tuple(range(1, x.ndim - 1))
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias


def moment_norm(x, scale, bias):
    mean, var = moments(x)
    gain = lax.rsqrt(var + 1e-5) * scale
    return affine(x, mean, gain, jnp.broadcast_to(bias, gain.shape))


def test_first_and_second_gradients_equal_autodiff():
    x, dy, scale, bias = data("maps")

    @partial(jax.jit, static_argnums=0)
    def gradients(f, *args):
        first = jax.grad(lambda *a: (f(*a) * dy).sum(), (0, 1, 2))
        return first(*args), jax.grad(lambda x: (first(x, scale, bias)[0] ** 2).sum())(x)

    jax.tree.map(close, gradients(moment_norm, x, scale, bias), gradients(naive_norm, x, scale, bias))


@pytest.mark.parametrize("kind", KINDS)
def test_low_precision_keeps_statistics_in_float32(kind):
    x, dy, scale, bias = data("maps", offset=8.0)
    low = x.astype(jnp.bfloat16)
    variables = restricted(kind, all_variables(scale, bias))
    y, updates, d_params, dx = ours(NORMS[kind](), variables, low, dy.astype(jnp.bfloat16))
    assert y.dtype == dx.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((updates, d_params)))
    exact = NORMS[kind]().apply(variables, low.astype(jnp.float32), True, mutable=["batch_stats"])[0]
    close(np.asarray(y, np.float32), np.asarray(exact.astype(jnp.bfloat16), np.float32), tol=1e-2)


def test_refusals():
    for call in (
        lambda x: GroupNorm().init(jax.random.key(0), x, True),
        lambda x: MomentNorm(KINDS.index("group")).init(jax.random.key(0), x, True),
    ):
        with pytest.raises(UsageError, match="8 groups, 12 channels"):
            call(jnp.zeros((2, 4, 4, 12)))
    for shape in ((2, C), (2, 1, 1, C)):
        for module in (InstanceNorm(), MomentNorm(KINDS.index("instance"))):
            with pytest.raises(UsageError, match=r"instance norm over a single value.* maps of two pixels or more"):
                module.init(jax.random.key(0), jnp.zeros(shape), True)
    check_norm("group", (2, 24), groups=8)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("none", *WEIGHT_KINDS)])
def test_a_norm_is_refused_where_no_gradient_passes_it(kind):
    """By central differences of `(x - M) / sqrt(V + eps)` in NumPy; of two values it gives -1 and 1 at best."""
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (3, 1), (1, 8), (3, 8), (1, 24), (1, 1, 1, 8), (1, 3, 1, 8), (4, 1, 1, 24)):
        for ghost in (0, 1) if kind == "batch" else (0,):
            groups, x = min(8, shape[-1]), rng.normal(size=(shape[0], int(np.prod(shape[1:-1])), shape[-1])) + 3

            def normalised(x, groups=groups, ghost=ghost):
                blocks = {
                    "batch": x if not ghost else x[:, None],
                    "group": x.reshape(*x.shape[:2], groups, -1),
                }.get(kind, x)
                axes = {"batch": (0, 1) if not ghost else (1, 2), "group": (1, 3), "instance": 1, "layer_channel": 2}
                over = axes.get(kind, (1, 2))
                mean = 0 if kind == "rms" else blocks.mean(over, keepdims=True)
                return ((blocks - mean) / np.sqrt(np.square(blocks - mean).mean(over, keepdims=True) + EPS)).ravel()

            moves = [np.eye(x.size)[i].reshape(x.shape) * 1e-3 for i in range(x.size)]
            slope = max(np.abs(normalised(x + move) - normalised(x - move)).max() / 2e-3 for move in moves)
            if slope < 1e-3:
                with pytest.raises(UsageError, match=f"{kind} norm over a single value"):
                    check_norm(kind, shape, groups, ghost)
            else:
                check_norm(kind, shape, groups, ghost)


def test_batch_norm_of_one_value_a_channel():
    """Refused in training, as by PyTorch; initialised and evaluated it may be."""
    for norm in (BatchNorm(), MomentNorm(KINDS.index("batch"))):
        variables = norm.init(jax.random.key(0), jnp.ones((1, C)), True)
        assert jnp.isfinite(norm.apply(variables, jnp.ones((1, C)), False)).all()
        with pytest.raises(UsageError, match="batch norm over a single value"):
            norm.apply(variables, jnp.ones((1, C)), True, mutable=["batch_stats"])
    with pytest.raises(UsageError, match="batch norm over a single value"):
        BatchNorm(ghost=1).apply(variables, jnp.ones((4, C)), True, mutable=["batch_stats"])
    with pytest.raises(UsageError, match="the single weight of each unit becomes 0"):
        standardize_kernel(jnp.ones((1, 5)))


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("norm", [BatchNorm, partial(MomentNorm, KINDS.index("batch"))])
def test_a_frozen_batch_norm_trains_as_flax_evaluates(norm, frozen, traced):
    x, _, scale, bias = data("maps")
    variables = all_variables(scale, bias)
    theirs = nn.BatchNorm(use_running_average=frozen, epsilon=1e-5, momentum=0.9, use_fast_variance=False)

    def step(x, frozen):
        module = norm(frozen=frozen)
        return module.apply(restricted("batch", variables), x, True, mutable=["batch_stats"])

    y, updates = jax.jit(step)(x, frozen) if traced else step(x, frozen)
    expected, moved = theirs.apply(restricted("batch", variables), x, mutable=["batch_stats"])
    close(y, expected)
    jax.tree.map(close, updates["batch_stats"], moved["batch_stats"])
    if frozen:
        jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], variables["batch_stats"])


def test_a_traced_norm_of_channels_that_groups_do_not_divide():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 4, 12)), jnp.float32)
    for kind in ("none", "batch", "layer", "instance"):
        expected = NORMS[kind]().init_with_output(jax.random.key(0), x, True)[0]
        close(MomentNorm(jnp.int32(KINDS.index(kind))).init_with_output(jax.random.key(0), x, True)[0], expected)
