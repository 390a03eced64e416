"""Harris, Shi-Tomasi, SIFT, ORB and AKAZE of OpenCV in continuous pixels, with OpenCV's offsets corrected."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from kplab.classical.points import Points, centroid_angles, peaks, to_grey
from kplab.errors import ConfigError, ModelError

#: Sigma of SIFT's first image, pixels, and intervals per octave. Source: Lowe 2004, section 3.
SIFT_SIGMA, SIFT_INTERVALS = 1.6, 3
#: Ratio of ORB's pyramid levels and side of its patch, pixels. Source: OpenCV's defaults.
ORB_RATIO, ORB_PATCH = 1.2, 31
#: Diameter at AKAZE's first level, pixels, and levels per octave: 2 x 1.6 x 1.5 and 4. Source: OpenCV's AKAZEFeatures.
AKAZE_SIZE, AKAZE_LEVELS = 4.8, 4

#: Smallest threshold: the response of a flat image is not above it.
TINY = float(np.finfo(np.float32).tiny)


class SIFTDescriptor:
    """Computes SIFT descriptors at given points.

    A point without an angle gets the direction of the brightness centroid around it. The descriptor is computed on the
    level of the scale space that SIFT itself uses for a point of that size.

    Source: Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", 2004.
    """

    def __init__(self) -> None:
        # without this option OpenCV doubles the image about its corner pixel, which shifts every point by .23 px
        self.sift = cv2.SIFT.create(enable_precise_upscale=True)

    def __call__(self, image: np.ndarray, points: Points) -> np.ndarray:
        """(N, 128) float32 of norm 512."""
        grey = to_grey(image)
        angle = points.angle.copy()
        for size in np.unique(points.size[np.isnan(angle)]):
            rows = np.isnan(angle) & (points.size == size)
            angle[rows] = centroid_angles(grey, points.xy[rows], max(1, round(1.5 * size)))
        # octave + layer / 3: the layers of an octave are 1 to 3, and octaves start at -1
        step = np.round(SIFT_INTERVALS * np.log2(np.maximum(points.size, 1e-6) / (2 * SIFT_SIGMA))).astype(int)
        step = np.maximum(step, 1 - SIFT_INTERVALS)
        layer = (step - 1) % SIFT_INTERVALS + 1
        octave = (step - layer) // SIFT_INTERVALS
        packed = (octave & 255) | (layer << 8)
        return compute(self.sift, grey, points.xy - 0.5, points.size, angle, packed)


def compute(
    extractor: Any,
    grey: np.ndarray,
    at: np.ndarray,
    size: np.ndarray,
    angle: np.ndarray,
    octave: np.ndarray,
    level: np.ndarray | None = None,
) -> np.ndarray:
    """Descriptors of an OpenCV extractor, in the order of the points.

    Args:
        at: (N, 2) positions in the extractor's own convention.
        octave: (N,) OpenCV's field of that name.
        level: (N,) for extractors that read the field class_id; None stores the row number there.

    Raises:
        ModelError: the extractor dropped points.
    """
    number = np.arange(len(at)) if level is None else level
    keypoints = [
        cv2.KeyPoint(float(x), float(y), float(s), float(a), 0.0, int(o), int(n))
        for (x, y), s, a, o, n in zip(at, size, angle, octave, number, strict=True)
    ]
    if not keypoints:
        return np.zeros((0, extractor.descriptorSize()), np.uint8 if extractor.descriptorType() == cv2.CV_8U else "f4")
    kept, found = extractor.compute(grey, keypoints)
    if len(kept) != len(keypoints):
        raise ModelError(
            f"{type(extractor).__name__} describes {len(kept)} of {len(keypoints)} points: the others are too close to the "
            "border. Describe points that it detected itself."
        )
    return found if level is not None else found[np.argsort([k.class_id for k in kept])]


class Corners:
    """Base class of detectors of corners: local maxima of a response of the structure tensor, with subpixel accuracy.

    Args:
        block: side of the window over which products of gradients are summed, pixels, odd.
        aperture: side of the Sobel filters, odd.
        sigma: of the Gaussian applied before the gradients, pixels; 0 is none. A window that is not wider than the blur
            detects a crossing of two edges as four corners; a wide window detects a corner anywhere inside it.
        quality: maxima below this fraction of the image's highest response are discarded. The threshold is relative, so
            it does not change with a gain or an offset of the brightness.
        radius: a corner within this distance of a stronger one is discarded, pixels.
        count: largest number of corners; None is all.
        size: diameter of all corners, pixels. It sets the scale of their descriptor: 8 describes 48 x 48 pixels.

    Raises:
        ConfigError: the window or the aperture is even, which OpenCV anchors half a pixel off.
    """

    descriptor = "SIFT at 8 px"

    def __init__(
        self,
        *,
        block: int = 3,
        aperture: int = 3,
        sigma: float = 0.0,
        quality: float = 0.01,
        radius: float = 4.0,
        count: int | None = None,
        size: float = 8.0,
    ) -> None:
        for name, value in (("block", block), ("aperture", aperture)):
            if value < 1 or value % 2 == 0:
                raise ConfigError(
                    f"{name} is {value}, but must be odd: OpenCV anchors an even window half a pixel off. Use {name}={value + 1}."
                )
        if not 0 <= quality < 1:
            raise ConfigError(
                f"quality is {quality}, but is a fraction of the highest response. Use 0 or more, and less than 1."
            )
        self.block, self.aperture, self.sigma, self.quality = block, aperture, sigma, quality
        self.radius, self.count, self.size = radius, count, size
        self.descriptor = f"SIFT at {size:g} px"
        self.describe = SIFTDescriptor()

    def response(self, image: np.ndarray) -> np.ndarray:
        """(H, W) float32 response of an (H, W) uint8 or float32 image."""
        grey = to_grey(image).astype(np.float32) / 255
        return self.measure(cv2.GaussianBlur(grey, (0, 0), self.sigma) if self.sigma > 0 else grey)

    def measure(self, grey: np.ndarray) -> np.ndarray:
        """The response of a float32 image."""
        raise ModelError(f"{type(self).__name__} has no response of its own. Use Harris or ShiTomasi.")

    def detect(self, image: np.ndarray) -> Points:
        """The corners of an image; a flat image has none."""
        response = self.response(image)
        xy, score = peaks(response, max(self.quality * float(response.max()), TINY))
        return Points.make(xy, score, np.full(len(xy), self.size)).strongest(self.count, self.radius)


class Harris(Corners):
    """Harris corners: det M - k (trace M)**2, with M the structure tensor.

    Args:
        k: a higher value discards more edge-like corners.
        quality: see ``Corners``; lower, as this response grows with the fourth power of the contrast.
        more: see ``Corners``.

    Source: Harris and Stephens, "A combined corner and edge detector", 1988.
    """

    def __init__(self, *, k: float = 0.04, quality: float = 0.0005, **more: Any) -> None:
        super().__init__(quality=quality, **more)
        self.k = k

    def measure(self, grey: np.ndarray) -> np.ndarray:
        """OpenCV's response, whose window is a box."""
        return cv2.cornerHarris(grey, self.block, self.aperture, self.k)


