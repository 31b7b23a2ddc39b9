"""Checks of arguments, arrays and traced values, each with one clear message."""
