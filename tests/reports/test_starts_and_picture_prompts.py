"""A picture as a start and as a prompt, in the package and in the shell, whatever kind of picture it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fusedream_nb as fd
from fusedream_nb.cli import main
from fusedream_nb.method.scores import PatchScore
from fusedream_nb.models import Models
from fusedream_nb.models.pictures import read_picture

TINY = {"M": 40, "k": 2, "steps": 1, "copies": 2, "start_copies": 2, "judged_copies": 2}


@pytest.fixture(scope="module")
def vqgan() -> Models:
    return fd.load("stickers/vqgan", device="cpu")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A camera's picture: stored lying, to be shown upright."""
    exif, picture = Image.Exif(), Image.new("RGB", (90, 60), (30, 60, 200))
    picture.paste((250, 230, 40), (0, 0, 45, 60))
    exif[0x0112] = 6
    path = tmp_path / "photo.png"
    picture.save(path, exif=exif)
    return path


def kinds(path: Path) -> dict[str, object]:
    picture = read_picture(path)
    return {
        "path": path,
        "pillow": Image.open(path),
        "array": ((picture + 1) * 127.5).round().byte().permute(1, 2, 0).numpy(),
        "tensor": picture,
    }


@pytest.mark.parametrize("kind", ["path", "pillow", "array", "tensor"])
def test_every_kind_of_picture_is_the_same_prompt_and_the_same_start(
    vqgan: Models, photo: Path, kind: str
) -> None:
    given, image = kinds(photo)[kind], read_picture(photo)
    expected = PatchScore(vqgan.clip, ["a dog", image]).vectors
    torch.testing.assert_close(PatchScore(vqgan.clip, ["a dog", given]).vectors, expected)
    torch.testing.assert_close(PatchScore(vqgan.clip, given).vectors, expected[1:])
    step = next(fd.transport(given, vqgan, start=given, seed=[1, 2], steps=0))
    codes = vqgan.generator.encode(read_picture(photo, vqgan.generator.canvas)[None])
    assert torch.equal(step.latent.z, codes.z.expand(2, -1, -1, -1))


def test_a_start_is_cropped_to_the_canvas_and_looks_like_the_picture(photo: Path) -> None:
    models = fd.load("stickers/vqgan", device="cpu", canvas=(96, 64))
    step = next(fd.fusedream("a dog", models, start=photo, M=1, k=1, steps=0, copies=1))
    shown = read_picture(photo, (96, 64))
    assert step.image.shape == (1, 3, 96, 64)
    assert (step.image[0] - shown).abs().mean() < 0.5 * (step.image[0] + shown).abs().mean()
    assert step.image[0, 2, 60:].mean() > step.image[0, 2, :30].mean()  # blue below, as it is shown upright


def test_without_an_encoder_the_start_is_what_clip_finds_nearest(models: Models, pictures, tmp_path) -> None:
    """Of many samples, those that are nearest to one of them begin with itself."""
    latents = models.generator.sample(40, torch.Generator().manual_seed(5))
    with torch.no_grad():
        wanted = models.generator.decode(latents[7:8])[0]
    sizes = {**TINY, "k": 1, "steps": 0}
    step = next(fd.fusedream("a dog", models, start=wanted, seed=5, **sizes))
    torch.testing.assert_close(step.image[0], wanted)
    one, other = (next(fd.fusedream("a dog", models, start=p, seed=3, **sizes)) for p in pictures[:2])
    near = torch.stack([models.clip.encode_image(step.image)[0] for step in (one, other)])
    assert (near @ models.clip.encode_image(pictures[:2]).T).argmax(1).tolist() == [0, 1]


