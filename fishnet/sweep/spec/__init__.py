"""Recipes, sweeps and search spaces, with their texts and checks."""
