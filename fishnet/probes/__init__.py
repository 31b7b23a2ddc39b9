"""Probes: measurements of why training fails, pure functions that work under `jax.jit` and `jax.vmap`."""

from fishnet.probes.context import Batches, Net, Step
from fishnet.probes.recording import ForwardRecord, Site, layer_names, record_forward, site_names
from fishnet.probes.table import PROBES, Measure, Probe

__all__ = [
    "PROBES",
    "Batches",
    "ForwardRecord",
    "Measure",
    "Net",
    "Probe",
    "Site",
    "Step",
    "layer_names",
    "record_forward",
    "site_names",
]
