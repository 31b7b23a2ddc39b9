"""Plain Flax and Optax: a jitted program a run, or one naively vectorized over the runs."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.baselines.baseline import Baseline
from benchmarks.baselines.nets import CLASSES, GROUPS, LR, MOMENTUM, Net, examples

ACTIVATIONS = {
    "relu": nn.relu,
    "leaky_relu": nn.leaky_relu,
    "elu": nn.elu,
    "selu": nn.selu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "tanh": jnp.tanh,
    "sigmoid": nn.sigmoid,
}


class Plain(nn.Module):
    """The networks of the benchmark, written with Flax's own layers."""

    net: Net

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits [b, classes] of standardized images [b, h, w, c], in training."""
        net = self.net
        if net.model == "mlp":
            x = x.reshape(len(x), -1)
            for width in net.widths:
                x = nn.relu(nn.Dense(width)(x))
            return nn.Dense(CLASSES)(x)
        if net.model == "cnn":
            for width in net.widths:
                x = ACTIVATIONS[net.activation](self.apply_norm(self.conv(width)(x)))
                x = nn.max_pool(x, (2, 2), (2, 2))
        if net.model == "separable":
            x = nn.relu(self.apply_norm(self.conv(net.widths[0])(x)))
            for width in net.widths:
                x = nn.relu(self.apply_norm(self.conv(x.shape[-1], groups=x.shape[-1])(x)))
                x = nn.relu(self.apply_norm(self.conv(width, size=1)(x)))
                x = nn.max_pool(x, (2, 2), (2, 2))
        if net.model == "resnet":
            x = nn.relu(self.apply_norm(self.conv(net.widths[0])(x)))
            for stage, width in enumerate(net.widths):
                for block in range(net.depth):
                    stride = 2 if stage and not block else 1
                    y = nn.relu(self.apply_norm(self.conv(width, stride=stride)(x)))
                    y = self.apply_norm(self.conv(width)(y))
                    if x.shape != y.shape:
                        x = self.apply_norm(self.conv(width, size=1, stride=stride)(x))
                    x = nn.relu(x + y)
        return nn.Dense(CLASSES)(x.mean((1, 2)))

    def conv(self, width: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv:
        """A convolution, SAME padding, with a bias where no norm follows."""
        return nn.Conv(width, (size, size), stride, feature_group_count=groups, use_bias=self.net.norm == "none")

    def apply_norm(self, x: jax.Array) -> jax.Array:
        """The norm, in training."""
        norm = {
            "none": lambda: lambda x: x,
            "batch": lambda: nn.BatchNorm(use_running_average=False, momentum=0.9),
            "layer": lambda: nn.LayerNorm(reduction_axes=(1, 2, 3), feature_axes=-1),
            "group": lambda: nn.GroupNorm(GROUPS),
            "instance": lambda: nn.InstanceNorm(),
        }[self.net.norm]()
        return norm(x)


class FlaxBaseline(Baseline):
    """Shared part of the Flax baselines: the network, its state, one step of training."""

    optimizer = optax.sgd(LR, momentum=MOMENTUM)

    def setup(self) -> None:
        """Puts the images on the device and draws every run's initial state."""
        images, labels = examples(self.net)
        floats = images.astype(np.float32)
        self.mean = jnp.asarray(floats.mean((0, 1, 2)))
        self.std = jnp.asarray(floats.std((0, 1, 2)))
        self.images, self.labels = jnp.asarray(images), jnp.asarray(labels)
        self.model = Plain(self.net)
        self.first = 0

    def initial(self, key: jax.Array, model: nn.Module | None = None) -> dict[str, Any]:
        """Parameters, statistics and optimizer state of one run."""
        variables = (model or self.model).init(key, jnp.zeros((1, *self.net.image)))
        params = variables["params"]
        return {
            "params": params,
            "statistics": variables.get("batch_stats", {}),
            "momentum": self.optimizer.init(params),
        }

    def step(
        self, state: dict[str, Any], images: jax.Array, labels: jax.Array, model: nn.Module | None = None
    ) -> dict[str, Any]:
        """One step of one run on a batch."""
        x = (images.astype(jnp.float32) - self.mean) / self.std

        def loss_of(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params, "batch_stats": state["statistics"]}
            logits, after = (model or self.model).apply(variables, x, mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), after.get("batch_stats", {})

        (_, statistics), grads = jax.value_and_grad(loss_of, has_aux=True)(state["params"])
        updates, momentum = self.optimizer.update(grads, state["momentum"])
        return {
            "params": optax.apply_updates(state["params"], updates),
            "statistics": statistics,
            "momentum": momentum,
        }

    def batch(self, i: int | jax.Array) -> tuple[jax.Array, jax.Array]:
        """The images and labels of step `i`."""
        start = (i % self.net.batches) * self.net.batch
        images, labels = (jax.lax.dynamic_slice_in_dim(a, start, self.net.batch) for a in (self.images, self.labels))
        return images, labels

    def count(self, state: dict[str, Any]) -> int:
        """Parameters of a state."""
        return sum(leaf.size for leaf in jax.tree.leaves(state["params"]))


