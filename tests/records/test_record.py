from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import fusedream_nb as fd
from fusedream_nb.method.barrier import BilevelRule
from fusedream_nb.method.budgets import Budget
from fusedream_nb.records import png, record
from fusedream_nb.records.record import Record, describe, hashes, read_record, save, slug
from fusedream_nb.records.replay import changes, difference, replay

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too
NASTY = [
    "a photo of a blue dog", "", " ", "../../x", "/etc/passwd", "<script>alert('x')</script>", 'say "hi"',
    "a\nb\r\n\tc", "🐶🐕", "x" * 10_000, "word " * 2_000, "-rf", ".hidden", "CON", "nul", "a\0b",
    "\x1b[31mred", "犬", "été", "\udc80", "\u202egpj",
]  # fmt: skip
RECORD = Record(
    prompt="a blue dog", seed=3, model="stickers", budget="quick", M=8, k=2, steps=4, copies=2, lr=0.02,
    start_copies=2, judged_copies=2, device="cpu", dtype="float32", score=0.25, judge_score=0.5, steps_done=4,
    seconds=1.5, weights={"stickers/a": "00"}, knobs=[{"step": 2, "lr": 0.01}],
)  # fmt: skip


def picture(size: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(seed)) * 2.4 - 1.2


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def files_of_at_most(size: int):
    """Make every larger file fail as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@given(ANY_TEXT, st.integers(0, 2**63 - 1))
def test_a_slug_is_a_safe_file_name(prompt, seed):
    name = slug(prompt, seed)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert name.endswith(f"-{seed}")
    assert len(name) <= 60 + len("-0123456789-") + len(str(seed))


@pytest.mark.parametrize("prompt", NASTY, ids=range(len(NASTY)))
def test_a_nasty_prompt_has_a_slug(prompt):
    test_a_slug_is_a_safe_file_name.hypothesis.inner_test(prompt, 0)


def test_the_slug_of_plain_words_is_readable():
    assert slug("a photo of a blue dog", 7) == "a-photo-of-a-blue-dog-7"
    assert slug("Élan vital!", 0).startswith("elan-vital-")
    assert slug("🐶", 0).startswith("picture-")


LOOKALIKES = st.text("aA1b -_.é", max_size=6) | ANY_TEXT
RUNS = st.tuples(LOOKALIKES, st.integers(0, 12))


@settings(max_examples=500)
@given(RUNS, RUNS)
@example(("dog 1", 2), ("dog", 12))
@example(("a", 0), ("A", 0))
@example(("x" * 61, 0), ("x" * 62, 0))
def test_two_runs_never_share_a_slug(one, other):
    assert (slug(*one) == slug(*other)) == (one == other)


def test_a_prompt_that_imitates_another_slug_gets_its_own():
    imitation = slug("A dog", 0).removesuffix("-0").replace("-", " ")
    assert slug(imitation, 0) != slug("A dog", 0)


VALUES = st.none() | st.integers(0, 9) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
KNOBS = st.lists(st.dictionaries(st.text(), VALUES), max_size=3)


@settings(max_examples=60, deadline=None)
@given(prompt=ANY_TEXT, seed=st.integers(0, 2**63 - 1), knobs=KNOBS)
@example(prompt="x" * 10_000, seed=0, knobs=[])
@example(prompt='\0"\\</script>\n🐶\ud800', seed=0, knobs=[])
def test_a_record_comes_back_from_the_picture_and_from_the_file_beside_it(prompt, seed, knobs):
    whole = prompt.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")  # pairs joined
    saved = replace(RECORD, prompt=whole, seed=seed, knobs=knobs, batch_prompts=[whole], batch_seeds=[seed])
    with TemporaryDirectory() as folder:
        path = save(picture(), saved, folder)
        assert read_record(path) == saved
        assert json.loads(path.with_suffix(".json").read_bytes()) == asdict(saved)
        assert names(Path(folder)) == sorted([path.name, path.with_suffix(".json").name])


def test_the_record_is_an_itxt_chunk(tmp_path):
    data = save(picture(), RECORD, tmp_path).read_bytes()
    assert b"iTXtfusedream\0" in data


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_colours_are_rounded_and_never_stretched(tmp_path, dtype):
    image = picture().to(dtype)
    pixels = np.asarray(Image.open(save(image, RECORD, tmp_path))).transpose(2, 0, 1)
    wanted = np.clip(np.rint((image.float().numpy() + 1) * 127.5), 0, 255)
    assert (pixels == wanted).all()
    known = torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.5]).expand(3, 1, 5)
    assert png.levels(known)[0, :, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (1, 3, 8, 8), (8, 8, 3)])
def test_another_shape_is_named(tmp_path, shape):
    with pytest.raises(ValueError, match=r"\[3, h, w\]"):
        save(torch.zeros(shape), RECORD, tmp_path)
    assert not names(tmp_path)


def test_a_truncated_picture_is_told_from_a_whole_one_wherever_it_was_cut(tmp_path):
    path = save(picture(), RECORD, tmp_path)
    data, cut = path.read_bytes(), tmp_path / "cut.png"
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        try:
            assert read_record(cut) == RECORD
            assert (png.decode(cut)[0] == png.decode(path)[0]).all()
        except ValueError as error:
            assert "not a PNG" in str(error) or "damaged or cut short" in str(error)
            assert "\n" not in str(error)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_picture_is_a_valueerror_at_worst(data):
    with TemporaryDirectory() as folder:
        path = save(picture(), RECORD, folder)
        content = bytearray(path.read_bytes())
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
            content[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        try:
            assert isinstance(read_record(path), Record)
        except ValueError as error:
            assert str(path) in str(error)


def with_text(path: Path, text: str | None) -> Path:
    info = PngInfo()
    if text is not None:
        info.add_itxt(png.CHUNK, text)
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    return path


def test_what_holds_no_record_is_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_record(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError):
        read_record(tmp_path)
    jpeg = tmp_path / "photo.png"
    Image.new("RGB", (4, 4)).save(jpeg, "JPEG")
    with pytest.raises(ValueError, match="not a PNG"):
        read_record(jpeg)
    with pytest.raises(ValueError, match="holds no record"):
        read_record(with_text(tmp_path / "plain.png", None))


NO_RECORDS = ["", "{", "[]", "{}", "null", '{"format": 1}', '{"format": "1"}', "[" * 100_000]


@pytest.mark.parametrize("text", NO_RECORDS, ids=range(len(NO_RECORDS)))
def test_a_record_that_is_none_is_named(tmp_path, text):
    with pytest.raises(ValueError, match="cannot be read"):
        read_record(with_text(tmp_path / "odd.png", text))


def test_a_record_of_a_newer_program_asks_for_an_upgrade(tmp_path):
    newer = asdict(RECORD) | {"format": record.FORMAT + 1, "mood": "blue"}
    with pytest.raises(ValueError, match="newer than this program; upgrade"):
        read_record(with_text(tmp_path / "newer.png", json.dumps(newer)))


def test_the_same_settings_replace_their_picture_and_others_do_not(tmp_path):
    first = save(picture(), RECORD, tmp_path)
    again = replace(RECORD, created="later", torch="3.0", seconds=9.0, batch_prompts=["x", "y"])
    assert save(picture(seed=1), again, tmp_path) == first
    assert difference(first, picture(seed=1)) == 0
    longer = save(picture(), replace(RECORD, steps=8, steps_done=8), tmp_path)
    retrained = save(picture(), replace(RECORD, weights={"stickers/a": "11"}), tmp_path)
    assert [path.stem for path in (first, longer, retrained)] == [
        f"a-blue-dog-3{n}" for n in ("", "_2", "_3")
    ]
    assert save(picture(), replace(RECORD, steps=8, steps_done=8), tmp_path) == longer
    assert len(names(tmp_path)) == 6


def test_an_unfinished_picture_gives_way_to_a_finished_one_only(tmp_path):
    partial = replace(RECORD, steps_done=1)
    assert save(picture(), partial, tmp_path) == save(picture(), RECORD, tmp_path)
    assert save(picture(), partial, tmp_path).name == "a-blue-dog-3_2.png"


def test_a_file_that_is_not_ours_stays(tmp_path):
    (tmp_path / "a-blue-dog-3.png").write_text("mine")
    (tmp_path / "a-blue-dog-3_2.png").mkdir()
    assert save(picture(), RECORD, tmp_path).name == "a-blue-dog-3_3.png"
    assert (tmp_path / "a-blue-dog-3.png").read_text() == "mine"


def test_a_folder_is_made_and_one_that_cannot_be_is_named(tmp_path):
    assert save(picture(), RECORD, tmp_path / "new" / "er").exists()
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        for write in (png.check_folder, lambda folder: save(picture(), RECORD, folder)):
            with pytest.raises(OSError, match=r"^Nothing can be written to .* \(.+\); .*\.$"):
                write(folder)


def test_looking_whether_a_folder_can_be_written_to_leaves_no_trace(tmp_path):
    png.check_folder(tmp_path / "not" / "yet")
    assert not names(tmp_path)


@pytest.mark.parametrize("limit", [0, 10, 1000])
def test_a_full_disk_leaves_what_was_there_and_nothing_else(tmp_path, limit):
    path = save(picture(), RECORD, tmp_path)
    before, there = path.read_bytes(), names(tmp_path)
    with files_of_at_most(limit):
        with pytest.raises(OSError, match="Nothing can be written"):
            save(picture(64), RECORD, tmp_path)
        with pytest.raises(OSError, match="Nothing can be written"):
            png.check_folder(tmp_path)
    assert names(tmp_path) == there
    assert path.read_bytes() == before


WRITER = """
import sys
from pathlib import Path
from fusedream_nb.records import png
path = Path(sys.argv[1])
while True:
    for letter in b"ab":
        png.write({path: bytes([letter]) * 3_000_000})
