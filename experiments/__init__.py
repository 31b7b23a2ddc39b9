import os

# Before JAX is imported. XLA warns of every kept program on processors with AVX-512 that it may not run there, as two
# preferences of the compiler are not features of the processor (openxla/xla#44565); what fails is raised.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
