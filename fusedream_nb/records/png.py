"""Pictures as PNG files with a text inside, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

CHUNK = "fusedream"  # key of the text's iTXt chunk


def levels(image: Tensor) -> ndarray:
    """Return a picture [3, h, w] in [-1, 1] as bytes [h, w, 3]; raises ValueError for another shape."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"A picture has the shape [3, h, w], not {list(image.shape)}.")
    rounded = ((image.detach().float() + 1) * 127.5).round().clamp(0, 255)
    return rounded.byte().permute(1, 2, 0).contiguous().cpu().numpy()


def encode(image: Tensor, text: str) -> bytes:
    """Return a picture [3, h, w] in [-1, 1] as a PNG that holds a text."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info, file = PngInfo(), BytesIO()
    info.add_itxt(CHUNK, text)
    Image.fromarray(levels(image)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def decode(path: str | Path) -> tuple[ndarray, str | None]:
    """Return the pixels [h, w, 3] of a PNG and the text in it, if there is one.

    Raises OSError where the file cannot be read and ValueError where it is not a whole PNG.
    """
    from numpy import asarray
    from PIL import Image

    data = Path(path).read_bytes()
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"{path} is not a PNG picture.")
    try:
        with Image.open(BytesIO(data), formats=["PNG"]) as picture:
            pixels = asarray(picture.convert("RGB"))
            return pixels, picture.info.get(CHUNK)
    except Exception as error:  # Pillow's decoder raises half a dozen kinds
        raise ValueError(f"{path} is damaged or cut short; copy it again from where it came.") from error


def write(files: Mapping[Path, bytes], *, new: bool = False) -> None:
    """Write files whole or not at all: first all of them under temporary names, then each gets its own.

    Missing folders are made. With ``new`` no file is replaced: Taken, and nothing written, where one of them
    is there, whoever else writes at the same moment. Raises OSError, in a sentence, where that cannot be.
    """
    end = f".{os.getpid()}-{threading.get_ident()}.part"
    parts = {path: path.with_name(f".{path.name}"[:200] + end) for path in files}
    made: list[Path] = []
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with parts[path].open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path, part in parts.items():
            if new:
                _claim(part, path)
                made.append(path)
            else:
                part.replace(path)
    except BaseException as error:
        for path in made:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, Taken):
            raise cannot_write(path.parent, error) from error
        raise
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink()


class Taken(FileExistsError):
    """Another file has the name."""


def _claim(part: Path, path: Path) -> None:
    """Give a file its own name unless there is one of that name; atomic wherever links are."""
    with suppress(OSError):  # the name is taken, or the file system has no links
        return os.link(part, path)
    try:
        with path.open("xb") as file:
            file.write(part.read_bytes())
    except FileExistsError as error:
        raise Taken(path) from error


def check_folder(folder: Path) -> None:
    """Raise OSError if files could not be written to a folder, which need not be there yet."""
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(bytes(1 << 16))
            probe.flush()
    except OSError as error:
        raise cannot_write(folder, error) from error


def cannot_write(folder: Path, error: OSError) -> OSError:
    """Return an error that says in one sentence why nothing can be written, and what to do."""
    why = (error.strerror or str(error)).lower()
    return OSError(f"Nothing can be written to {folder} ({why}); make room there or choose another folder.")
