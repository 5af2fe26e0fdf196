"""y += b, where b holds one bias for each channel, or one for each position and channel."""

from convnet.kernel import kernel, prange


def add_bias(y, b):
    """y (M, K) += b, row by row; b of more than K numbers repeats after that many rows."""
    _add_bias[y.size](y, b.reshape(-1, y.shape[1]), y.shape[1], b.size)


@kernel(
    cuda=r"""
__global__ void _add_bias(int n, T* y, const T* b, int K, Div period) {
    FOR(i, n) y[i] += b[i % period];
}"""
)
def _add_bias(y, b, K, period):
    """Thread i adds to number i."""
    rows = period // K
    for m in prange(y.shape[0]):
        r = m % rows
        for k in range(K):
            y[m, k] += b[r, k]