class Serial(FlaxBaseline):
    """One jitted step for each different network, called for one run after the other."""

    def prepare(self) -> int:
        """See `Baseline.prepare`."""
        self.setup()
        nets = self.net.each()
        compiled = {net: self.program(Plain(net)) for net in dict.fromkeys(nets)}
        self.steps = [compiled[net][1] for net in nets]
        self.states = [compiled[net][0](jax.random.key(seed)) for seed, net in enumerate(nets)]
        self.train(1)
        return sum(map(self.count, self.states))

    def program(self, model: nn.Module) -> tuple[Callable, Callable]:
        """The jitted initial state, of a key, and the jitted step, of a state and the step's number."""

        @partial(jax.jit, donate_argnums=0)
        def step(state: dict[str, Any], i: jax.Array) -> dict[str, Any]:
            return self.step(state, *self.batch(i), model)

        return jax.jit(partial(self.initial, model=model)), step

    def train(self, steps: int) -> None:
        """See `Baseline.train`."""
        for run, (step, state) in enumerate(zip(self.steps, self.states, strict=True)):
            for i in range(self.first, self.first + steps):
                state = step(state, np.int32(i))
            self.states[run] = jax.block_until_ready(state)
        self.first += steps


class SerialLoop(Serial):
    """One jitted loop of steps, called for one run after the other."""

    def prepare(self) -> int:
        """See `Baseline.prepare`."""
        self.setup()
        init = jax.jit(self.initial)
        self.states = [init(jax.random.key(seed)) for seed in range(self.net.runs)]

        @partial(jax.jit, donate_argnums=0)
        def loop(state: dict[str, Any], first: jax.Array, steps: jax.Array) -> dict[str, Any]:
            return jax.lax.fori_loop(first, first + steps, lambda i, s: self.step(s, *self.batch(i)), state)

        self.loop = loop
        self.train(1)
        return sum(map(self.count, self.states))

    def train(self, steps: int) -> None:
        """See `Baseline.train`."""
        for run, state in enumerate(self.states):
            self.states[run] = jax.block_until_ready(self.loop(state, np.int32(self.first), np.int32(steps)))
        self.first += steps


class Vmap(FlaxBaseline):
    """`jit(vmap(step))` over all runs."""

    def prepare(self) -> int:
        """See `Baseline.prepare`."""
        self.setup()
        keys = jax.random.split(jax.random.key(0), self.net.runs)
        self.state = jax.jit(jax.vmap(self.initial))(keys)

        @partial(jax.jit, donate_argnums=0)
        def step(state: dict[str, Any], i: jax.Array) -> dict[str, Any]:
            return jax.vmap(self.step, (0, None, None))(state, *self.batch(i))

        self.compiled = step
        self.train(1)
        return self.count(self.state)

    def train(self, steps: int) -> None:
        """See `Baseline.train`."""
        state = self.state
        for i in range(self.first, self.first + steps):
            state = self.compiled(state, np.int32(i))
        self.state = jax.block_until_ready(state)
        self.first += steps
