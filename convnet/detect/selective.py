"""Selective search (Uijlings et al. 2013) by opencv-contrib: boxes that may hold an object.

fast      colours HSV and Lab, k = 50 and 100, similarity by colour + texture + size + fill and
          without colour: the mode of the SPP-net and R-CNN papers, about 2,000 boxes a photo
quality   HSV, Lab and grey, k = 50, 100, 150 and 300, four similarities: several times as many

The set of boxes depends on the pixels alone. OpenCV puts them into a random order, as the authors
do; here that order is drawn with a fixed seed, so that the first n are the same each time too.
"""

import numpy as np

from convnet.cli import UsageError

SIGMA = 0.8  # of the Gaussian before the segmentation
LEAST = 20  # pixels of the shorter side of a box
MODES = {
    "fast": (("hsv", "lab"), (50, 100), ("ctsf", "tsf")),
    "quality": (("hsv", "lab", "grey"), (50, 100, 150, 300), ("ctsf", "tsf", "f", "s")),
}


def check() -> None:
    """UsageError where OpenCV's contributed modules are missing."""
    try:
        import cv2

        _ = cv2.ximgproc.segmentation
    except (ImportError, AttributeError):
        raise UsageError(
            "selective search needs OpenCV's contributed modules; python -m pip install "
            "'convnet[detect]', or take --proposals=grid"
        ) from None


def selective(
    pixels: np.ndarray, mode: str = "fast", width: int | None = None, least: int = LEAST
) -> np.ndarray:
    """Boxes (N, 4) of a uint8 photo (H, W, 3).

    width: the photo is resized to it first, as R-CNN did for ILSVRC, and the boxes back. least:
    shorter side of what is kept, in pixels of the (resized) photo.
    """
    import cv2

    H, W = pixels.shape[:2]
    if min(H, W) < least:
        return np.zeros((0, 4), np.float32)
    seen = pixels if width is None else cv2.resize(pixels, (width, max(1, round(H * width / W))))
    rects = _rects(cv2, np.ascontiguousarray(seen[..., ::-1]), *MODES[mode])
    rects = np.unique(rects[(rects[:, 2:] >= least).all(1)], axis=0)
    boxes = np.concatenate([rects[:, :2], rects[:, :2] + rects[:, 2:]], 1).astype(np.float32)
    if width is not None:
        boxes *= np.float32([W / seen.shape[1], H / seen.shape[0]] * 2)
    return np.random.default_rng(3).permutation(boxes)


def _rects(cv2, bgr: np.ndarray, colours, ks, similarities) -> np.ndarray:
    """(N, 4) left, top, width, height of OpenCV."""
    ss = cv2.ximgproc.segmentation
    search = ss.createSelectiveSearchSegmentation()
    search.setBaseImage(bgr)
    search.clearImages()
    search.clearGraphSegmentations()
    search.clearStrategies()
    codes = {"hsv": cv2.COLOR_BGR2HSV, "lab": cv2.COLOR_BGR2Lab, "grey": cv2.COLOR_BGR2GRAY}
    for name in colours:
        search.addImage(cv2.cvtColor(bgr, codes[name]))
    for k in ks:
        search.addGraphSegmentation(ss.createGraphSegmentation(SIGMA, float(k), k))
    kinds = {
        "c": ss.createSelectiveSearchSegmentationStrategyColor,
        "t": ss.createSelectiveSearchSegmentationStrategyTexture,
        "s": ss.createSelectiveSearchSegmentationStrategySize,
        "f": ss.createSelectiveSearchSegmentationStrategyFill,
    }
    several = ss.createSelectiveSearchSegmentationStrategyMultiple
    for word in similarities:
        found = [kinds[letter]() for letter in word]
        search.addStrategy(several(*found) if len(found) > 1 else found[0])
    return np.reshape(search.process(), (-1, 4))
