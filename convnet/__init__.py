"""convnet: a cuda-convnet cfg file in, a net that trains and tests out. Start with net.py."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convnet.net import Net

__all__ = ["Net"]

# OpenBLAS reads this when NumPy is loaded: how long (2^4 cycles) its threads spin after a product.
# By default they spin on, on cores that our kernels need next.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
__version__ = "0.1.0"


def __getattr__(name: str):
    """Net, imported when it is first asked for: tools answer --help without loading Numba."""
    if name == "Net":
        from convnet.net import Net

        return Net
    raise AttributeError(f"module 'convnet' has no attribute {name!r}")
