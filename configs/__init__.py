"""Presets: one file each, whose docstring says what it shows, the command, how long it takes and what it reached."""
