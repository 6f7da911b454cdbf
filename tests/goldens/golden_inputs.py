"""Synthetic golden inputs, made from a seed with whole-number arithmetic only, so the same everywhere.

A frame is a smooth scene with a smooth oval "face" on it, five dark spots, fine grain, and one corner
with strong gray grain. Over the frames of a clip the face moves and its colors slide sideways.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

SPOTS = ((-140, -120, 45), (140, -120, 45), (0, 20, 30), (-60, 200, 50), (60, 200, 50))  # x, y, radius: 1/1000 of width


def enlarge(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear growth of a small [rows, columns, 3] grid; corners meet corners; 8 bit fixed point."""

    def places(cells: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        at = np.arange(size, dtype=np.int64) * (cells - 1) * 256 // (size - 1)
        low = np.minimum(at >> 8, cells - 2)
        return low, at - (low << 8)

    (y, fy), (x, fx) = places(grid.shape[0], height), places(grid.shape[1], width)
    fy, fx = fy[:, None, None], fx[None, :, None]
    rows = grid[y] * (256 - fy) + grid[y + 1] * fy
    grown: np.ndarray = (rows[:, x] * (256 - fx) + rows[:, x + 1] * fx) >> 16
    return grown


def swing(step: int, period: int, reach: int) -> int:
    """Triangle wave between -reach and +reach."""
    phase = 4 * (step % period)
    if phase >= period:
        phase = 2 * period - phase if phase < 3 * period else phase - 4 * period
    return reach * phase // period


def frames(seed: int, count: int, height: int, width: int) -> np.ndarray:
    """`count` RGB frames, uint8 [count, height, width, 3]."""
    rng = np.random.Generator(np.random.PCG64([seed, count, height, width]))
    scene = enlarge(rng.integers(0, 256, (9, 11, 3)), height, width)
    skin = enlarge(rng.integers(60, 230, (7, 6, 3)), height, width)
    ys, xs = np.arange(height, dtype=np.int64)[:, None, None], np.arange(width, dtype=np.int64)[None, :, None]
    rough = (ys * 4 > height * 3) & (xs * 4 > width * 3)
    out = np.empty((count, height, width, 3), np.uint8)
    for step in range(count):
        dx = xs - width // 2 - swing(step, 31, width // 25)
        dy = ys - height // 2 - swing(step + 6, 25, height // 33)
        reach = 1024 * dx * dx // (width * 33 // 100) ** 2 + 1024 * dy * dy // (height * 42 // 100) ** 2
        mask = np.clip((1024 - reach) // 2 + 128, 0, 256)
        image = (scene * (256 - mask) + np.roll(skin, step, 1) * mask) >> 8
        for x, y, radius in SPOTS:
            apart = (dx - x * width // 1000) ** 2 + (dy - y * width // 1000) ** 2
            dark = np.clip(180 - 90 * apart // (radius * width // 1000) ** 2, 0, 180)
            image = image * (256 - dark) >> 8
        grain = rng.integers(-4, 5, image.shape)
        out[step] = np.clip(image + np.where(rough, 24 * grain[..., :1], grain), 0, 255).astype(np.uint8)
    return out


def inputs(name: str, seed_dir: Path) -> np.ndarray:
    """The uint8 RGB input of one golden: [N, 32, 224, 224, 3] for a video detector, else [N, S, S, 3]."""
    rule = json.loads((Path(seed_dir) / name / "meta.json").read_text())["input"]
    items = np.stack([frames(seed, rule["frames"], rule["size"], rule["size"]) for seed in rule["seeds"]])
    return items if rule["frames"] > 1 else items[:, 0]


def sha256(array: np.ndarray) -> str:
    """Checksum of the array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