"""


def test_killed_at_any_moment_a_file_is_whole(tmp_path):
    path = tmp_path / "picture.png"
    for i in range(8):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
        while not path.exists():
            assert writer.poll() is None
            time.sleep(0.001)
        time.sleep(0.003 * i)
        writer.kill()
        writer.wait()
        content = path.read_bytes()
        assert len(content) == 3_000_000
        assert len(set(content)) == 1


SMALL = {"M": 6, "k": 2, "steps": 3, "copies": 2}


def draw(models, folder, prompts=("a blue dog",), seeds=(0,), done=3, turned=None, **options):
    """Make pictures with a small budget, up to a step, the knobs turned on the way, and save them."""
    run = fd.fusedream(list(prompts), models, seed=list(seeds), budget="quick", **SMALL, **options)
    return keep(run, folder, done, turned or {})


def keep(run, folder, done, turned):
    for step in islice(run, done + 1):
        run.set(**turned.get(step.index, {}))
    return [save(image, what, folder) for image, what in describe(run)]


def test_a_record_says_what_made_the_picture(models, tmp_path):
    (path,) = draw(models, tmp_path, seeds=[5])
    told = read_record(path)
    assert (told.prompt, told.seed, told.model, told.budget) == ("a blue dog", 5, "stickers", "quick")
    assert {name: getattr(told, name) for name in SMALL} == SMALL
    assert told.steps_done == 3
    assert -1 <= told.score <= 1
    assert -1 <= told.judge_score <= 1
    assert told.torch == torch.__version__
    assert told.threads == torch.get_num_threads()
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in told.weights.values())
    assert any(name.endswith("generator/model.safetensors") for name in told.weights)
    empty = {f.name for f in fields(told) if getattr(told, f.name) in ("", [], {}, None)}
    assert empty == {"knobs", "canvas"}


def test_a_replay_is_equal_alone_in_a_batch_and_stopped_early(models, tmp_path):
    batch = draw(models, tmp_path, ["a blue dog", "a red car"], [1, 2])
    (stopped,) = draw(models, tmp_path, seeds=[4], done=1)
    (optional,) = draw(models, tmp_path, seeds=[6], policy=["colour"], weights="coordinate")
    for path in (batch[1], stopped, optional):
        image, off = replay(path, device="cpu")
        assert off == 0
        assert difference(path, image) == 0


def test_a_replay_turns_the_knobs_again(models, tmp_path):
    turned = {0: {"lr": 0.001}, 1: {"prompt": ["a red car"], "cutout": 0.5}, 2: {"steps": 4, "noise": 0.1}}
    (path,) = draw(models, tmp_path, done=4, turned=turned)
    told = read_record(path)
    assert (told.prompt, told.batch_prompts, told.steps, told.steps_done) == (
        "a red car", ["a blue dog"], 3, 4,
    )  # fmt: skip
    assert sorted(map(str, told.knobs)) == sorted(
        str({"step": step, name: value}) for step, many in turned.items() for name, value in many.items()
    )
    assert replay(path)[1] == 0
    plain = save(png_of(path), replace(told, knobs=[]), tmp_path / "plain")
    assert replay(plain)[1] > 0


def png_of(path):
    return torch.from_numpy(png.decode(path)[0].copy()).permute(2, 0, 1) / 127.5 - 1


def test_compositions_and_transports_replay_too(models, tmp_path):
    tiny = Budget("tiny", M=4, k=2, steps=2, copies=2, lr=0.02, start_copies=1, judged_copies=2)
    boxes = [fd.Placement.at(0.5, "left", "top"), fd.Placement(0.65, 0.5, 1.0, height=0.4)]
    duet = fd.compose("a cat on a house", models, placements=boxes, budget=tiny, rule=BilevelRule(0.5))
    plan = fd.transport(["a cat", "a house"], models, seed=[1, 2], cutouts=fd.Cutouts(4), budget=tiny)
    for run, turned in ((duet, {"rule": "linear"}), (plan, {"epsilon": 0.4})):
        paths = keep(run, tmp_path, 2, {1: turned})
        assert [read_record(path).knobs for path in paths] == [[{"step": 1, **turned}]] * len(paths)
        assert read_record(paths[-1]).prompt in ("a cat on a house", "a cat, a house")
        assert replay(paths[-1])[1] == 0


def test_what_no_text_holds_is_told(models, pictures):
    run = fd.transport(["a cat", pictures[0]], models, steps=0, cutouts=fd.Cutouts(2))
    with pytest.raises(ValueError, match="has not begun"):
        describe(run)
    next(run)
    with pytest.raises(ValueError, match="an argument is a Tensor; give a picture as the Path of its file"):
        describe(run)


def test_a_picture_that_differs_says_how_far(models, tmp_path):
    (path,) = draw(models, tmp_path)
    pixels = np.asarray(Image.open(path)).astype(int)
    told = read_record(path)
    pixels[3, 5, 1] += 7 if pixels[3, 5, 1] < 128 else -7
    save(torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1, told, tmp_path)
    assert replay(path)[1] == 7
    assert difference(path, torch.zeros(3, 5, 5)) == 255


def test_other_weights_and_another_device_are_told(models, tmp_path):
    (path,) = draw(models, tmp_path)
    told = replace(read_record(path), weights={"stickers/a": "00"}, device="tpu")
    path = save(torch.zeros(3, 64, 64), told, tmp_path)
    with pytest.warns(UserWarning) as warned:
        replay(path, device="cpu")
    sentences = " ".join(str(w.message) for w in warned)
    assert "weights of stickers are not those" in sentences
    assert "made on tpu" in sentences


def test_a_replay_refuses_another_encoder_and_names_it(models, tmp_path):
    (path,) = draw(replace(models, clip=models.judge), tmp_path)
    with pytest.raises(ValueError, match="clip = 'the sticker judge'"):
        replay(path)
    old = replace(read_record(path), clip="", weights={"RN50/openai/model.bin": "00"}, format=3)
    with pytest.raises(ValueError, match="clip = 'RN50/openai'"):
        replay(save(torch.zeros(3, 64, 64), old, tmp_path))


def test_changes_name_what_differs():
    assert changes(RECORD, RECORD) == []
    assert changes(RECORD, replace(RECORD, torch="9", threads=7)) == [
        "torch was  and is 9",
        "threads was 0 and is 7",
    ]


def test_the_hashes_are_those_of_any_files_that_can_be_loaded(tmp_path, monkeypatch):
    def digests(folder, *names):
        return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}

    monkeypatch.setenv("FUSEDREAM_CACHE", str(tmp_path))
    named = tmp_path / "RN50--openai"
    for folder in (named, tmp_path / "mine"):
        folder.mkdir()
        for name in ("open_clip_config.json", "open_clip_model.safetensors"):
            (folder / name).write_bytes(f"{folder} {name}".encode())
    (tmp_path / "g.pt").write_bytes(b"weights")
    files = ("open_clip_config.json", "open_clip_model.safetensors")
    told = hashes(str(tmp_path / "g.pt"), "RN50/openai", "the sticker CLIP")
    assert told == {
        **digests(tmp_path, "g.pt"),
        **{f"RN50/openai/{name}": digest for name, digest in digests(named, *files).items()},
    }
    mine = tmp_path / "mine"
    assert hashes(str(mine)) == digests(mine, *files)
    assert hashes("stickers", str(mine)) == hashes("stickers") | {
        f"mine/{name}": digest for name, digest in digests(mine, *files).items()
    }
    assert hashes("stickers/vqgan") == hashes("stickers") != {}
    monkeypatch.chdir(tmp_path)
    before = hashes("stickers")
    (tmp_path / "stickers").mkdir()  # a folder of that name is never what load() takes
    (tmp_path / "stickers" / "x.txt").write_text("x")
    assert hashes("stickers") == before
