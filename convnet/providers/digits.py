"""1,797 handwritten digits, 8x8 pixels, that come with scikit-learn: real data without a download.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998, its test set.
1,437 of them to train, 360 to test, the same share of each digit; enlarged to what the net takes.
Never mirrored: a mirrored digit is none.
"""

import numpy as np

from convnet.providers import DataError, Split, fingerprint, stratified
from convnet.providers._memory import Memory


class Digits(Memory):
    mirror = False
    noise = 0.0

    @classmethod
    def recognises(cls, path):
        """No path: these come with the package."""
        return not path

    def _open(self, path, size, channels):
        if path not in (None, "digits"):
            raise DataError(f"digits: the built-in data takes no --data-path={path}")
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise DataError("digits: scikit-learn is missing; pip install scikit-learn") from None
        found = load_digits()
        images = np.rint(found.images * (255 / 16)).astype(np.uint8)[..., None]
        self.classes = [str(name) for name in found.target_names]
        self.size, self.channels, self.path = size or 8, channels or 1, path or "digits"
        sides = stratified(found.target, self.options.test_fraction, self.options.split_seed)
        self.arrays, self.splits = {}, {}
        for name, side in zip(("train", "test"), sides):
            self.arrays[name] = images[side]
            keys = [f"digit {i}" for i in side]
            self.splits[name] = Split(found.target[side].astype(np.int64), keys)
        self.fingerprint = fingerprint(images, self.train.keys, self.test.keys)
