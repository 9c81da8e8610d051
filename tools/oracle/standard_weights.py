"""Random weights of unit gain for the vision and VQGAN oracles, and how their goldens are stored.

tests/model/tiny_file.c makes the same values: matrices and kernels +-sqrt(3 / fan in), norm gains
1 +- 0.25, everything else +-0.1."""
import math
import os

import numpy as np
import torch
from safetensors.numpy import save_file

from weights import tensor


def standard(name, shape):
    n = int(np.prod(shape))
    if len(shape) > 1:
        return tensor(name, shape, math.sqrt(3.0 / (n / shape[0])))
    return tensor(name, shape, 0.25, 1.0) if name.endswith(".weight") else tensor(name, shape, 0.1)


def randomise(module, rename=lambda name: name):
    """Overwrite every floating parameter by its standard value, and make the module double."""
    module.double().eval()
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(torch.from_numpy(standard(rename(name), tuple(p.shape))))
    return module


def store(path, **arrays):
    """Goldens are computed in double and kept as fp32 (codes too: they are small integers)."""
    out = {}
    for name, a in arrays.items():
        a = a.numpy() if isinstance(a, torch.Tensor) else np.asarray(a)
        out[name.replace("__", ".")] = np.ascontiguousarray(a.astype(np.float32))
    save_file(out, path)
    os.chmod(path, 0o644)
