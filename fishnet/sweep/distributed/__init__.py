"""Sweeps that several processes share."""
