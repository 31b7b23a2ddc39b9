"""Digests of components: the code, constants and values that a callable is made of."""
