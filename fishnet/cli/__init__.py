"""Command lines: parsing, flags, the main of an experiment."""
