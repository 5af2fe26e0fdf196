"""Rectangles of a photo at another size, minus the mean, ready for the net: one kernel.

Bilinear, half-pixel centres, no antialiasing also where it shrinks, rounded to whole grey levels:
what MATLAB's imresize gives the authors' release (and R-CNN for its warped windows). Outside of
its rectangle an output is 0, the mean.
"""

import numpy as np

from convnet.kernel import kernel, prange


def resampled(
    device, photo, rects: np.ndarray, size: tuple[int, int], mean: np.ndarray, mirror: bool = False
):
    """(K, *size, C) float32 on the device, of a uint8 photo (H, W, C) on it.

    rects: (K, 8) int32, top, left, height, width of what is read of the photo, and of where it
    lies in the output, which may reach outside. mean: (C,). mirror: outputs are mirror images.
    """
    made = device.empty((len(rects), *size, photo.shape[2]), np.float32)
    rects = device.array(np.ascontiguousarray(rects, np.int32))
    mean = device.array(np.ascontiguousarray(mean, np.float32))
    resample[made.size](made, photo, rects, mean, *size, photo.shape[1], photo.shape[2],
                        int(mirror))  # fmt: skip
    return made


@kernel(
    cuda=r"""
__global__ void resample(int n, T* y, const unsigned char* photo, const int* rects, const T* mean,
                         Div rows, Div columns, int width, Div C, int mirror) {
    FOR(i, n) {
        int c = i % C, t = i / C % columns, r = i / C / columns % rows;
        const int* at = rects + 8 * (i / C / columns / rows);
        int p = r - at[4], q = (mirror ? columns - 1 - t : t) - at[5];
        if (p < 0 || p >= at[6] || q < 0 || q >= at[7]) { y[i] = 0; continue; }
        int u = max((2 * p + 1) * at[2] - at[6], 0), v = max((2 * q + 1) * at[3] - at[7], 0);
        int top = u / (2 * at[6]), left = v / (2 * at[7]);
        T low = T(u - top * 2 * at[6]) / T(2 * at[6]);
        T right = T(v - left * 2 * at[7]) / T(2 * at[7]);
        const unsigned char* a = photo + ((size_t)(at[0] + top) * width + at[1] + left) * C + c;
        int down = top + 1 < at[2] ? width * C : 0, next = left + 1 < at[3] ? int(C) : 0;
        T above = T(a[0]) + right * (T(a[next]) - T(a[0]));
        T below = T(a[down]) + right * (T(a[down + next]) - T(a[down]));
        y[i] = T(int(above + low * (below - above) + T(0.5))) - mean[c];
    }
}"""
)
def resample(y, photo, rects, mean, rows, columns, width, C, mirror):
    """Thread i owns number i of the output; grey levels are never negative, so int() rounds."""
    half, zero = y.dtype.type(0.5), y.dtype.type(0)
    for i in prange(rects.shape[0] * rows):
        k, r = i // rows, i % rows
        top0, left0, h, w = rects[k, 0], rects[k, 1], rects[k, 2], rects[k, 3]
        p, begin, dh, dw = r - rects[k, 4], rects[k, 5], rects[k, 6], rects[k, 7]
        u = max((2 * p + 1) * h - dh, 0)
        top = u // (2 * dh)
        low = y.dtype.type(u - top * 2 * dh) / y.dtype.type(2 * dh)
        over = top0 + top
        under = over + 1 if top + 1 < h else over
        for t in range(columns):
            q = (columns - 1 - t if mirror else t) - begin
            if p < 0 or p >= dh or q < 0 or q >= dw:
                for c in range(C):
                    y[k, r, t, c] = zero
                continue
            v = max((2 * q + 1) * w - dw, 0)
            left = v // (2 * dw)
            right = y.dtype.type(v - left * 2 * dw) / y.dtype.type(2 * dw)
            a = left0 + left
            b = a + 1 if left + 1 < w else a
            for c in range(C):
                first, second = y.dtype.type(photo[over, a, c]), y.dtype.type(photo[over, b, c])
                above = first + right * (second - first)
                first, second = y.dtype.type(photo[under, a, c]), y.dtype.type(photo[under, b, c])
                below = first + right * (second - first)
                grey = np.int32(above + low * (below - above) + half)
                y[k, r, t, c] = y.dtype.type(grey) - mean[c]
