"""Access to the machine of a process: files, signals, devices, versions, settings of JAX and NumPy."""
