"""Logits, labels and numbers of classes that the tests of losses share."""

import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, settings

# Slow drawing is a busy machine, not a fault.
REPEATABLE = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])

B, K = 40, 7
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(B, K)).astype(np.float32) * 4
LABELS = RNG.integers(0, K, B)
WEIGHTS = RNG.uniform(0, 3, K).astype(np.float32)

MARGINS = RNG.uniform(0, 0.5, K).astype(np.float32)
OFFSETS = -RNG.uniform(0, 3, K).astype(np.float32)

logits, labels, weights = jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.asarray(WEIGHTS)
margins, offsets = jnp.asarray(MARGINS), jnp.asarray(OFFSETS)

# What each entry of the table needs beyond logits and labels.
NEEDS = {
    "class_weighted": (weights,),
    "class_balanced_focal": (weights,),
    "ldam": (margins,),
    "logit_adjusted": (offsets,),
}
