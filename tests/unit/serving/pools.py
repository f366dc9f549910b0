"""Input pools as the pipeline writes them."""

import numpy as np

from ceilings.models import pool


def write(path, arrays):
    """Write an input pool; its path."""
    facts = {"source": np.array("synthetic"), "real_share": np.array(0.0)}
    sealed = pool.sealed(arrays, "synthetic", 0.0)
    pool.save(path, **{f"input/{name}": array for name, array in arrays.items()}, **facts, sha256=np.array(sealed))
    return path
