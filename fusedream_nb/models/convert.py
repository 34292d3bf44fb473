"""Fetched weights in the form that loads fastest: converted once to safetensors, in their own folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from .fetch import fetch
from .weights import Entry

CONVERTED = "converted"  # the folder beside the files as they were published


def ready(row: Entry) -> Path:
    """Return the folder to load a model from, after fetching what is missing and converting what is old.

    Raises FileNotFoundError where weights cannot be had, and ValueError where a file is not what it should
    be or its keys are not those of the model.
    """
    from filelock import FileLock

    folder = fetch(row)
    if not any(any(folder.glob(old)) for old in ("*.ckpt", "biggan*.pt*", "pytorch_model.bin")):
        return folder
    target = folder / CONVERTED
    with FileLock(folder / f"{CONVERTED}.lock"):
        newest = max((folder / file.name).stat().st_mtime for file in row.files)
        if not target.exists() or target.stat().st_mtime < newest:
            if problems := row.problems():
                raise ValueError(" ".join(problems))
            fresh = Path(tempfile.mkdtemp(prefix=f"{CONVERTED}-", dir=folder))
            try:
                convert(folder, fresh)
                shutil.rmtree(target, ignore_errors=True)
                os.replace(fresh, target)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    return target


def convert(folder: Path, target: Path) -> None:
    """Write the weights of a folder as safetensors, with their config.json, into another.

    Raises ValueError naming keys that are missing or surplus.
    """
    from . import biggan_files
    from .files import read_tensors, write_tensors

    if biggan_files.is_biggan(folder):
        biggan_files.save(*biggan_files.read(folder), folder=target)
    elif any(folder.glob("*.ckpt")):
        from .taming import load_taming

        load_taming(folder).save_pretrained(target)
    else:
        from .biggan import BigGANDeep

        BigGANDeep.from_folder(folder)  # says which keys are missing or surplus
        write_tensors(read_tensors(folder, ("pytorch_model.bin",)), target / "model.safetensors")
        shutil.copyfile(folder / "config.json", target / "config.json")
