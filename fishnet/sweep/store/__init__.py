"""The output folder: sweep.json, checkpoints, tables, and runs loaded from them."""
