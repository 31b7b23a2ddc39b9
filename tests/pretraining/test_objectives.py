"""Every objective in one program for two lanes: oracles made of plain parts, gradients, descent, keys."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fishnet.models import MODELS
from fishnet.nn.activations import relu, tanh
from fishnet.nn.convolution import gemm
from fishnet.nn.mixed_activation import ActivationByIndex
from fishnet.nn.norm_formulas import KINDS
from fishnet.nn.norms import NormByKind
from fishnet.pretraining import OBJECTIVES
from fishnet.pretraining.decoder import Decoder
from fishnet.pretraining.gan import Generator
from fishnet.pretraining.views import random_view

WIDTHS = (8,)
TRUNK = MODELS["cnn"](classes=3, widths=WIDTHS, conv=gemm)  # relu and batch norm, as in the first lane
ACTS, NORMS = np.int32([0, 1]), np.int32([KINDS.index("batch"), KINDS.index("layer")])
NUMBERS = {"denoising": {"noise": np.float32([0.5, 0])}, "contrastive": {"temperature": np.float32([0.5, 0.7])}}
IN_LANES = ("denoising", "rotation", "contrastive", "gan")  # without noise, "denoising" is "autoencoder"
OPTIMIZER = optax.flatten(optax.adam(1e-2))  # flat: fewer loops to compile
STREAM = {"objective": jax.random.key(1)}

# Compilation is most of the time here.
quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def objective(name, act, norm, numbers):
    act, norm = ActivationByIndex((relu, tanh), act), NormByKind(norm, pixels=False, weights=False)
    return OBJECTIVES[name](MODELS["cnn"](classes=3, widths=WIDTHS, conv=gemm, act=act, norm=norm), **numbers)


@functools.cache
def program(name):
    """`f(params, other variables, state, images, key)`; `params`, `state` and the results have a lane axis."""

    def lane(act, norm, numbers, params, rest, state, images, key):
        def mean(params):
            module, variables = objective(name, act, norm, numbers), {**rest, "params": params}
            (losses, correct), after = module.apply(
                variables, images, True, rngs={"objective": key}, mutable=["batch_stats"]
            )
            return losses.mean(), {"losses": losses, "correct": correct, "batch_stats": after["batch_stats"]}

        grads, found = jax.grad(mean, has_aux=True)(params)
        updates, state = OPTIMIZER.update(grads, state)
        return {**found, "grads": grads}, optax.apply_updates(params, updates), state

    lanes = quick(jax.vmap(lane, in_axes=(0, 0, 0, 0, None, 0, None, None)))
    return partial(lanes, ACTS, NORMS, NUMBERS.get(name, {}))


@pytest.fixture(scope="session")
def start(images, initial):
    """`f(name)` -> the arguments of `program(name)` before the key."""

    @functools.cache
    def arguments(name):
        numbers = dict.fromkeys(NUMBERS.get(name, {}), 0.5)
        variables = initial(objective(name, 0, jnp.int32(1), numbers), images)
        params = variables.pop("params")
        state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(OPTIMIZER.init, params))
        params, state = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), (params, state))
        return params, variables, state, images

    return arguments


@pytest.fixture(scope="session")
def ours(start):
    """`f(name)` -> what the first lane finds in the first step from `STREAM`, and its variables."""

    @functools.cache
    def found(name):
        params, rest, *_ = arguments = start(name)
        found, _, _ = program(name)(*arguments, STREAM["objective"])
        found, params = jax.tree.map(lambda leaf: np.asarray(leaf)[0], (found, params))
        return found, {**rest, "params": params}

    return found


def drawn():
    """The key that an objective's first draw gets from `STREAM`."""
    return OBJECTIVES["gan"](TRUNK).bind({}, rngs=STREAM).make_rng("objective")


def maps_of(variables, images):
    """Maps [b, h, w, c] of the static trunk, and its running statistics afterwards."""
    own = {name: {k: v for k, v in tree.items() if "_0" in k or k == "standardize"} for name, tree in variables.items()}
    return TRUNK.clone(headless=True).apply(own, images, True, mutable=["batch_stats"])


trunk = quick(maps_of)


def dense(params, x):
    return np.asarray(x, np.float64) @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"])


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


close = partial(np.testing.assert_allclose, rtol=1e-4)


def test_autoencoders_by_parts(ours, images):
    found, variables = ours("denoising")
    decoder = Decoder((8, 8, 3), WIDTHS, relu, gemm, TRUNK.kernel_init)

    @quick
    def theirs(noise):
        constants = variables["constants"]["standardize"]
        e = jax.random.normal(drawn(), (images.size,)).reshape(images.shape)
        maps, _ = maps_of(jax.tree.map(jnp.asarray, variables), images + noise * constants["std"] * e)
        shown = decoder.apply({"params": variables["params"]["decoder"]}, maps, True)
        return ((shown - (images - constants["mean"]) / constants["std"]) ** 2).mean((1, 2, 3))

    close(found["losses"], theirs(0.5))
    assert found["correct"] is None
    plain = quick(partial(OBJECTIVES["autoencoder"](TRUNK).apply, train=True, mutable=["batch_stats"]))
    (losses, correct), _ = plain(jax.tree.map(jnp.asarray, variables), images)
    close(losses, theirs(0.0))
    assert correct is None


def test_rotation_by_parts(ours, images):
    found, variables = ours("rotation")
    turned = np.concatenate([np.rot90(images, k, (1, 2)) for k in range(4)])  # another order than in the objective
    maps, after = trunk(variables, turned)
    scores = log_softmax(dense(variables["params"]["rotation_head"], np.mean(maps, (1, 2))).reshape(4, 8, 4))
    close(found["losses"], -np.mean([scores[k, :, k] for k in range(4)], 0))
    right = np.mean([scores[k].argmax(-1) == k for k in range(4)], 0)
    close(found["correct"], right)
    assert 0 < right.mean() < 1
    jax.tree.map(close, found["batch_stats"], after["batch_stats"])


