"""What dropout and dropout2 share: their keys, and a mask that is computed, never stored.

Whether number i stays is decided by a hash of (seed, i): the same bits on every device, in every
dtype and in both passes; bprop computes it again. The hash is the finaliser of SplitMix64 (Steele,
Lea, Flood 2014); the seed goes through it once by itself, so that near seeds have nothing in
common.
"""

import numpy as np

from convnet.kernel import helper, kernel, prange
from convnet.layer import Layer, flag, rate


def share(text: str) -> float:
    """Reads a number above 0 and not above 1."""
    try:
        got = float(text)
    except ValueError:
        raise ValueError("must be a number") from None
    if not 0 < got <= 1:
        raise ValueError("must be above 0 and not above 1")
    return got


class Dropping(Layer):
    keep = rate(share, "probability that a number is kept", default=0.5)
    enable = rate(flag, "whether training drops anything", default=True)

    def shape(self, x):
        return x


def masked(run, x, keep: float, factor: float) -> tuple:
    """What fprop returns: x * factor where the mask is set, with probability keep; else 0."""
    seed, below = np.uint64(run.seed % 2**64), np.uint64(round(keep * 2**32))

    def apply(v):
        out = run.empty(v.shape, v.dtype)
        drop[out.size](v.reshape(-1), out.reshape(-1), seed, below, float(factor))
        return out

    return apply(x), lambda dy, wants: ([apply(dy) if 0 in wants else None], {})


@kernel(
    cuda=r"""
__global__ void drop(int n, const T* x, T* y, unsigned long long seed, unsigned long long below,
                     T factor) {
    auto mix = [](unsigned long long z) {
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
        return z ^ (z >> 31);
    };
    unsigned long long start = mix(seed + 0x9E3779B97F4A7C15ULL);
    FOR(i, n) {
        unsigned long long hash = mix(start + i * 0x9E3779B97F4A7C15ULL);
        y[i] = hash >> 32 < below ? x[i] * factor : 0;
    }
}"""
)
def drop(x, y, seed, below, factor):
    zero, start = x.dtype.type(0), mix(seed + STEP)
    for i in prange(x.size):
        hash = mix(start + np.uint64(i) * STEP)
        y[i] = x[i] * factor if hash >> np.uint64(32) < below else zero


# Every number here is an uint64: Numba makes a float of an int64 and an uint64.
STEP = np.uint64(0x9E3779B97F4A7C15)
MUL1, MUL2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
BY27, BY30, BY31 = np.uint64(27), np.uint64(30), np.uint64(31)


@helper()
def mix(z):
    """64 bits in, 64 bits out; every bit of z turns each bit of the result with chance 1/2."""
    z = (z ^ (z >> BY30)) * MUL1
    z = (z ^ (z >> BY27)) * MUL2
    return z ^ (z >> BY31)
