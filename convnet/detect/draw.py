"""A photo with the boxes that were found on it, their labels and scores."""

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from convnet.cli import UsageError
from convnet.detect.detections import Found
from convnet.files import advice, replacing


def colour(number: int, count: int) -> tuple[int, int, int]:
    """That of a class: hues as far apart as they can be."""
    red, green, blue = colorsys.hsv_to_rgb(number / max(count, 1), 0.9, 0.7)
    return round(255 * red), round(255 * green), round(255 * blue)


def drawn(
    pixels: np.ndarray, found: Found, classes: list[str], chances: np.ndarray | None = None
) -> Image.Image:
    """The picture; the best detections are drawn last, on top of the others.

    chances: (N,) how likely each is right, to be written instead of its score.
    """
    told = found.scores if chances is None else chances
    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    side = min(picture.size)
    font, width = ImageFont.load_default(max(11, side // 36)), max(1, side // 240)
    for i in np.argsort(found.scores, kind="stable"):
        left, top, right, bottom = found.boxes[i].tolist()
        ink = colour(int(found.labels[i]), len(classes))
        right, bottom = max(left, right - 1), max(top, bottom - 1)  # the last pixel inside
        pen.rectangle((left, top, right, bottom), outline=ink, width=width)
        text = f"{classes[found.labels[i]]} {told[i]:.2f}"
        wide, tall = pen.textbbox((0, 0), text, font=font)[2:]
        x = max(0, min(left, picture.width - wide - 2))
        y = top - tall - 3 if top >= tall + 3 else top
        pen.rectangle((x, y, x + wide + 3, y + tall + 3), fill=ink)
        pen.text((x + 2, y + 1), text, fill="white", font=font)
    return picture


def draw(
    pixels: np.ndarray,
    found: Found,
    classes: list[str],
    path: Path,
    chances: np.ndarray | None = None,
) -> None:
    """Write it as PNG, whole or not at all. UsageError."""
    try:
        with replacing(path) as file:
            drawn(pixels, found, classes, chances).save(file, "PNG")
    except OSError as e:
        raise UsageError(f"{path}: no picture written, {advice(e)}") from None
