"""A run as a film: a frame a step, as a GIF, and as an MP4 too where imageio's ffmpeg is installed."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

    They are kept in a folder, where a run that goes on after it was killed finds those from before.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._step: Step | None = None

    def add(self, step: Step) -> None:
        """Take a step's pictures, if it is the turn of its index."""
        self._step = step
        if step.index % max(1, math.ceil(step.total / FRAMES)) == 0:
            rows = enumerate(step.frames())
            name = f"frame-{step.index:08d}"
            png.write({self.folder / f"{name}-{i}.png": png.encode(_row(row), "") for i, row in rows})

    def encode(self, result: int) -> dict[str, bytes]:
        """Return the film of a run's result by suffix; warns of a kind that cannot be made."""
        if self._step is None:
            return {}
        last = f"frame-{self._step.index:08d}-{result}.png"
        paths = [path for path in sorted(self.folder.glob(f"frame-*-{result}.png")) if path.name <= last]
        if not paths or paths[0].name != f"frame-{0:08d}-{result}.png":
            warnings.warn("The film lacks the frames from before the run was resumed.", stacklevel=2)
        best = png.levels(_row(self._step.frames(best=True)[result]))
        made = {}
        for suffix, encoder in _encoders().items():
            try:
                made[suffix] = encoder([*(png.decode(path)[0] for path in paths), *[best] * STAYS])
            except Exception as error:  # an encoder is another program, and fails in its own ways
                why = str(error).strip().splitlines() or [type(error).__name__]
                warnings.warn(f"There is no {suffix[1:].upper()} of the film ({why[0]}).", stacklevel=2)
        return made


def _row(pictures: list[Tensor]) -> Tensor:
    """Return pictures side by side [3, h, w], of even sides as films require."""
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
    return row[:, : row.shape[1] // 2 * 2, : row.shape[2] // 2 * 2]


def _encoders() -> dict[str, Callable[[list[ndarray]], bytes]]:
    """Return what makes a film of frames, by suffix."""
    return {".gif": _gif} | ({".mp4": _mp4} if importlib.util.find_spec("imageio_ffmpeg") else {})


def _gif(frames: list[ndarray]) -> bytes:
    from PIL import Image

    file = BytesIO()
    first, *others = [Image.fromarray(frame) for frame in frames]
    own = {"duration": 1000 // RATE, "loop": 0, "comment": png.CHUNK.encode()}
    first.save(file, "GIF", save_all=True, append_images=others, **own)
    return file.getvalue()


def _mp4(frames: list[ndarray]) -> bytes:
    import imageio.v3 as imageio

    own: dict[str, Any] = {"macro_block_size": 2, "output_params": ["-metadata", f"comment={png.CHUNK}"]}
    return imageio.imwrite("<bytes>", frames, extension=".mp4", plugin="FFMPEG", fps=RATE, **own)
