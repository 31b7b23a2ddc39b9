"""Class probabilities of a trained network for images, in batches; plain, or the mean over Monte-Carlo dropout."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fishnet.sweep import LoadedRun

BATCH = 64


def predict_probabilities(loaded: "LoadedRun", images: np.ndarray) -> np.ndarray:
    """Softmax of the network's logits for images [n, h, w, c]: [n, class] float64."""
    import jax
    from scipy.special import softmax

    variables = jax.device_put(loaded.variables)
    forward = jax.jit(lambda variables, batch: loaded.model.apply(variables, batch, train=False))
    return softmax(predict_in_batches(lambda batch: forward(variables, batch), images), axis=-1)


def predict_with_mc_dropout(
    loaded: "LoadedRun", images: np.ndarray, passes: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Mean probabilities [n, class] for images [n, h, w, c] by Monte-Carlo dropout, and two uncertainties [n]."""
    import jax

    answer, variables = make_mc_dropout_predictor(loaded.model, passes), jax.device_put(loaded.variables)
    found = predict_in_batches(lambda batch: answer(variables, batch), images)
    uncertainty = {"predictive_entropy": found.entropy, "mutual_information": found.mutual_information}
    return found.probabilities, uncertainty


def make_mc_dropout_predictor(model: Any, passes: int) -> Callable[[Any, np.ndarray], Any]:
    """Makes `f(variables, images [b, h, w, c]) -> MonteCarlo`, compiled once for all runs of a model; fixed masks."""
    import jax

    from fishnet.models.mc_dropout import mc_dropout
    from fishnet.nn.convolution import gemm

    # The passes are a loop, in which XLA's own convolution is slow on CPU.
    model = model.clone(conv=gemm) if jax.default_backend() == "cpu" else model
    key = jax.random.key(0, impl="threefry2x32")
    return jax.jit(lambda variables, images: mc_dropout(model, variables, images, key, passes))


def predict_in_batches(predict: Callable[[np.ndarray], Any], images: np.ndarray) -> Any:
    """Applies `predict` to images [n, h, w, c], in batches of one size; gives its tree of arrays [n, ...] float64."""
    import jax

    from fishnet.host.jax_settings import hold_settings

    batch = min(BATCH, len(images))
    parts = []
    with hold_settings():
        for chunk in iterate_chunks(images, batch):
            # With photographs, not with black: a network evaluated with the statistics of a batch sees them too.
            padded = np.concatenate([chunk, images[: batch - len(chunk)]])
            parts.append(jax.device_get(predict(padded)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(images)].astype(np.float64), *parts)


def iterate_chunks(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yields `images` in pieces of `size`; the last may be shorter."""
    for start in range(0, len(images), size):
        yield images[start : start + size]
