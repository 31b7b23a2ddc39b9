"""All models: parameter counts in closed form, sites, affinity, a golden step each."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fishnet.errors import UsageError
from fishnet.models import MODELS
from fishnet.models.network import pick_site
from fishnet.nn.activations import identity, relu
from fishnet.nn.conv_implementations import LOWERINGS
from fishnet.nn.convolution import gemm
from fishnet.nn.initializers import INITIALIZERS
from fishnet.nn.norms import NORMS, BatchNorm, NoNorm
from fishnet.nn.pooling import mean_pool

SIZE, CLASSES = 9, 5
IMAGES = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3)).astype(np.uint8)
LABELS = np.arange(4) % CLASSES
CONSTANTS = {"standardize": {"mean": np.full(3, 128, np.float32), "std": np.full(3, 74, np.float32)}}
WIDTHS = (8, 16)
EXPERTS = (1, 3)

# Every model, and what differs from it in structure: the class, its fields, its sites at depth 1.
CASES = {
    "mlp": ("mlp", {}, 2),
    "cnn": ("cnn", {}, 2),
    "resnet": ("resnet", {}, 6),
    "preactivation": ("resnet", {"block": "preactivation"}, 5),
    "no shortcut": ("resnet", {"shortcut": "none"}, 5),
    "separable": ("separable", {}, 5),
    "efficientnet": ("efficientnet", {}, 7),
    "hybrid": ("hybrid", {"experts": EXPERTS}, 3),
}


def build(case, **fields):
    name, own, _ = CASES[case]
    return MODELS[name](**{"classes": CLASSES, "widths": WIDTHS, "depth": 1, **own, **fields})


def compiled(f, *args):
    """`f(*args)` as a program that is quickly made, for it runs little."""
    return jax.jit(f).lower(*args).compile(compiler_options={"xla_backend_optimization_level": 0})


def initial(model):
    """Variables of `model`: normal kernels of variance 2 / fan in, other parameters at rest, the images' constants."""
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        if leaf.ndim > 1:
            return (rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))).astype(np.float32)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)

    return {**jax.tree_util.tree_map_with_path(fill, shapes(model)), "constants": CONSTANTS}


def shapes(model):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES, False))


