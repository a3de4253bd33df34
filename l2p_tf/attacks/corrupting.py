"""The common corruptions of Hendrycks and Dietterich (ICLR 2019), as functions of images in [0, 1].

Strengths are those of the published data sets: CIFAR-10-C for images whose shorter side is below 64 pixels, ImageNet-C
for larger ones. Two things differ: the lengths of the elastic transformation, published for one image size, are shares
of the side here, and frost overlays a ridged fractal instead of photographs.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

Images = npt.NDArray[np.floating[Any]]
"""Images (count, height, width, channels) in [0, 1]."""
_SMALL = 64
_LUMA = np.array([0.299, 0.587, 0.114])


def gaussian_noise(x: Images, rng: np.random.Generator, std: float) -> Images:
    """Adds Gaussian noise to every entry."""
    return x + rng.normal(0, std, x.shape)


def shot_noise(x: Images, rng: np.random.Generator, photons: float) -> Images:
    """Applies Poisson noise, with `photons` expected photons at value 1."""
    return rng.poisson(x * photons) / photons


def impulse_noise(x: Images, rng: np.random.Generator, share: float) -> Images:
    """Sets a share of the entries to 0 or 1, with equal probability."""
    drawn = rng.random(x.shape)
    return np.where(drawn < share / 2, 0.0, np.where(drawn < share, 1.0, x))


def defocus_blur(x: Images, rng: np.random.Generator, radius: float, soften: float) -> Images:
    """Blurs with a disk kernel, whose edge is softened by a Gaussian of standard deviation `soften`."""
    del rng
    reach = 8 if radius <= 8 else int(radius)
    line = np.arange(-reach, reach + 1)
    disk = (line[:, None] ** 2 + line**2 <= radius**2).astype(float)
    half = 1 if radius <= 8 else 2
    edge = np.exp(-0.5 * (np.arange(-half, half + 1) / soften) ** 2)
    kernel = ndimage.convolve(disk / disk.sum(), np.outer(edge, edge) / edge.sum() ** 2, mode="mirror")
    return ndimage.correlate(x, kernel[None, :, :, None], mode="mirror")


def glass_blur(x: Images, rng: np.random.Generator, std: float, reach: int, times: int) -> Images:
    """Swaps each pixel for one nearby, `times` times, with a Gaussian blur before and after."""
    deviations = (0, std, std, 0)
    x = _stored(ndimage.gaussian_filter(x, deviations, mode="nearest"))
    count, height, width, _ = x.shape
    positions = np.arange(count)
    for _ in range(times):
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                dx, dy = rng.integers(-reach, reach, (2, count))
                x[:, row, column] = x[positions, row + dy, column + dx]
    return ndimage.gaussian_filter(x, deviations, mode="nearest")


def motion_blur(
    x: Images, rng: np.random.Generator, radius: float, std: float, low: float = -45.0, high: float = 45.0
) -> Images:
    """Blurs with half a Gaussian along a random angle in degrees, as ImageMagick's motion blur does."""
    steps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-0.5 * (steps / std) ** 2)
    weights /= weights.sum()
    height, width = x.shape[1:3]
    out = np.zeros_like(x)
    for image, angle, blurred in zip(x, np.radians(rng.uniform(low, high, len(x))), out, strict=True):
        right, down = (np.ceil(steps * part - 0.5).astype(int) for part in (np.cos(angle), np.sin(angle)))
        for weight, dx, dy in zip(weights, right, down, strict=True):
            rows, columns = np.arange(height) + dy, np.arange(width) + dx
            blurred += weight * image[rows.clip(0, height - 1)][:, columns.clip(0, width - 1)]
    return out


def zoom_blur(x: Images, rng: np.random.Generator, most: float, step: float) -> Images:
    """Averages the image and its enlargements by 1, 1 + step and so on, up to below `most`."""
    del rng
    factors = np.arange(1, most, step)
    return (x + sum(_enlarged(x, factor) for factor in factors)) / (len(factors) + 1)


