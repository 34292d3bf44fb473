"""Training runs, for real but for seconds: they learn, they stop, they go on where they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from fusedream_nb.models.encoders import Clip
from fusedream_nb.models.perceptual import Perceptual
from fusedream_nb.models.stickers.nouns import COLOURS, NOUNS
from fusedream_nb.models.weights import STICKERS
from training import readers
from training.climbs import Chains, pyramid
from training.encoders import begin, train_encoder
from training.networks import Perceived
from training.pack import pack
from training.perceptual import PUBLISHED, spoilt, train_trunk
from training.readers import Third, load_third, train_reader
from training.run import Run, ema_update

CPU = torch.device("cpu")


def fit(run: Run, model: torch.nn.Linear, optimiser: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimiser.zero_grad()
        (model(torch.ones(1, 2)) - 3).square().sum().backward()
        optimiser.step()
        run.tick(1)


def parts() -> tuple[torch.nn.Linear, torch.optim.Adam]:
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    return model, torch.optim.Adam(model.parameters(), lr=0.1)


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    model, optimiser = parts()
    fit(Run(tmp_path / "whole", 1, {"m": model, "o": optimiser}), model, optimiser, 20)

    first, its = parts()
    run = Run(tmp_path / "broken", 1, {"m": first, "o": its})
    fit(run, first, its, 12)
    run.save()
    fit(run, first, its, 3)  # lost with the process
    second, its = parts()
    run = Run(tmp_path / "broken", 1, {"m": second, "o": its})
    assert run.step == 12
    fit(run, second, its, 8)
    torch.testing.assert_close(second.weight, model.weight, atol=0, rtol=0)


def test_the_average_of_a_constant_is_the_constant() -> None:
    model, _ = parts()
    average, _ = parts()
    for _ in range(5):
        ema_update(average, model, 1000, 0.9)
    torch.testing.assert_close(average.weight, model.weight)
    with torch.no_grad():
        model.weight.add_(1)
    ema_update(average, model, 1000, 0.75)
    torch.testing.assert_close(average.weight, model.weight - 0.75)


def test_an_encoder_begins_with_what_ships() -> None:
    network = begin("clip").eval()
    ours = Clip.from_folder(STICKERS / "clip")
    texts = ["a photo of a blue dog", "a castle on the beach"]
    with torch.no_grad():
        vectors = F.normalize(network.encode_text(ours.tokenizer(texts)), dim=-1)
    torch.testing.assert_close(vectors, ours.encode_text(texts), atol=1e-4, rtol=0)


def test_spoilt_pictures_have_the_published_distances_of_their_strengths() -> None:
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(50, 3, 16, 16, generator=rng) * 2 - 1
    other, published = spoilt(image, rng)
    assert other.shape == image.shape and (published >= 0).all()
    same = (other == image).flatten(1).all(1)
    assert (published[same] == 0).all()  # a shift by no pixel
    torch.testing.assert_close(published[40:], torch.full((10,), PUBLISHED["other"][1.0]))
    assert torch.equal(other[41:], image[40:49])


def test_the_distance_that_is_trained_is_the_one_that_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Perceived()
    for head in model.heads:
        head.data.uniform_(0, 0.2)
    (tmp_path / "trunk").mkdir()
    torch.save(model.state_dict(), tmp_path / "trunk" / "weights.pt")
    pack(tmp_path, tmp_path / "packed", ["trunk"])
    a, b = (torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(i)) * 2 - 1 for i in (0, 1))
    with torch.no_grad():
        mine = model.apart(model.slices(torch.cat([a, b]))[1])
    theirs = Perceptual.from_path(tmp_path / "packed" / "lpips")(a, b)
    torch.testing.assert_close(theirs, mine, rtol=5e-3, atol=0)  # shipped in half precision


def test_climbs_go_uphill_and_begin_again_when_they_are_old() -> None:
    """The mean red of each picture, climbed in the space of pyramids, in which pictures are smooth."""
    rng = torch.Generator().manual_seed(0)
    start, drawn = pyramid()
    chains = Chains(start, drawn, 6, 0.05, 40, rng)
    chains.limit.fill_(12)
    chains.age.zero_()
    before = drawn(chains.z)[:, 0].mean((1, 2))
    for _ in range(11):
        shown = chains.show()
        gradient = torch.zeros_like(shown)
        gradient[:, 0] = 1
        chains.move(gradient)
    assert (drawn(chains.z)[:, 0].mean((1, 2)) > before + 0.1).all()
    old = chains.z.clone()
    chains.show()
    chains.move(gradient)
    assert (chains.age == 0).all() and not torch.isclose(chains.z, old, atol=0.1).all(1).any()


def test_the_third_reader_names_what_its_votes_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With votes that do not depend on the picture, 16 cells raise a logit by log 16, and 25 by log 25."""
    third = Third().eval()
    with torch.no_grad():
        third.votes.weight.zero_()
        third.votes.bias.fill_(-7.0)
    image = torch.zeros(2, 3, 64, 64)
    assert third.words(image) == ["", ""]
    third.votes.bias.data[3], third.votes.bias.data[len(NOUNS) + 1] = 1.0, 2.0
    assert third.words(image) == [f"{COLOURS[0]} {NOUNS[3]}"] * 2
    torch.testing.assert_close(third(image)[:, 3], torch.full((2,), 16.0).log() + 1)
    torch.testing.assert_close(third.read(image)[:, 3], torch.full((2,), 16.0 * 25).sqrt().log() + 1)
    assert [row[0] for row in third.top(image, 2)] == [NOUNS[3]] * 2
    monkeypatch.setattr(readers, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="training third"):
        load_third()


@pytest.mark.heavy
def test_encoders_train_on_what_the_others_left(tmp_path: Path) -> None:
    """The trunk, the two CLIPs and the third reader, seconds each; the judge is shown the climbs of both."""
    torch.save(train_trunk(tmp_path / "trunk", 0.05, CPU, 20, 10), tmp_path / "trunk" / "weights.pt")
    clip = train_encoder("clip", tmp_path / "clip", 0.1, CPU, 24, 24)
    judge = train_encoder("judge", tmp_path / "judge", 0.1, CPU, 24, 24)
    third = train_reader("third", tmp_path / "third", 0.1, CPU, 24, 24)
    for tensors in (clip, judge, third):
        assert all(value.isfinite().all() for value in tensors.values())
    for name in ("trunk", "clip", "judge", "third"):
        assert (tmp_path / name / "checkpoint.pt").exists()
        row = json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[-1])
        wanted = {"read", "error"} if name == "trunk" else {"stained", "seen"}
        assert wanted <= row.keys()
