"""Pack the sprites of the sticker world into its two sheets.

Run once, by hand, with the two npm packages unpacked beside each other:

    npm pack @lobehub/fluent-emoji-3d emoji-datasource-google
    python tools/pack_sprites.py FLUENT_ASSETS_FOLDER NOTO_64PX_FOLDER

Fluent emoji (Microsoft, MIT) come at 256 px, Noto emoji (Google, Apache 2.0) at 64 px; the
nouns of ``nouns.NOUNS`` stand in rows of seven.
"""

import sys
from pathlib import Path

from PIL import Image

from fusedream_nb.models.stickers.nouns import CODE_POINTS, COLUMNS, SHEETS


def find(folder: Path, code_point: str, suffix: str) -> Path:
    """Return the picture of a code point, with or without its variation selector."""
    for name in (code_point, f"{code_point}-fe0f"):
        path = folder / f"{name}.{suffix}"
        if path.exists():
            return path
    raise SystemExit(f"{folder} has no picture of {code_point}; unpack the whole package there.")


def pack(folder: Path, suffix: str, cell: int, target: Path) -> None:
    """Draw every noun into one sheet, seven in a row, and save it as WebP."""
    rows = -(-len(CODE_POINTS) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * cell, rows * cell))
    for i, point in enumerate(CODE_POINTS.values()):
        sprite = Image.open(find(folder, point, suffix)).convert("RGBA")
        sprite = sprite.resize((cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(sprite, (i % COLUMNS * cell, i // COLUMNS * cell))
    sheet.save(target, quality=92, method=6, exact=True)


if __name__ == "__main__":
    fluent, noto = map(Path, sys.argv[1:3])
    pack(fluent, "webp", 256, SHEETS["fluent"])
    pack(noto, "png", 64, SHEETS["noto"])