def snow(
    x: Images, rng: np.random.Generator, mean: float, std: float, zoom: float, least: float, radius: float,
    blur: float, kept: float,
) -> Images:  # fmt: skip
    """Brightens the image and adds flakes: bright spots of enlarged noise, blurred along their fall."""
    flakes = _enlarged(rng.normal(mean, std, (*x.shape[:3], 1)), zoom)
    flakes = _stored(np.where(flakes < least, 0.0, flakes))
    flakes = motion_blur(flakes, rng, radius, blur, -135.0, -45.0)
    gray = (x @ _LUMA)[..., None] if x.shape[-1] == 3 else x.mean(-1, keepdims=True)
    pale = kept * x + (1 - kept) * np.maximum(x, 1.5 * gray + 0.5)
    return pale + flakes + flakes[:, ::-1, ::-1]


def frost(x: Images, rng: np.random.Generator, image: float, ice: float) -> Images:
    """Blends the image with ridges of ice, each with its weight."""
    ridges = 1 - np.abs(2 * _fractal(rng, x.shape[:3], 1.6) - 1)
    return image * x + ice * (ridges**2)[..., None]


def fog(x: Images, rng: np.random.Generator, strength: float, decay: float) -> Images:
    """Adds a fractal, and rescales to the original brightness."""
    brightest = x.max((1, 2, 3), keepdims=True)
    return (x + strength * _fractal(rng, x.shape[:3], decay)[..., None]) * brightest / (brightest + strength)


def brightness(x: Images, rng: np.random.Generator, more: float) -> Images:
    """Increases the value in HSV."""
    del rng
    value = x.max(-1, keepdims=True)
    higher = np.minimum(value + more, 1.0)
    return np.where(value > 0, x * higher / np.maximum(value, 1e-12), higher)


def contrast(x: Images, rng: np.random.Generator, kept: float) -> Images:
    """Keeps a share of the distance to the mean of each channel."""
    del rng
    mean = x.mean((1, 2), keepdims=True)
    return mean + kept * (x - mean)


def elastic(x: Images, rng: np.random.Generator, far: float, smooth: float, affine: float) -> Images:
    """Applies a random affine map, then smooth random displacements; lengths are shares of the shorter side."""
    height, width = x.shape[1:3]
    side = min(height, width)
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij")).astype(float)
    middle, third = np.array([height // 2, width // 2], float), side // 3
    corners = middle + third * np.array([[1, 1], [-1, 1], [-1, -1]])
    out = np.empty_like(x)
    for image, moved in zip(x, out, strict=True):
        targets = corners + rng.uniform(-affine * side, affine * side, corners.shape)
        # Source coordinates of each pixel of the result.
        back = np.linalg.lstsq(np.c_[targets, np.ones(3)], corners, rcond=None)[0]
        source = np.tensordot(back[:2].T, grid, 1) + back[2][:, None, None]
        shifts = [
            far * side * ndimage.gaussian_filter(rng.uniform(-1, 1, (height, width)), smooth * side, truncate=3)
            for _ in range(2)
        ]
        for channel in range(x.shape[-1]):
            mapped = ndimage.map_coordinates(image[..., channel], source, order=1, mode="mirror")
            moved[..., channel] = ndimage.map_coordinates(mapped, grid + shifts, order=1, mode="reflect")
    return out


def pixelate(x: Images, rng: np.random.Generator, share: float) -> Images:
    """Downsamples by a factor with a box filter, and enlarges again."""
    del rng
    height, width = x.shape[1:3]
    small = max(1, int(width * share)), max(1, int(height * share))
    box = Image.Resampling.BOX
    return _through(x, lambda picture: picture.resize(small, box).resize((width, height), box))


def jpeg(x: Images, rng: np.random.Generator, quality: int) -> Images:
    """Compresses as JPEG."""
    del rng

    def stored(picture: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality)
        return Image.open(stream)

    return _through(x, stored)


Strengths = tuple[tuple[float, ...], ...]
CORRUPTIONS: dict[str, tuple[Callable[..., Images], Strengths, Strengths]] = {
    "gaussian_noise": (
        gaussian_noise, ((0.04,), (0.06,), (0.08,), (0.09,), (0.1,)), ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
    ),
    "shot_noise": (shot_noise, ((500,), (250,), (100,), (75,), (50,)), ((60,), (25,), (12,), (5,), (3,))),
    "impulse_noise": (
        impulse_noise, ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)), ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
    ),
    "defocus_blur": (
        defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass_blur": (
        glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": (
        motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)), ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom_blur": (
        zoom_blur, ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    ),
    "snow": (
        snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": (
        frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
    "fog": (fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
            ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    "brightness": (
        brightness, ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,)), ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
    ),
    "contrast": (contrast, ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)), ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,))),
    "elastic": (
        elastic, ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    ),
    "pixelate": (pixelate, ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)), ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,))),
    "jpeg": (jpeg, ((80,), (65,), (58,), (50,), (40,)), ((25,), (18,), (15,), (10,), (7,))),
}  # fmt: skip
"""By name: the function, and its arguments at severities 1 to 5 for small and for large images."""
SEVERITIES = 5


