"""Convolutions in float64, by NumPy: what the kernels are compared with."""

import numpy as np
from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")


def products(x, k, dy, strides, padding, depthwise=False):
    """Values and both gradients: y of x and k, dx and dk of dy; where `dy` is a function, of `dy(y.shape)`."""
    x, k = np.asarray(x, np.float64), np.asarray(k, np.float64)
    (kh, kw), (sh, sw) = k.shape[:2], strides
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], (kh, kw), strides, padding)
    (top, bottom), (left, right) = padding
    wide = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    oh, ow = (wide.shape[1] - kh) // sh + 1, (wide.shape[2] - kw) // sw + 1
    y, d_wide, dk = np.zeros((len(x), oh, ow, k.shape[3])), np.zeros(wide.shape), np.zeros(k.shape)
    dy = np.asarray(dy(y.shape) if callable(dy) else dy, np.float64)
    for i in range(kh):
        for j in range(kw):
            seen = (slice(None), slice(i, i + sh * (oh - 1) + 1, sh), slice(j, j + sw * (ow - 1) + 1, sw))
            if depthwise:
                y += wide[seen] * k[i, j, 0]
                d_wide[seen] += dy * k[i, j, 0]
                dk[i, j, 0] = (wide[seen] * dy).sum((0, 1, 2))
            else:
                y += wide[seen] @ k[i, j]
                d_wide[seen] += dy @ k[i, j].T
                dk[i, j] = np.tensordot(wide[seen], dy, ((0, 1, 2), (0, 1, 2)))
    return y, d_wide[:, top : top + x.shape[1], left : left + x.shape[2]], dk, dy