class ShiTomasi(Corners):
    """Shi-Tomasi corners: the smaller eigenvalue of the structure tensor.

    Source: Shi and Tomasi, "Good features to track", 1994.
    """

    def measure(self, grey: np.ndarray) -> np.ndarray:
        """OpenCV's response, whose window is a box."""
        return cv2.cornerMinEigenVal(grey, self.block, ksize=self.aperture)


class SIFT:
    """Extrema of differences of Gaussians, with SIFT's descriptor.

    Args:
        contrast: extrema below this value are discarded, for brightness from 0 to 1 (times 3, the intervals per octave).
            It is absolute: a darker image has fewer points, unless ``count`` limits their number.
        edge: largest ratio of the principal curvatures.
        count: largest number of locations; None is all.
        radius: a location within this distance of a stronger one is discarded, pixels; 0 keeps all.

    Source: Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", 2004.
    """

    descriptor = "SIFT"

    def __init__(
        self, *, contrast: float = 0.04, edge: float = 10.0, count: int | None = None, radius: float = 0.0
    ) -> None:
        self.count, self.radius = count, radius
        self.sift = cv2.SIFT.create(contrastThreshold=contrast, edgeThreshold=edge, enable_precise_upscale=True)
        self.describe = SIFTDescriptor()

    def detect(self, image: np.ndarray) -> Points:
        """Points with their scales, one row per orientation."""
        return of_keypoints(self.sift.detect(to_grey(image)), 0.5).strongest(self.count, self.radius)


