"""The machine that a process runs on: files, signals, devices, versions, settings of JAX and NumPy."""
