"""What notebooks measure: readings, fixed scores, moments of a run, and the arrows' two numbers."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import fusedream_nb as fd
from fusedream_nb.models import Models
from fusedream_nb.models.stickers.nouns import NOUNS
from fusedream_nb.notebook import measure
from fusedream_nb.notebook.measure import Reader, correlation, fan


class Ideal:
    """An encoder for which text and picture number i are the unit vector i."""

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        return torch.eye(len(texts))

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


def test_a_reader_names_what_has_the_highest_cosine() -> None:
    read = Reader(Ideal(), ["dog", "cat", "owl"])
    images = torch.tensor([[0.1, 0.9, 0.5], [0.8, 0.1, 0.3]])
    assert read(images) == ["cat", "dog"]
    assert read.top(images, 2) == [["cat", "owl"], ["dog", "owl"]]
    assert read.finds(images, ["owl", "cat"]) == [True, False]
    assert torch.equal(read.cosines(images), images)


def test_nouns_are_those_of_the_world_with_the_wanted_ones_first(models: Models) -> None:
    assert measure.nouns(models, "dog") == ["dog", *(noun for noun in NOUNS if noun != "dog")]
    real = SimpleNamespace(world=None)
    assert measure.nouns(real, "roof", "dog")[:3] == ["roof", "dog", "cat"]
    assert [measure.phrase(noun) for noun in ("owl", "dog")] == ["a photo of an owl", "a photo of a dog"]


def test_a_fixed_score_is_the_same_again_and_independent_of_the_batch(models: Models, pictures) -> None:
    score = measure.fixed_score(models.clip, "a dog", 6, seed=3)
    first, again = measure.rate(score, pictures), measure.rate(score, pictures, at_once=1)
    assert torch.allclose(first, again, atol=1e-5)
    other = measure.rate(measure.fixed_score(models.clip, "a dog", 6, seed=4), pictures)
    assert not torch.allclose(first, other, atol=1e-5)


@pytest.mark.parametrize(
    ("steps", "count", "kept"), [(10, 6, [0, 2, 4, 6, 8, 10]), (7, 4, [0, 2, 5, 7]), (3, 6, [0, 1, 2, 3])]
)
def test_moments_begin_and_end_with_the_run(models: Models, steps, count, kept) -> None:
    run = fd.naive_adam("a dog", models, budget="smoke", steps=steps)
    assert [step.index for step in measure.moments(run, count)] == kept
    assert measure.last(fd.naive_adam("a dog", models, budget="smoke", steps=steps)).index == steps
    with pytest.raises(IndexError):
        measure.last([])


def test_parallel_arrows_have_no_fan_and_opposite_ones_an_endless_one() -> None:
    parallel = torch.tensor([[1.0, 2.0]]).expand(9, 2) * torch.rand(9, 1)
    assert fan(parallel) < 0.1  # degrees: float32 rounds
    assert fan(torch.cat([parallel, -parallel])) > 200
    assert fan(parallel.expand(3, 9, 2)).shape == (3,)


def test_a_narrow_fan_is_the_angles_standard_deviation() -> None:
    angles = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 0.1
    arrows = torch.stack([angles.cos(), angles.sin()], 1)
    assert fan(arrows).item() == pytest.approx(0.1 * 180 / torch.pi, rel=0.02)


def test_correlation_is_the_mean_over_pairs_of_prompts() -> None:
    x = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert correlation(torch.stack([x, -2 * x + 3], 1)).item() == pytest.approx(-1, abs=1e-5)
    costs = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    table = torch.corrcoef(costs.T)
    mean = table[torch.triu_indices(4, 4, 1).unbind()].mean()
    assert correlation(costs).item() == pytest.approx(mean.item(), abs=1e-5)
    assert correlation(torch.stack([costs, costs])).shape == (2,)


def test_a_start_ranked_here_is_the_runs_own(models: Models) -> None:
    rank = measure.start_score(models.clip, "a blue dog", 2)
    sizes = {"M": 12, "k": 3, "start_copies": 2}
    best, _ = fd.top_k(models.generator, rank.table, 12, 3, torch.Generator().manual_seed(5))
    run = fd.fusedream("a blue dog", models, seed=5, budget="smoke", **sizes)
    next(run)
    assert torch.equal(run.start.basis.z, best.z)


@pytest.mark.parametrize(
    ("name", "taken", "canvas"),
    [
        (None, "stickers/vqgan", None),
        ("biggan-256", "vqgan-imagenet-16384", (48, 64)),
        ("mine", "mine", (48, 64)),
    ],
)
def test_transports_notebooks_take_a_vqgan_and_say_which(monkeypatch, capsys, name, taken, canvas) -> None:
    monkeypatch.delenv("FUSEDREAM_MODEL", raising=False)
    monkeypatch.setattr(measure, "load", lambda name, **how: (name, how["canvas"]))
    assert measure.load_vqgan(name, canvas=(48, 64)) == (taken, canvas)
    assert capsys.readouterr().out == (
        f"{name} has no grid of codes, so {taken} is taken.\n" if name == "biggan-256" else ""
    )


def test_imbalance_is_none_for_even_shares_and_one_where_a_prompt_has_all() -> None:
    nearest = torch.tensor([[0] * 36 + [1] * 28, [0] * 49 + [1] * 15, [0] * 64])
    assert measure.imbalance(nearest, 2).tolist() == pytest.approx([8 / 64, 34 / 64, 1.0])
    assert measure.imbalance(torch.arange(12) % 6, 6).item() == pytest.approx(0, abs=1e-6)
    assert measure.imbalance(torch.zeros(12, dtype=torch.long), 6).item() == pytest.approx(1)


def test_gradient_lengths_are_those_of_the_two_goals(models: Models) -> None:
    """ℓ times 3 makes its gradient 3 times as long and leaves that of s alone; latents stay as they are."""
    place = fd.Placement.at(0.5)
    rng = torch.Generator().manual_seed(0)
    pair = [fd.OverParameterised.start(models.generator.sample(2, rng).map(lambda t: t[None])) for _ in "fb"]
    score = measure.fixed_score(models.clip, "a dog", 2)
    loss, s = measure.gradient_lengths(models, score, pair, [place])
    assert loss.shape == s.shape == (1,)
    louder = replace(models, perceptual=lambda a, b: 3 * models.perceptual(a, b))
    three, same = measure.gradient_lengths(louder, score, pair, [place])
    torch.testing.assert_close(three, 3 * loss, rtol=1e-4, atol=0)
    torch.testing.assert_close(same, s, rtol=1e-4, atol=0)
    assert not any(p.requires_grad for half in pair for p in half.parameters())


def test_a_bank_is_dealt_out_so_that_each_seed_ranks_samples_of_its_own(models: Models) -> None:
    """The share of a seed is every other sample; among it the places are the best by AugCLIP itself."""
    dealt, texts = measure.Dealt(models, 20, 2, [5, 6]), ["a red car", "a dog", "a red car"]
    places = dealt.places(texts, [5, 6, 6], 3)
    assert (places % 2).tolist() == [[0] * 3, [1] * 3, [1] * 3]
    pictures = models.generator.decode(models.generator.sample(20, torch.Generator().manual_seed(5)))
    scores = measure.rate(measure.start_score(models.clip, texts[0], 2), pictures.detach())
    assert places[0].tolist() == (2 * scores[::2].topk(3).indices).tolist()
    basis = dealt.start(texts, [5, 6, 6], 3).basis
    assert torch.equal(basis.z[1], dealt.latents.z[places[1]])


def test_a_sample_start_shows_the_best_samples_for_the_prompts_in_turn() -> None:
    """Each prompt's place reads as the prompt; another seed has other samples; real models random codes."""
    vqgan = fd.load("stickers/vqgan", canvas=(64, 128))
    prompts, sizes = ["a photo of a mushroom", "a photo of a sailboat"], fd.budget("smoke")
    wide = replace(sizes, M=120)
    start = measure.sample_start(vqgan, prompts, [0, 1], wide, (1, 2)).combine()
    image = vqgan.generator.decode(start)
    assert image.shape == (2, 3, 64, 128) and not torch.equal(image[0], image[1])
    halves = torch.cat([image[:1, ..., :64], image[:1, ..., 64:]])
    cosines = vqgan.clip.encode_image(halves) @ vqgan.clip.encode_text(prompts).T
    assert cosines.argmax(1).tolist() == [0, 1]
    square = measure.sample_start(fd.load("stickers/vqgan"), prompts, [0], sizes).combine()
    assert square.z.shape[-2:] == (16, 16)
    random = measure.sample_start(replace(vqgan, world=""), prompts, [7], sizes).combine()
    assert torch.equal(random.z, vqgan.generator.sample(1, torch.Generator().manual_seed(7)).z)