def corrupted(images: npt.NDArray[np.float32], kind: str, severity: int, seed: int) -> npt.NDArray[np.float32]:
    """Returns corrupted images, rounded to 8 bits.

    Args:
      images: float32 (count, height, width, channels) in [0, 1].
      kind: a name in `CORRUPTIONS`.
      severity: from 1 to 5.
      seed: seed of the randomness.
    """
    run, small, large = CORRUPTIONS[kind]
    strength = (small if min(images.shape[1:3]) < _SMALL else large)[severity - 1]
    result = run(images.astype(np.float64), np.random.default_rng(seed), *strength)
    return _stored(result).astype(np.float32)


def _stored(x: Images) -> Images:
    return np.rint(255 * np.clip(x, 0, 1)) / 255


def _through(x: Images, change: Callable[[Image.Image], Image.Image]) -> Images:
    """Applies a function of Pillow images, channel by channel if they are neither gray nor RGB."""
    bytes_ = np.rint(255 * np.clip(x, 0, 1)).astype(np.uint8)
    if x.shape[-1] == 3:
        return np.stack([np.asarray(change(Image.fromarray(image))) for image in bytes_]) / 255
    planes = [[np.asarray(change(Image.fromarray(plane))) for plane in np.moveaxis(image, -1, 0)] for image in bytes_]
    return np.moveaxis(np.array(planes), 1, -1) / 255


def _enlarged(x: Images, factor: float) -> Images:
    """Crops the center of the images and enlarges it to the original size."""

    def line(side: int) -> Images:
        """Returns the linear interpolation matrix of one axis: (side, side)."""
        cut = int(np.ceil(side / factor))
        many = round(cut * factor)
        places = np.linspace(0, cut - 1, many)[(many - side) // 2 :][:side] + (side - cut) // 2
        return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(side)))

    rows, columns = line(x.shape[1]), line(x.shape[2])
    return np.einsum("ah,bw,nhwc->nabc", rows, columns, x, optimize=True)


def _fractal(rng: np.random.Generator, shape: tuple[int, ...], decay: float) -> Images:
    """Returns heights in [0, 1] by the diamond-square algorithm on a torus, one map per image: (count, height, width).

    Every new point is the mean of its four neighbors plus a random number, whose range shrinks by `decay` from one
    scale to the next.
    """
    count, height, width = shape
    size = 1 << max(1, (max(height, width) - 1).bit_length())
    heights, step, spread = np.zeros((count, size, size)), size, 1.0
    while step >= 2:
        half = step // 2
        old = heights[:, ::step, ::step]
        rows = old + np.roll(old, -1, 1)
        squares = (rows + np.roll(rows, -1, 2)) / 4 + rng.uniform(-spread, spread, old.shape)
        heights[:, half::step, half::step] = squares
        above, left = squares + np.roll(squares, 1, 1), squares + np.roll(squares, 1, 2)
        across, down = old + np.roll(old, -1, 2), old + np.roll(old, -1, 1)
        heights[:, ::step, half::step] = (above + across) / 4 + rng.uniform(-spread, spread, old.shape)
        heights[:, half::step, ::step] = (left + down) / 4 + rng.uniform(-spread, spread, old.shape)
        step, spread = half, spread / decay
    low, high = (edge(heights, axis=(1, 2), keepdims=True) for edge in (np.min, np.max))
    return ((heights - low) / (high - low))[:, :height, :width]
