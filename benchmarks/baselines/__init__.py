"""Baselines of `experiments.benchmark`: the same networks in fishnet, PyTorch, Flax and Optax."""
