"""One image file -> pixels, with Pillow; whatever is wrong with the file becomes BadImage.

Colour is RGB, grey is ITU-R 601 brightness. 16-bit pixels keep their upper 8 bits. Transparent
pixels stand on white. EXIF orientation is applied. Of an animation the first image is taken. Only
formats that Pillow decodes itself are admitted (an EPS file would start Ghostscript).
"""

import io
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin, WebPImagePlugin  # noqa: F401 (the two register a format)

from convnet import views
from convnet.loader import BadImage
from convnet.providers._crop import crop

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff",
            ".ppm", ".pgm", ".pbm", ".pnm")  # fmt: skip
THIN = 50  # a picture longer than this many times its short side is none
ORIENTATION = 0x0112  # of EXIF; 1 is upright
TURN = dict(enumerate((Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180,
                       Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSPOSE,
                       Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE,
                       Image.Transpose.ROTATE_90), 2))  # fmt: skip
SIDEWAYS = [TURN[i] for i in (5, 6, 7, 8)]
OTHER_SIZE = "of another size"


File = str | io.BytesIO  # the path of an image, or the image as a file in memory


def decode(file: File, channels: int, least: int | None = None) -> tuple[Image.Image, tuple]:
    """(the picture, mode L or RGB; its full (h, w)). Raises BadImage.

    least: the picture may come at 1/2, 1/4 or 1/8 of its size as long as its shorter side has this
    many pixels, which a JPEG decoder does faster.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file, formats=FORMATS) as img:
                w, h = img.size
                if max(w, h) > THIN * min(w, h):
                    raise BadImage(f"{w}x{h} pixels: too thin for a picture")
                if least and img.format in ("JPEG", "MPO") and min(w, h) >= 2 * least:
                    share = least / min(w, h)
                    img.draft(None, (math.ceil(w * share), math.ceil(h * share)))
                reduced = img.size != (w, h)
                img.load()
                turn = turned_by(img)
                picture = _eight_bits(img, "L" if channels == 1 else "RGB")
        except BadImage:
            raise
        except Image.UnidentifiedImageError:
            raise BadImage(_unknown(file)) from None
        except Exception as e:  # Pillow's decoders raise about anything at a damaged file
            raise BadImage(_why(e)) from None
    picture = picture if turn is None else picture.transpose(turn)
    if not reduced:
        w, h = picture.size
    elif turn in SIDEWAYS:
        w, h = h, w
    return picture, (h, w)


def _eight_bits(img: Image.Image, wanted: str) -> Image.Image:
    """The loaded image with the mode `wanted`: L or RGB."""
    if img.mode.startswith("I;16"):
        img = Image.fromarray((np.asarray(img) >> 8).astype(np.uint8))
    elif img.mode == "I":
        img = Image.fromarray((np.clip(np.asarray(img), 0, 65535) >> 8).astype(np.uint8))
    elif img.mode == "F":
        raise BadImage("its pixels are fractions, with no known white")
    if img.has_transparency_data:
        img = img.convert("RGBA")
        img = Image.alpha_composite(Image.new("RGBA", img.size, "white"), img)
    return img if img.mode == wanted else img.convert(wanted)


def turned_by(img: Image.Image) -> Image.Transpose | None:
    """How a loaded image has to be turned, as its EXIF data say; damaged ones say nothing."""
    try:
        return TURN.get(img.getexif().get(ORIENTATION))
    except Exception:
        return None


def _unknown(file: File) -> str:
    size = Path(file).stat().st_size if isinstance(file, str) else file.getbuffer().nbytes
    return "no image of a known format" if size else "the file is empty"


def _why(e: Exception) -> str:
    if isinstance(e, OSError) and e.strerror:  # the file cannot be read at all
        return e.strerror.lower()
    text = " ".join(str(e).split())
    return (text[:1].lower() + text[1:])[:200] or type(e).__name__


def pixels(picture: Image.Image) -> np.ndarray:
    """The picture as uint8 (H, W, C)."""
    array = np.asarray(picture)
    return array if array.ndim == 3 else array[..., None]


@dataclass(frozen=True)
class Reader:
    """view(file, draw) of a folder of images, as convnet/loader.py calls it.

    An image of exactly S x S pixels is, unless resize_to is given, not resized: for training it is
    cropped with S // 8 mirrored pixels around, for testing it is taken as it is. All others are
    fitted to `resize_to`, or S * 256 / 224, and cropped.
    """

    S: int
    channels: int
    resize_to: int | None
    crop: str
    mirror: bool

    def __call__(self, file: File, draw: np.ndarray | None) -> np.ndarray:
        """uint8 (S, S, channels). Raises BadImage."""
        side, S = self.resize_to or views.default_fit(self.S), self.S
        picture, size = decode(file, self.channels, None if draw is None else side)
        whole = size == (S, S) and not self.resize_to
        if draw is None:
            return pixels(picture) if whole else views.centre(views.fit(pixels(picture), side), S)
        mirror = self.mirror and bool(views.mirrored(draw))
        if whole:
            return self._padded(pixels(picture), draw, mirror)
        return self._cropped(picture, *views.fitted(*size, side), draw, mirror)

    def _padded(self, img: np.ndarray, draw: np.ndarray, mirror: bool) -> np.ndarray:
        at = views.reflect(self.S, self.S // 8)
        y, x = views.offsets(self.crop, draw, len(at), len(at), self.S)
        rows, cols = at[y : y + self.S], at[x : x + self.S]
        return img[rows[:, None], cols[::-1] if mirror else cols]

    def _cropped(self, picture: Image.Image, h: int, w: int, draw: np.ndarray,
                 mirror: bool) -> np.ndarray:  # fmt: skip
        """The crop of the picture at h x w; pixels outside of it are never computed."""
        y, x = views.offsets(self.crop, draw, h, w, self.S)
        fy, fx = picture.height / h, picture.width / w
        box = (x * fx, y * fy, min(picture.width, (x + self.S) * fx),
               min(picture.height, (y + self.S) * fy))  # fmt: skip
        return crop(picture, box, self.S, mirror)


@dataclass(frozen=True)
class Seen:
    """view(file, None) of an image of any size: look(image)."""

    look: Callable
    channels: int

    def __call__(self, file: File, draw: None) -> list[np.ndarray]:
        """Views, uint8 (h, w, channels) each. Raises BadImage."""
        return list(self.look(pixels(decode(file, self.channels)[0])))


@dataclass(frozen=True)
class Whole:
    """view(file, None) of an image that must be side x side pixels: the image itself."""

    side: int
    channels: int

    def __call__(self, file: File, draw: None) -> np.ndarray:
        """uint8 (side, side, channels). Raises BadImage; of OTHER_SIZE if it is none."""
        picture, size = decode(file, self.channels)
        if size != (self.side, self.side):
            raise BadImage(OTHER_SIZE)
        return pixels(picture)


@dataclass(frozen=True)
class Decoded:
    """view(file, None): what `decode` gives."""

    channels: int
    least: int | None = None

    def __call__(self, file: File, draw: None) -> tuple[Image.Image, tuple]:
        """(the picture, its full (h, w)). Raises BadImage."""
        return decode(file, self.channels, self.least)
