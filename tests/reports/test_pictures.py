"""Pictures from outside are shown as a viewer shows them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from fusedream_nb.models.pictures import read_picture

RED, BLUE, WHITE, GREY = (255, 0, 0), (0, 0, 255), (255, 255, 255), (128, 128, 128)


def levels(picture: torch.Tensor) -> list[list[tuple[int, ...]]]:
    """The rows of a picture in [-1, 1] as levels from 0 to 255."""
    assert picture.dtype == torch.float32 and picture.ndim == 3 and picture.abs().max() <= 1
    rows = ((picture + 1) * 127.5).round().int().permute(1, 2, 0).tolist()
    return [[tuple(pixel) for pixel in row] for row in rows]


def test_sixteen_bits_are_not_white(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    got = read_picture(tmp_path / "ramp.png")
    torch.testing.assert_close(
        got[0], torch.from_numpy(ramp.astype(np.float32)) / 32767.5 - 1, atol=1 / 127, rtol=0
    )
    assert torch.equal(got[0], got[1]) and torch.equal(got[1], got[2])
    Image.fromarray(ramp.astype(np.int32)).save(tmp_path / "ramp.tiff")
    assert torch.equal(read_picture(tmp_path / "ramp.tiff"), got)


def test_a_transparent_grey_of_sixteen_bits_is_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[1000, 40_000]], np.uint16)).save(tmp_path / "a.png", transparency=1000)
    assert levels(read_picture(tmp_path / "a.png")) == [[WHITE, (156, 156, 156)]]


def test_floating_point_grey_keeps_its_range(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)).save(tmp_path / "a.tiff")
    assert levels(read_picture(tmp_path / "a.tiff")) == [[(0, 0, 0), (128, 128, 128), WHITE]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_as_its_exif_says(tmp_path: Path, orientation: int) -> None:
    """A camera's picture, stored turned or mirrored, is seen upright whatever the orientation."""
    upright = Image.new("RGB", (48, 32), WHITE)
    upright.paste(RED, (0, 0, 16, 16))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert levels(read_picture(tmp_path / "a.png")) == levels(read_picture(upright))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_hidden_colours_do_not_show(tmp_path: Path, mode: str) -> None:
    """Behind transparent places there is white, and half of it through what is half transparent."""
    picture = Image.new("RGBA", (3, 1), (0, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    picture.putpixel((2, 0), (0, 0, 0, 128))
    converted = picture.convert(mode)
    assert levels(read_picture(converted))[0][:2] == [(0, 0, 0), WHITE]
    assert levels(read_picture(converted))[0][2] in ((127, 127, 127), (126, 126, 126), GREY)


def test_a_palettes_transparent_entry_and_a_transparent_grey(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([*RED, *BLUE])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "a.png", transparency=1)
    assert levels(read_picture(tmp_path / "a.png")) == [[RED, WHITE]]
    picture.save(tmp_path / "b.gif")
    assert levels(read_picture(tmp_path / "b.gif")) == [[RED, BLUE]]
    grey = Image.new("L", (2, 1), 0)
    grey.putpixel((1, 0), 77)
    grey.save(tmp_path / "c.png", transparency=77)
    assert levels(read_picture(tmp_path / "c.png")) == [[(0, 0, 0), WHITE]]


def test_inks_are_no_lights(tmp_path: Path) -> None:
    inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    inks.save(tmp_path / "a.jpg", quality=100)
    red = read_picture(tmp_path / "a.jpg")
    assert red[0].min() > 0.95 and red[1:].max() < -0.95


def test_colours_are_those_of_the_profile(tmp_path: Path) -> None:
    """Where a profile's red is what sRGB calls blue, red is shown blue; a broken profile is passed over."""
    plain = Image.new("RGB", (4, 4), (200, 60, 30))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ").replace(b"....", b"bXYZ")
    for name, content in {"a": profile, "b": b"no profile", "c": swapped}.items():
        plain.save(tmp_path / f"{name}.png", icc_profile=content)
    as_it_is, broken, other = (read_picture(tmp_path / f"{name}.png") for name in "abc")
    torch.testing.assert_close(as_it_is, read_picture(plain), atol=0.01, rtol=0)
    assert torch.equal(broken, read_picture(plain))
    torch.testing.assert_close(other, read_picture(plain).flip(0), atol=0.05, rtol=0)


def test_arrays_pictures_of_pillow_and_tensors_are_pictures_too() -> None:
    array = np.zeros((2, 3, 3), np.uint8)
    array[0, 1] = RED
    same = [array, Image.fromarray(array), read_picture(array)]
    assert [levels(read_picture(each)) for each in same] == 3 * [
        [[(0, 0, 0), RED, (0, 0, 0)], [(0, 0, 0)] * 3]
    ]
    for wrong in (array[:0], array[..., :1, None], array.astype(float), array.transpose(2, 0, 1)[:, :, :1]):
        with pytest.raises(ValueError, match="an array should be of uint8"):
            read_picture(wrong)
    clear = np.dstack([array, np.zeros((2, 3), np.uint8)])
    assert levels(read_picture(clear)) == [[WHITE] * 3] * 2
    assert levels(read_picture(array[..., 0])) == [[(0, 0, 0), WHITE, (0, 0, 0)], [(0, 0, 0)] * 3]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40))
def test_a_square_is_cropped_from_the_middle(width: int, height: int, size: int) -> None:
    picture = read_picture(Image.new("RGB", (width, height), BLUE), size)
    assert picture.shape == (3, size, size)
    assert levels(picture) == [[BLUE] * size] * size


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n" + b"x" * 99], ids=["empty", "a page", "a header alone"]
)
def test_what_is_no_picture_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"photo.png cannot be read as a picture: "):
        read_picture(path)


def test_half_a_picture_a_missing_one_and_numbers_are_sentences(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "PNG")
    (tmp_path / "half.png").write_bytes(file.getvalue()[: len(file.getvalue()) // 2])
    with pytest.raises(ValueError, match="half.png cannot be read as a picture"):
        read_picture(str(tmp_path / "half.png"))
    with pytest.raises(FileNotFoundError, match=r"There is no picture .*none.png\."):
        read_picture(tmp_path / "none.png")
    with pytest.raises(ValueError, match="cannot be read as a picture: an array should be of uint8"):
        read_picture(np.zeros((2, 2, 3)))