class ORB:
    """FAST corners on a pyramid, ranked by Harris, with rotated BRIEF: 256 bits.

    Args:
        threshold: minimum difference of brightness to the ring around a corner, grey levels.
        levels: number of levels of the pyramid.
        candidates: number of corners that are kept before ``count`` and ``radius`` are applied.
        count: largest number of corners; None is all.
        radius: a corner within this distance of a stronger one is discarded, pixels; 0 keeps all.

    Source: Rublee et al., "ORB: an efficient alternative to SIFT or SURF", 2011.
    """

    descriptor = "ORB"

    def __init__(
        self,
        *,
        threshold: int = 20,
        levels: int = 8,
        candidates: int = 5000,
        count: int | None = None,
        radius: float = 0.0,
    ) -> None:
        self.count, self.radius = count, radius
        self.orb = cv2.ORB.create(
            nfeatures=candidates, scaleFactor=ORB_RATIO, nlevels=levels, patchSize=ORB_PATCH, fastThreshold=threshold
        )

    def detect(self, image: np.ndarray) -> Points:
        """Corners with their scales and orientations."""
        grey = to_grey(image)
        found = of_keypoints(self.orb.detect(grey), 0.0)
        nominal, actual = orb_ratios(found.size, grey)
        # OpenCV places cell i of a level at i times the nominal ratio; its centre is at (i + 0.5) times the actual ratio
        xy = (found.xy / nominal[:, None] + 0.5) * actual
        return Points.make(xy, found.score, found.size, found.angle).strongest(self.count, self.radius)

    def describe(self, image: np.ndarray, points: Points) -> np.ndarray:
        """(N, 32) uint8 descriptors of points that ``detect`` returned."""
        grey = to_grey(image)
        nominal, actual = orb_ratios(points.size, grey)
        level = np.round(np.log(nominal) / np.log(ORB_RATIO)).astype(int)
        at = (points.xy / actual - 0.5) * nominal[:, None]
        return compute(self.orb, grey, at, points.size, points.angle, level)


def orb_ratios(size: np.ndarray, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Downscaling of each point's pyramid level: (N,) nominal, and (N, 2) actual, as a level has a whole number of cells."""
    nominal = size / ORB_PATCH
    whole = np.array(grey.shape[::-1], dtype=np.float64)
    return nominal, whole / np.round(whole / nominal[:, None])


class AKAZE:
    """Extrema of the Hessian in a nonlinear scale space, with 486 bits of M-LDB. OpenCV 5 no longer has it.

    Args:
        threshold: minimum response.
        count: largest number of points; None is all.
        radius: a point within this distance of a stronger one is discarded, pixels; 0 keeps all.

    Source: Alcantarilla et al., "Fast explicit diffusion for accelerated features in nonlinear scale spaces", 2013.
    """

    descriptor = "AKAZE"

    def __init__(self, *, threshold: float = 0.001, count: int | None = None, radius: float = 0.0) -> None:
        self.count, self.radius = count, radius
        self.akaze = cv2.AKAZE.create(threshold=threshold)

    def detect(self, image: np.ndarray) -> Points:
        """Points with their scales and orientations."""
        return of_keypoints(self.akaze.detect(to_grey(image), None), 0.5).strongest(self.count, self.radius)

    def describe(self, image: np.ndarray, points: Points) -> np.ndarray:
        """(N, 61) uint8 descriptors of points that ``detect`` returned."""
        level = np.round(AKAZE_LEVELS * np.log2(points.size / AKAZE_SIZE)).astype(int)
        octave = level // AKAZE_LEVELS
        return compute(self.akaze, to_grey(image), points.xy - 0.5, points.size, points.angle, octave, level)


def of_keypoints(found: Any, offset: float) -> Points:
    """Convert OpenCV's keypoints to Points.

    Args:
        offset: added to OpenCV's positions to make them continuous, pixels.
    """
    rows = np.array([(*k.pt, k.response, k.size, k.angle) for k in found], dtype=np.float64).reshape(-1, 5)
    return Points.make(rows[:, :2] + offset, rows[:, 2], rows[:, 3], rows[:, 4])