def test_a_text_stays_a_text_and_an_array_of_numbers_is_refused(models: Models, photo: Path) -> None:
    with pytest.warns(UserWarning, match="is read as words"):
        words = PatchScore(models.clip, str(photo)).vectors
    assert torch.equal(words, models.clip.encode_text(str(photo)))
    for wrong in (np.zeros((4, 4, 3)), 7, Path("none.png")):
        with pytest.raises((ValueError, FileNotFoundError), match=r"picture"):
            fd.transport(["a dog", wrong], models)
        with pytest.raises((ValueError, FileNotFoundError), match=r"picture"):
            fd.fusedream("a dog", models, start=wrong)
        with pytest.raises(ValueError, match="A prompt of fusedream is a text; a picture is a start"):
            fd.fusedream(wrong, models)
    with pytest.raises(ValueError, match="no encoder"):
        fd.transport("a dog", models, start=photo)
    with pytest.raises(ValueError, match="no encoder"):
        next(fd.compose("a dog", models, start=(photo, photo)))


@pytest.fixture
def shell(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSEDREAM_DEVICE", "cpu")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        return code, *capsys.readouterr()

    return run


MADE = {
    "nearest": ("a dog", "--start", "photo.png", "--budget", "smoke", "--seeds", "2"),
    "codes": ("a dog", "--transport", "--canvas", "64x96", "--start", "photo.png"),
    "prompts": ("a dog:2", "--transport", "--prompt-picture", "photo.png", "--prompt-picture", "mark.gif"),
    "only": ("--transport", "--mean", "--prompt-picture", "photo.png"),
}


@pytest.mark.parametrize("name", MADE)
def test_in_the_shell_the_picture_is_recorded_and_made_again(shell, photo: Path, name: str) -> None:
    Image.new("P", (9, 9)).save("mark.gif")
    code, out, err = shell("generate", *MADE[name], "--steps", "1")
    assert code == 0, err
    path = out.splitlines()[-1]
    told = json.loads(shell("show", path, "--json")[1])
    assert str(photo) in json.dumps([told["options"]["start"], told["texts"]])
    assert "photo.png" in told["prompt"] or told["options"]["start"]
    assert shell("replay", path)[:2] == (0, "equal\n")
    moved = photo.rename(photo.with_name("moved.png"))
    code, out, err = shell("replay", path)
    assert (code, out) == (2, "") and re.search(
        r"^fusedream-nb: There is no picture .*photo.png\.$", err, re.M
    )
    Image.new("RGB", (8, 8)).save(photo)
    code, out, err = shell("replay", path)
    assert (code, out) == (2, "") and "photo.png is another picture than the one that was used" in err
    moved.rename(photo)


def test_two_pictures_of_one_name_do_not_replace_each_other(shell, photo: Path) -> None:
    Path("other").mkdir()
    Image.new("RGB", (20, 20), (9, 99, 9)).save("other/photo.png")
    paths = [
        shell("generate", "--transport", "--prompt-picture", file, "--steps", "0")[1].strip()
        for file in ("photo.png", "other/photo.png")
    ]
    assert len(set(paths)) == 2 and all(Path(path).exists() for path in paths)


REFUSED = [
    (("a dog", "--prompt-picture", "photo.png"), "--prompt-picture is an option of --transport"),
    (("a dog", "--transport", "--prompt-picture", "none.png"), r"There is no picture .*none.png"),
    (("a dog", "--start", "text.png"), "text.png cannot be read as a picture"),
    (("a dog", "--start", "."), "cannot be read as a picture"),
    (("a dog", "--start", "photo.png", "--compose"), "leave out --compose"),
    (("a dog", "--start", "photo.png", "--transport", "--model", "stickers"), "no encoder"),
    (("--start", "photo.png"), "There is no PROMPT"),
]


@pytest.mark.parametrize(("arguments", "reason"), REFUSED)
def test_what_is_no_picture_or_does_not_go_together_is_a_sentence(shell, photo, arguments, reason) -> None:
    Path("text.png").write_text("not a picture")
    code, out, err = shell("generate", *arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"fusedream-nb: [^\n]*{reason}[^\n]*\n", err), err
    assert not Path("fusedream-out").exists()
