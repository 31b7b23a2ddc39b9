"""Adapters to optional packages."""