def size(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def test_the_cases_are_all_models():
    assert {name for name, _, _ in CASES.values()} == set(MODELS)


def mlp_count(widths, depth, extra, gate):
    total, before = 0, SIZE * SIZE * 3
    for width in (w for w in widths for _ in range(depth)):
        total, before = total + (before + extra) * width, width
    return total + (before + 1) * CLASSES


def cnn_count(widths, depth, extra, gate):
    total, before = 0, 3
    for width in widths:
        for _ in range(depth):
            total, before = total + (9 * before + extra) * width, width
        total += gate(width, width)
    return total + (before + 1) * CLASSES


def resnet_count(widths, depth, extra, gate, projection=None):
    total, before = (9 * 3 + extra) * widths[0], widths[0]
    for stage, width in enumerate(widths):
        for block in range(depth):
            total += (9 * before + extra) * width + (9 * width + extra) * width + gate(width, width)
            if before != width or (stage and not block):
                total += (before + extra) * width if projection is None else projection * before * width
            before = width
    return total + (before + 1) * CLASSES


def separable_count(widths, depth, extra, gate):
    total, before = (9 * 3 + extra) * widths[0], widths[0]
    for width in (w for w in widths for _ in range(depth)):
        total += (9 + extra) * before + (before + extra) * width + gate(width, width)
        before = width
    return total + (before + 1) * CLASSES


def efficientnet_count(widths, depth, extra, gate):
    total, before = (9 * 3 + extra) * widths[0], widths[0]
    for stage, width in enumerate(widths):
        for _ in range(depth):
            within = 4 * before if stage else before
            total += (before + extra) * within if stage else 0
            total += (9 + extra) * within + gate(within, before) + (within + extra) * width
            before = width
    return total + (before + extra) * 2 * before + (2 * before + 1) * CLASSES


def hybrid_count(widths, depth, extra, gate):
    width = widths[-1]
    return cnn_count(widths, depth, extra, gate) + (9 * width + extra) * width + (width + 1) * len(EXPERTS)


COUNTS = {
    "mlp": mlp_count,
    "cnn": cnn_count,
    "resnet": resnet_count,
    "preactivation": partial(resnet_count, projection=1),
    "no shortcut": partial(resnet_count, projection=0),
    "separable": separable_count,
    "efficientnet": efficientnet_count,
    "hybrid": hybrid_count,
}

# Widths, depth, norm with its parameters a channel, its position, squeeze-and-excitation.
LAYOUTS = (
    ((16, 40), 2, NoNorm, 1, "post", 0),
    ((16, 16, 40), 1, BatchNorm, 2, "pre", 2),
)


@pytest.mark.parametrize("case", CASES)
def test_parameter_counts(case):
    for widths, depth, norm, per_norm, position, reduction in LAYOUTS:
        position = "pre" if case == "preactivation" else position
        reduction = 0 if case == "mlp" else reduction
        model = build(case, widths=widths, depth=depth, norm=norm, norm_position=position, se_reduction=reduction)

        def gate(channels, base, reduction=reduction):
            units = max(8, base // reduction) if reduction else 0
            return (2 * units * channels + units + channels) if units else 0

        expected = COUNTS[case](widths, depth, per_norm + (position == "post"), gate)
        assert size(shapes(model)["params"]) == expected, (widths, depth)


@pytest.mark.parametrize("case", CASES)
def test_sites_have_numbers_in_a_row_and_norms_of_their_own(case):
    sites = CASES[case][2]
    for chosen in (range(0, sites, 2), range(1, sites, 2)):
        norms = [BatchNorm if site in chosen else NoNorm for site in range(sites)]
        variables = shapes(build(case, norm=norms))
        assert set(variables["batch_stats"]) == {f"norm_{site}" for site in chosen}
        layers = {name for name in variables["params"] if name.startswith(("conv_", "dense_"))}
        assert layers == {f"{'dense' if case == 'mlp' else 'conv'}_{site}" for site in range(sites)}
        for site in range(sites):  # what the engine builds on: scale and shift of a site are as wide as its layer
            kernel = variables["params"][f"{'dense' if case == 'mlp' else 'conv'}_{site}"]["kernel"]
            assert variables["params"][f"norm_{site}"]["bias"].size == kernel.shape[-1]
        assert f"norm_{sites}" not in variables["params"]
    with pytest.raises(UsageError, match=f"site {sites - 1}"):
        shapes(build(case, norm=[NoNorm] * (sites - 1)))


POSITIONS = [(c, p) for c in CASES for p in ("pre", "post") if (c, p) != ("preactivation", "post")]


@pytest.mark.parametrize(("case", "position"), POSITIONS)
def test_every_model_is_affine_without_its_nonlinear_parts(case, position):
    model = build(case, act=identity, norm=NoNorm, pool=mean_pool, norm_position=position, se_reduction=0)
    variables = initial(model)
    # Biases start at 0, where an activation that was forgotten could pass as linear on one side.
    rng = np.random.default_rng(2)
    variables["params"] = jax.tree.map(
        lambda p: rng.normal(size=p.shape).astype(np.float32) if p.ndim == 1 else p, variables["params"]
    )
    x, y = IMAGES.astype(np.float32).reshape(2, 2, SIZE, SIZE, 3)
    batch = np.concatenate([x, y, 0.3 * x + 0.7 * y]).astype(np.float32)
    logits = compiled(partial(model.apply, train=True), variables, batch)(variables, batch)
    f_x, f_y, whole = np.split(np.asarray(logits), 3)
    parts = 0.3 * f_x + 0.7 * f_y
    np.testing.assert_allclose(whole, parts, atol=1e-5 * np.abs(parts).max())


# Loss, norm of the gradient, loss after a step of length 0.1 down the gradient. Written down at the first version that
# passed everything else here (jax 0.10.1, CPU); they change only when the meaning of a model does.
GOLDEN = {
    "mlp": (1.754457, 6.898035, 1.442121),
    "cnn": (1.885242, 3.226962, 1.609249),
    "resnet": (2.037960, 2.077320, 1.841896),
    "preactivation": (1.627884, 1.263589, 1.509423),
    "separable": (2.591260, 4.234395, 2.208286),
    "efficientnet": (1.618544, 1.334341, 1.495708),
    "hybrid": (2.200431, 3.260304, 1.896275),
}


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "kernels"])
@pytest.mark.parametrize("case", GOLDEN)
def test_golden_step(case, fused, request):
    """With the convolutions of this test's models, and with compiled kernels: they differ by rounding."""
    model = build(case)
    if fused:
        if case == "mlp":
            pytest.skip("it has no convolutions")
        request.getfixturevalue("kernels")
        model = model.clone(conv=LOWERINGS["cpu_kernels"], fused=True)
    variables = initial(model)

    def loss(params, variables):
        logits, _ = model.apply({**variables, "params": params}, IMAGES, True, mutable=["batch_stats"])
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), LABELS[:, None], 1).mean()

    def step(variables):
        value, grads = jax.value_and_grad(loss)(variables["params"], variables)
        norm = jnp.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grads)))
        return value, norm, jax.tree.map(lambda p, g: p - 0.1 * g / norm, variables["params"], grads)

    program = compiled(step, variables)
    before, norm, moved = program(variables)
    after, _, _ = program({**variables, "params": moved})
    np.testing.assert_allclose((before, norm, after), GOLDEN[case], rtol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_keeps_parameters_and_logits_in_float32(case):
    model = build(case, dtype=jnp.bfloat16, se_reduction=0 if case == "mlp" else 4)
    variables = shapes(model)
    outputs = jax.eval_shape(lambda v: model.apply(v, IMAGES, True, mutable=["batch_stats"]), variables)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((variables, outputs)))
    if case != "mlp":  # the computation is not
        maps, _ = jax.eval_shape(lambda v: model.clone(headless=True).apply(v, IMAGES, False, mutable=()), variables)
        assert maps.dtype == jnp.bfloat16


