"""Classes stay apart for every kind of sight: by colour as far as it goes, by marker always."""

import itertools

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from vilogit import plot_class_map
from vilogit.maps import MARKERS, PALETTE

# Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB.
SIGHT = {
    "full": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def seen(encoded, sight):
    """CIELAB (white point D65) of an sRGB colour as that sight has it."""
    lamps = np.where(encoded > 0.04045, ((encoded + 0.055) / 1.055) ** 2.4, encoded / 12.92)
    light = np.clip(SIGHT[sight] @ lamps, 0, 1)  # a screen cannot show more
    t = TO_XYZ @ light / TO_XYZ.sum(axis=1)
    x, y, z = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def ciede2000(first, second):
    """Sharma, Wu and Dalal (2005), equations (2) to (22), all weights one."""
    (L1, a1, b1), (L2, a2, b2) = first, second
    mean_chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - np.sqrt(mean_chroma**7 / (mean_chroma**7 + 25.0**7)) / 2
    p1, p2 = complex(a1 * stretch, b1), complex(a2 * stretch, b2)
    C1, C2 = abs(p1), abs(p2)
    turn = np.angle(p2 * p1.conjugate()) if C1 * C2 else 0.0
    h = np.angle(p1) + turn / 2 if C1 * C2 else np.angle(p1 + p2)
    L, C = (L1 + L2) / 2, (C1 + C2) / 2
    T = 1 + sum(
        w * np.cos(k * h + np.radians(shift))
        for w, k, shift in [(-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.20, 4, -63)]
    )
    dL = (L2 - L1) / (1 + 0.015 * (L - 50) ** 2 / np.sqrt(20 + (L - 50) ** 2))
    dC = (C2 - C1) / (1 + 0.045 * C)
    dH = 2 * np.sqrt(C1 * C2) * np.sin(turn / 2) / (1 + 0.015 * C * T)
    twist = np.radians(60 * np.exp(-(((np.degrees(h) % 360 - 275) / 25) ** 2)))
    R = -2 * np.sqrt(C**7 / (C**7 + 25.0**7)) * np.sin(twist)
    return np.sqrt(dL**2 + dC**2 + dH**2 + R * dC * dH)


@pytest.mark.parametrize(
    ("first", "second", "published"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_difference_is_the_published_one(first, second, published):
    assert ciede2000(first, second) == pytest.approx(published, abs=6e-5)
    assert ciede2000(second, first) == pytest.approx(published, abs=6e-5)


def test_a_simulated_eye_leaves_greys_alone():
    for matrix in SIGHT.values():
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=3e-6)


def drawn(n_classes):
    """Colours of the regions and of the points of a map on which every class is sure somewhere."""
    X = np.column_stack([np.arange(n_classes), np.zeros(n_classes), np.ones(n_classes)])
    y = np.arange(n_classes)
    ax = plot_class_map(
        lambda grid: np.eye(n_classes)[np.round(grid[:, 0]).astype(int)],
        X, y, limits=(0, n_classes - 1, -1, 1), resolution=2 * n_classes - 1,
    )  # fmt: skip
    regions = np.asarray(ax.get_images()[0].get_array())[0, ::2]
    points = [c.get_facecolor()[0, :3] for c in ax.collections[-n_classes:]]
    plt.close("all")
    return regions, points


# What the palette has, rounded down; one just-noticeable difference is about 1. Tritanopia brings
# blue and green together, deuteranopia the eighth class, a grey, and green; the twelve after them
# come no closer for that.
FLOORS = {
    3: {"full": (26, 35), "protanopia": (26, 35), "deuteranopia": (24, 32), "tritanopia": (12, 15)},
    5: {"full": (15, 22), "protanopia": (9, 12), "deuteranopia": (14, 15), "tritanopia": (8, 10)},
    8: {"full": (15, 21), "protanopia": (6, 10), "deuteranopia": (4, 7), "tritanopia": (8, 10)},
    10: {"full": (15, 21), "protanopia": (6, 8), "deuteranopia": (4, 7), "tritanopia": (8, 10)},
    20: {"full": (13, 15), "protanopia": (6, 7), "deuteranopia": (4, 7), "tritanopia": (7, 7)},
}


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("n_classes", FLOORS)
def test_classes_are_apart_for_every_sight(n_classes, sight):
    for kind, colours, floor in zip(
        ("regions", "points"), drawn(n_classes), FLOORS[n_classes][sight], strict=True
    ):
        assert len(colours) == n_classes
        coordinates = [seen(colour, sight) for colour in colours]
        pairs = itertools.combinations(coordinates, 2)
        closest = min(ciede2000(first, second) for first, second in pairs)
        assert closest >= floor - 0.05, f"{kind}: two of {n_classes} are {closest:.1f} apart"


def outline(marker):
    style = matplotlib.markers.MarkerStyle(marker)
    return style.get_path().transformed(style.get_transform())


def test_every_class_has_a_marker_of_its_own():
    assert len(MARKERS) == len(PALETTE)
    shapes = {outline(marker).vertices.tobytes() for marker in MARKERS}
    assert len(shapes) == len(MARKERS)


def test_no_marker_covers_another():
    """Of what two cover together, a fifth is covered by one alone, beyond eight three tenths."""
    X, y = np.zeros((20, 2)), np.arange(20)
    ax = plot_class_map(lambda grid: np.full((len(grid), 20), 0.05), X, y, resolution=2)
    side = np.linspace(-0.75, 0.75, 61)
    raster = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    covered = [c.get_paths()[0].contains_points(raster) for c in ax.collections[-20:]]
    plt.close("all")
    for one, other in itertools.combinations(range(20), 2):
        shared = (covered[one] & covered[other]).sum() / (covered[one] | covered[other]).sum()
        limit = 0.8 if max(one, other) < 8 else 0.7  # a disc is like a square and a diamond
        assert shared < limit, f"markers {one} and {other} share {shared:.2f}"
