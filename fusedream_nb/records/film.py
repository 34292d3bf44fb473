"""A run as a film: a frame a step, as a GIF, and as an MP4 too where imageio's ffmpeg is installed."""

from __future__ import annotations

import importlib.util
import math
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from fusedream_nb.records import png

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

    from fusedream_nb.method.run import Step

FRAMES = 100  # of a whole run: at most
HEIGHT = 256  # pixels of a frame: smaller pictures are enlarged to about as many, larger ones shrunk
RATE = 20  # frames a second
STAYS = 2 * RATE  # frames that the last one stays
GAP = 4  # white pixels between the pictures of a composition


class Film:
    """Frames of a run's pictures, taken while it goes on; the last one is the best, and stays.

    A composition's are its foreground, its background and the two together, at the placement that leads
    at the time, and blended in the last; the other methods' are the picture after the step.
    """

    def __init__(self) -> None:
        self.frames: list[list[ndarray]] = []  # of each frame, a picture [h, w, 3] each
        self._step: Step | None = None

    def add(self, step: Step) -> None:
        """Take a step's pictures, if it is the turn of its index."""
        self._step = step
        if step.index % max(1, math.ceil(step.total / FRAMES)) == 0:
            self.frames.append([_frame(pictures) for pictures in step.frames()])

    def save(self, pictures: list[Path]) -> list[list[Path]]:
        """Write beside each of a run's pictures what is its film; return the paths.

        Raises OSError, leaving nothing behind, where the disk is full.
        """
        saved = []
        last = self._step.frames(best=True) if self._step else []
        for i, path in enumerate(pictures):
            frames = [frame[i] for frame in self.frames] + [_frame(last[i])] * STAYS
            files = {path.with_suffix(".gif"): _gif(frames)}
            if importlib.util.find_spec("imageio_ffmpeg"):
                files[path.with_suffix(".mp4")] = _mp4(frames)
            try:
                png.write(files)
            except OSError as error:
                raise png.cannot_write(path.parent, error) from error
            saved.append(list(files))
        return saved


def _frame(pictures: list[Tensor]) -> ndarray:
    """Return pictures side by side, as bytes [h, w, 3], of even sides as films want them."""
    import torch
    import torch.nn.functional as F

    shown = []
    for picture in pictures:
        image = picture.detach().float()[None]
        factor = HEIGHT / image.shape[-2]
        if factor < 1:
            image = F.interpolate(image, scale_factor=factor, mode="bilinear", antialias=True)
        else:
            image = F.interpolate(image, scale_factor=round(factor), mode="nearest")
        shown += [image[0], torch.ones(3, image.shape[-2], GAP)]
    height = max(image.shape[-2] for image in shown)
    row = torch.cat([F.pad(i, (0, 0, 0, height - i.shape[-2]), value=1.0).cpu() for i in shown[:-1]], -1)
    return png.levels(row[:, : row.shape[1] // 2 * 2, : row.shape[2] // 2 * 2])


def _gif(frames: list[ndarray]) -> bytes:
    from PIL import Image

    file = BytesIO()
    first, *others = [Image.fromarray(frame) for frame in frames]
    first.save(file, "GIF", save_all=True, append_images=others, duration=1000 // RATE, loop=0)
    return file.getvalue()


def _mp4(frames: list[ndarray]) -> bytes:
    import tempfile

    import imageio.v3 as imageio

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        imageio.imwrite(path, frames, fps=RATE, macro_block_size=2)
        return path.read_bytes()
