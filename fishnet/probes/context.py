"""Inputs of probes: a training step, or a network with training images."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Num

from fishnet.errors import UsageError
from fishnet.models.network import Network
from fishnet.probes.recording import ForwardRecord, record_forward

State = TypeVar("State")


class Step(NamedTuple):
    """Training step that has been made."""

    layers: tuple[str, ...]  # names, see `fishnet.probes.recording.layer_names`
    params: Any  # before the step
    grads: Any  # before clipping, a tree like `params`
    before: Any  # gradients of the step before, a tree like `params`; None unless a probe needs them
    after: Any  # parameters after the step
    seen: ForwardRecord | None  # the forward pass; None unless a probe needs it


class Batches(NamedTuple):
    """Training images in batches."""

    images: Array  # [n, h, w, c] uint8, or floats in 0..255
    labels: Array  # [n] int32
    positions: Array  # [batch, b] int32, which of them

    @classmethod
    def of(cls, images: Num[Array | np.ndarray, "n h w c"], labels: Int[Array | np.ndarray, " n"], size: int):
        """Makes batches of `size` images in their order; an incomplete last batch is left out.

        Raises:
            UsageError: there are not as many images as make a batch.
        """
        count = len(images) // size
        if count < 1:
            raise UsageError(f"{len(images)} images do not make a batch of {size}")
        positions = jnp.arange(count * size, dtype=jnp.int32).reshape(count, size)
        return cls(jnp.asarray(images), jnp.asarray(labels), positions)

    def take(self, positions: Int[Array, " b"]) -> tuple[Array, Array]:
        """Takes images [b, h, w, c] and labels [b] at positions."""
        return jnp.asarray(self.images)[positions], jnp.asarray(self.labels)[positions]

    def at(self, i: Array | int) -> tuple[Array, Array]:
        """Takes the images and labels of batch number `i`."""
        return self.take(lax.dynamic_index_in_dim(jnp.asarray(self.positions), i, keepdims=False))

    def fold(self, add: Callable[[State, Array, Array], State], state: State) -> State:
        """Folds `add(state, images, labels) -> state` over all batches, one after the other."""
        return lax.fori_loop(0, len(self.positions), lambda i, state: add(state, *self.at(i)), state)


class Net(NamedTuple):
    """Network in training, with its variables, losses and learning rate."""

    model: Network
    variables: dict[str, Any]
    losses: Callable[[Array, Array], Array]  # f(logits [b, k], labels [b]) -> [b], the loss of each example
    lr: Array  # [] float32, learning rate of the last step

    @property
    def params(self) -> Any:
        """Parameters of the network."""
        return self.variables["params"]

    def logits(self, images: Array, params: Any = None, as_trained: bool = False) -> Float[Array, "b k"]:
        """Logits in evaluation, without anything random.

        Args:
            images: [b, h, w, c].
            params: in place of its own.
            as_trained: norms take the statistics of the batch, as they do in training, not the running ones.
        """
        variables = self.variables if params is None else {**self.variables, "params": params}
        return cast(Array, self.model.clone(batch_statistics=as_trained).apply(variables, images, train=False))

    def loss(self, params: Any, images: Array, labels: Array) -> Float[Array, ""]:
        """Mean loss of a batch as in training, but without anything random and without penalties."""
        return self.losses(self.logits(images, params, as_trained=True), labels).mean()

    def seen(self, images: Array) -> ForwardRecord:
        """Records the forward pass of a batch in evaluation with running statistics; its result is the logits."""
        return record_forward(lambda: self.logits(images))


def zeros_like_result(function: Callable[..., State], *arguments: Any) -> State:
    """Zeros of the shapes and types that a function would return, without computing it."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, *arguments))
