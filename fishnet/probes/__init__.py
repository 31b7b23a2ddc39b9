"""Probes: measurements of why training fails, pure functions that work under `jax.jit` and `jax.vmap`."""

from fishnet.probes.context import Batches, Net, Step
from fishnet.probes.recording import Recorded, Site, layer_names, recorded, site_names
from fishnet.probes.table import PROBES, Measure, Probe

__all__ = [
    "PROBES",
    "Batches",
    "Measure",
    "Net",
    "Probe",
    "Recorded",
    "Site",
    "Step",
    "layer_names",
    "recorded",
    "site_names",
]