@pytest.mark.slow
def test_contrastive_by_parts(ours, images):
    found, variables = ours("contrastive")
    views = quick(random_view)(drawn(), np.concatenate([images, images]))
    maps, after = trunk(variables, views)
    hidden = np.maximum(dense(variables["params"]["projection_hidden"], np.mean(maps, (1, 2))), 0)
    z = dense(variables["params"]["projection_out"], hidden)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    losses, right = np.zeros((2, 8)), np.zeros((2, 8))
    for i in range(16):
        others = [k for k in range(16) if k != i]
        partner = others.index((i + 8) % 16)
        cosines = np.array([z[i] @ z[k] for k in others])
        losses[divmod(i, 8)] = -log_softmax(cosines / 0.5)[partner]
        right[divmod(i, 8)] = cosines.argmax() == partner
    close(found["losses"], losses.mean(0))
    close(found["correct"], right.mean(0))
    assert 0 < right.mean() < 1
    jax.tree.map(close, found["batch_stats"], after["batch_stats"])


@pytest.fixture(scope="session")
def game(start, images):
    """`f(discriminator, generator)` -> gradients of each player's own loss, what the discriminator found, the losses.

    Both are parameters of the whole objective, of which only the player's part is used.
    """
    rest = jax.tree.map(jnp.asarray, start("gan")[1])

    @quick
    def play(discriminator, generator):
        z = jax.random.normal(drawn(), (8 * 32,)).reshape(8, 32)

        def made(generator):
            own = {"params": generator["generator"], "batch_stats": rest["batch_stats"]["generator"]}
            return Generator((8, 8, 3), WIDTHS, gemm).apply(own, z, True, mutable=["batch_stats"])[0]

        def logits(discriminator, images):
            maps, after = maps_of({**rest, "params": discriminator}, images)
            head = discriminator["discriminator_head"]
            return (maps.mean((1, 2)) @ head["kernel"] + head["bias"])[:, 0], after["batch_stats"]

        fake, pull = jax.vjp(made, generator)

        def discriminator_loss(discriminator):
            real, after = logits(discriminator, images)
            losses = jnp.log(1 + jnp.exp(-real)) + jnp.log(1 + jnp.exp(logits(discriminator, fake)[0]))
            return losses.mean(), (losses, real, after)

        def generator_loss(fake):
            losses = jnp.log(1 + jnp.exp(-logits(discriminator, fake)[0]))
            return losses.mean(), losses

        grads, (losses, *real) = jax.grad(discriminator_loss, has_aux=True)(discriminator)
        fake_grads, made_losses = jax.grad(generator_loss, has_aux=True)(fake)
        return {**grads, "generator": pull(fake_grads)[0]["generator"]}, real, (losses, made_losses)

    return play


@pytest.mark.slow
def test_gan_players_have_the_gradients_of_their_own_losses(ours, game):
    found, variables = ours("gan")
    grads, (real, after), losses = game(variables["params"], variables["params"])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-3, atol=1e-6), found["grads"], grads)
    close(found["losses"], np.add(*losses))
    np.testing.assert_array_equal(found["correct"], np.asarray(real) > 0)
    # The trunk's running statistics follow the real images alone.
    jax.tree.map(close, {**found["batch_stats"], **after}, found["batch_stats"])


def trained(name, start):
    """Parameters of both lanes after 30 steps, whose gradients have been looked at."""
    params, rest, state, images = start(name)
    for k in range(10, 40):
        found, params, state = program(name)(params, rest, state, images, jax.random.key(k))
        for path, leaf in jax.tree_util.tree_leaves_with_path(jax.tree.map(np.asarray, found["grads"])):
            reached = (leaf != 0).any(tuple(range(1, leaf.ndim)))
            assert np.isfinite(leaf).all() and (reached.all() or path[-1].key != "kernel"), path
    return params


@pytest.mark.parametrize("name", [name for name in IN_LANES if name != "gan"])
def test_descent(name, start):
    before, rest, state, images = start(name)

    def loss(params):
        runs = (program(name)(params, rest, state, images, jax.random.key(k))[0]["losses"] for k in range(4))
        return np.mean([*runs], (0, 2))

    assert (loss(trained(name, start)) < 0.95 * loss(before)).all()


@pytest.mark.slow
def test_both_players_of_a_gan_improve(start, game):
    """Each does better against the trained other than it did before: the sum of their losses need not fall."""
    params = start("gan")[0], trained("gan", start)
    before, after = (jax.tree.map(lambda leaf: np.asarray(leaf)[0], tree) for tree in params)

    def losses(discriminator, generator):
        return [np.mean(losses) for losses in game(discriminator, generator)[2]]

    assert losses(after, after)[0] < 0.9 * losses(before, after)[0]
    assert losses(after, after)[1] < 0.9 * losses(after, before)[1]


@pytest.mark.parametrize("name", [*IN_LANES[:-1], pytest.param("gan", marks=pytest.mark.slow)])
def test_keys_and_lanes(name, start):
    runs = (program(name)(*start(name), jax.random.key(k))[0]["losses"] for k in (1, 1, 2))
    first, again, other = map(np.asarray, runs)
    np.testing.assert_array_equal(first, again)
    assert name == "rotation" or (first[0] != other[0]).all()  # nothing is random about rotations
    assert np.isfinite(first).all() and (first[0] != first[1]).all()