def test_bfloat16_is_close():
    models = build("cnn", dtype=jnp.bfloat16), build("cnn")
    variables = initial(models[0])
    low, exact = compiled(lambda v: [m.apply(v, IMAGES, False) for m in models], variables)(variables)
    np.testing.assert_allclose(low, exact, atol=0.05 * np.abs(exact).max())
    assert (np.asarray(low) != exact).any()


@pytest.mark.parametrize("case", ["resnet", "separable", "efficientnet"])
def test_the_gemm_lowering_gives_what_xla_gives(case):
    models = build(case, conv=gemm), build(case)
    variables = initial(models[0])
    ours, native = compiled(lambda v: [m.apply(v, IMAGES, False) for m in models], variables)(variables)
    np.testing.assert_allclose(ours, native, atol=1e-5 * np.abs(native).max())


def test_maps_stop_shrinking():
    variables = shapes(build("cnn", widths=(8,) * 6))
    assert "conv_5" in variables["params"]


@pytest.mark.parametrize("name", ["resnet", "efficientnet"])
def test_stem_stride(name):
    maps = [
        jax.eval_shape(
            lambda s=s: build(name, stem_stride=s, headless=True).init_with_output(jax.random.key(0), IMAGES, False)
        )
        for s in (1, 2)
    ]
    assert [m[0].shape[1:3] for m in maps] == [(5, 5), (3, 3)]
    assert size(maps[0][1]["params"]) == size(maps[1][1]["params"])


@pytest.mark.parametrize("case", CASES)
def test_the_initialiser_makes_every_kernel(case):
    made = []

    def kernel_init(key, shape, dtype):
        made.append(tuple(shape))
        return jnp.zeros(shape, dtype)

    params = shapes(build(case, kernel_init=kernel_init, se_reduction=0 if case == "mlp" else 4))["params"]
    assert sorted(made) == sorted(leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim > 1)
    assert build(case).kernel_init is INITIALIZERS["he_normal"]


def test_norms_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="instance norm over a single value"):
        shapes(build("mlp", norm=NORMS["instance"]))
    with pytest.raises(UsageError, match="8 groups, 12 channels"):
        shapes(build("cnn", widths=(8, 12), norm=NORMS["group"]))


def test_at():
    assert pick_site(relu, 3) is relu
    assert pick_site([relu, identity], 1) is identity
