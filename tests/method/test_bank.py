"""The start by a bank: the k that ranking finds, whatever becomes of the file."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fusedream_nb as fd
from fusedream_nb.method import bank, views
from fusedream_nb.models import Models
from fusedream_nb.models.files import fingerprint
from fusedream_nb.models.generators import Generator, Latent

M, K, TEXTS = 24, 2, ["a photo of a dog", "a red car on the beach"]


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, in which banks of a few samples are kept."""
    monkeypatch.setenv("FUSEDREAM_CACHE", str(tmp_path))
    monkeypatch.setattr(bank, "WORTH", M)
    return tmp_path / "banks"


def rank(models: Models, texts: list[str] = TEXTS, seed: int = 3, policy: object = views.ALL) -> fd.AugCLIP:
    fixed = views.sample(1, 2, torch.Generator().manual_seed(seed), policy)
    return fd.AugCLIP(models.clip, texts, 2, fixed=fixed)


def by_bank(generator: Generator, score: fd.AugCLIP, seed: int = 0) -> tuple[Latent, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return *fd.top_k(generator, score.table, M, K, rng), rng.get_state()


def directly(generator: Generator, score: fd.AugCLIP, seed: int = 0) -> tuple[Latent, Tensor, Tensor]:
    """The same by a score whose bank is not known."""
    rng = torch.Generator().manual_seed(seed)
    table = lambda image, rng: score.table(image, rng)  # noqa: E731  not a method of AugCLIP's
    return *fd.top_k(generator, table, M, K, rng), rng.get_state()


def check_same(mine: tuple[Latent, Tensor, Tensor], theirs: tuple[Latent, Tensor, Tensor]) -> None:
    assert torch.equal(mine[0].z, theirs[0].z)
    assert (mine[0].y is None and theirs[0].y is None) or torch.equal(mine[0].y, theirs[0].y)
    torch.testing.assert_close(mine[1], theirs[1], atol=1e-5, rtol=0)
    assert torch.equal(mine[2], theirs[2])  # what is drawn next is the same too


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, models: Models) -> list[int]:
    """How many pictures the stickers' generator drew, a number for each time."""
    counts: list[int] = []
    decode = type(models.generator).decode

    def counted(self: Generator, latent: Latent) -> Tensor:
        counts.append(len(latent))
        return decode(self, latent)

    monkeypatch.setattr(type(models.generator), "decode", counted)
    return counts


def test_the_same_k_as_by_ranking_and_the_second_time_hardly_a_picture(
    models: Models, store: Path, drawn: list[int]
) -> None:
    score = rank(models)
    theirs = directly(models.generator, score)
    drawn.clear()
    check_same(by_bank(models.generator, score), theirs)
    assert M < sum(drawn) < M + 4 * K
    (path,) = store.glob("*.safetensors")
    assert path.stat().st_size < M * models.clip.dim * 2 + 2000
    drawn.clear()
    other = rank(models, ["a church at night"])
    check_same(by_bank(models.generator, other), directly(models.generator, other))
    assert sum(drawn) - M < 4 * K  # a new prompt: the direct ranking's M, and the candidates
    assert list(store.glob("*.safetensors")) == [path]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 3), st.floats(0, 1))
def test_candidates_hold_the_k_best_of_exact_vectors(seed: int, k: int, texts: int, alike: float) -> None:
    """However near to each other the scores are: half precision must not lose one of the k best."""
    rng = torch.Generator().manual_seed(seed)
    text = torch.nn.functional.normalize(torch.randn(texts, 16, generator=rng), dim=1)
    exact = torch.nn.functional.normalize(torch.randn(1, 16, generator=rng), dim=1)
    exact = exact.lerp(torch.randn(300, 16, generator=rng) / 4, 10 ** (-5 * alike))
    near = bank.ranked(text, exact.half(), k)
    best = (exact @ text.T).topk(k, dim=0).indices
    assert set(best.flatten().tolist()) <= set(near.tolist())
    plain = bank.ranked(text, exact, k)
    assert set(best.flatten().tolist()) <= set(plain.tolist()) <= set(near.tolist())


def test_ties_are_all_candidates() -> None:
    vectors = torch.eye(4).repeat_interleave(5, 0).half()
    assert bank.ranked(torch.eye(4)[:1], vectors, 2).tolist() == [0, 1, 2, 3, 4]


def test_a_bank_is_of_one_generator_encoder_seed_number_and_set_of_views(models: Models) -> None:
    usual = rank(models)

    def key(generator=models.generator, score=usual, M=M, seed=0):
        return bank.bank_key(generator, score.clip, score.fixed, M, torch.Generator().manual_seed(seed))

    used = torch.Generator().manual_seed(0)
    torch.rand(1, generator=used)
    cut = fd.load("stickers", device="cpu").generator
    cut.truncation = 0.5
    keys = [
        key(),
        key(cut),
        key(score=fd.AugCLIP(models.judge, TEXTS, 3, fixed=rank(models).fixed)),
        key(M=M + 1),
        key(seed=1),
        key(score=rank(models, seed=4)),
        key(score=rank(models, policy=("colour",))),
        bank.bank_key(models.generator, models.clip, rank(models).fixed, M, used),
    ]
    assert len(set(keys)) == len(keys)
    again = fd.load("stickers", device="cpu")
    assert key(again.generator, rank(again, ["a frog"])) == keys[0]


def test_another_weight_is_another_bank() -> None:
    generator = fd.load("stickers", device="cpu").generator
    before = fingerprint(generator)
    with torch.no_grad():
        next(generator.network.parameters()).view(-1)[0] += 1e-3
    assert fingerprint(generator) != before


def test_networks_that_cannot_be_recognised_are_ranked_directly(models: Models, store: Path) -> None:
    class Mine(type(models.generator)):  # type: ignore[misc]  its answers may depend on anything
        pass

    mine = object.__new__(Mine)
    vars(mine).update(vars(models.generator))
    score = rank(models)
    check_same(by_bank(mine, score), directly(models.generator, score))
    assert not store.exists()


def damage(path: Path, how: str, models: Models) -> None:
    whole = path.read_bytes()
    if how == "a changed byte":
        path.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    elif how == "another seed's":
        by_bank(models.generator, rank(models), seed=1)
        (other,) = (p for p in path.parent.glob("*.safetensors") if p != path)
        path.write_bytes(other.read_bytes())
    else:
        path.write_bytes({"half": whole[: len(whole) // 2], "empty": b"", "junk": b"<html>" * 99}[how])


@pytest.mark.parametrize("how", ["half", "empty", "junk", "a changed byte", "another seed's"])
def test_a_file_that_is_damaged_or_anothers_is_made_anew_with_one_line(
    models: Models, store: Path, how: str
) -> None:
    score = rank(models)
    theirs = directly(models.generator, score)
    by_bank(models.generator, score)
    (path,) = store.glob("*.safetensors")
    damage(path, how, models)
    with pytest.warns(UserWarning, match="is not the bank that its name says; it is made again") as told:
        check_same(by_bank(models.generator, score), theirs)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_same(by_bank(models.generator, score), theirs)


def test_where_there_is_no_room_it_is_not_kept_and_says_so(
    models: Models, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    score = rank(models)
    monkeypatch.setattr(bank, "write_tensors", full)
    with pytest.warns(UserWarning, match=r"cannot be kept in .*banks \(No space left on device\)") as told:
        check_same(by_bank(models.generator, score), directly(models.generator, score))
    assert len(told) == 1
    assert not [path for path in store.iterdir() if path.suffix != ".lock"]  # nothing half-written


def test_a_cache_that_is_no_folder_is_told(models: Models, store: Path) -> None:
    store.write_text("a file")
    score = rank(models)
    with pytest.warns(UserWarning, match="cannot be kept"):
        check_same(by_bank(models.generator, score), directly(models.generator, score))


def test_the_oldest_go(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank, "KEPT", 2)
    for number in range(4):
        bank.kept(json.dumps({"M": number}), lambda: torch.zeros(3, 2))
    assert len(list(store.glob("*.safetensors"))) == 2
    assert len(list(store.iterdir())) <= 4


TWICE = """
import sys, time, torch
from pathlib import Path
from fusedream_nb.method import bank
def make():
    Path(sys.argv[1]).open("a").write("made\\n")
    time.sleep(1)
    return torch.arange(12.0).view(4, 3)
print(bank.kept(sys.argv[2], make).sum().item())
"""


def test_two_processes_make_it_once(store: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", TWICE, str(tmp_path / "log"), json.dumps({"M": 4})]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0].strip() for process in both] == ["66.0", "66.0"]
    assert (tmp_path / "log").read_text() == "made\n"


def test_a_run_starts_at_the_bank_and_climbs_to_the_same_picture(models: Models, store: Path) -> None:
    sizes = replace(fd.budget("quick"), M=M, k=K, steps=2, copies=2, start_copies=2, judged_copies=2)
    first, second = ([*fd.fusedream("a dog", models, budget=sizes)] for _ in range(2))
    assert len(list(store.glob("*.safetensors"))) == 1
    assert all(torch.equal(a.image, b.image) for a, b in zip(first, second, strict=True))


def test_a_bank_that_is_built_is_the_one_that_a_run_takes(
    models: Models, store: Path, drawn: list[int]
) -> None:
    told: list[tuple[int, int]] = []
    paths = bank.build(models, seed=5, M=M, copies=2, progress=lambda *n: told.append(n))
    assert told[-1] == (M, M)
    rows = bank.banks()
    assert {row["path"] for row in rows} >= set(paths) and len(paths) == 2
    mine = [row for row in rows if row["path"] in paths]
    assert {row["of"] for row in mine} == {"stickers", "stickers, second start of a composition"}
    assert all((row["seed"], row["M"]) == (5, M) for row in mine)
    drawn.clear()
    sizes = replace(fd.budget("quick"), M=M, k=K, steps=0, copies=2, start_copies=2, judged_copies=2)
    next(fd.fusedream("a dog", models, seed=5, budget=sizes))
    assert sum(drawn) < M / 2
    drawn.clear()
    pair = fd.compose("a dog, a car", models, seed=5, foreground="a dog", background="a car", budget=sizes)
    pair.begin()
    assert sum(drawn) < M / 2


def test_the_command_makes_both_banks_and_doctor_lists_them(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fusedream_nb.cli import main

    assert main(["models", "bank", "stickers", "--seed", "7", "--M", "12", "--budget", "smoke"]) == 0
    paths = capsys.readouterr().out.split()
    assert len(paths) == 2 and {Path(path).parent for path in paths} == {store}
    assert main(["models", "bank", "stickers", "--M", "12", "--folder", str(tmp_path / "other")]) == 0
    assert len(list((tmp_path / "other").glob("*.safetensors"))) == 2
    capsys.readouterr()
    main(["doctor"])
    told = capsys.readouterr().out
    assert all(told.count(f"{name}: seed 7, M = 12") == 1 for name in ("stickers", "of a composition"))


def test_the_shipped_bank_is_that_of_the_shipped_weights(models: Models) -> None:
    """Made anew, with ``fusedream-nb models bank stickers --folder``, whenever the weights change."""
    paths = list(bank.SHIPPED.glob("*.safetensors"))
    if not paths:
        pytest.skip("no bank is shipped yet")
    copies, rng = fd.budget("quick").start_copies, torch.Generator().manual_seed(0)
    views = bank.start_views(copies)
    key = bank.bank_key(models.generator, models.clip, views, 10_000, rng)
    assert bank.bank_name(key) in {path.name for path in paths}
    assert len(paths) == 1  # that of a composition's second start would not fit into 32 MiB
    vectors = bank.kept(key, lambda: pytest.fail("not read"))
    some = models.generator.sample(10_000, rng)[:8]
    few = bank.image_vectors(models.generator, models.clip, views, some)
    torch.testing.assert_close(vectors[:8].float(), few, atol=1e-3, rtol=0)


def test_the_start_is_as_wide_as_the_bank_that_ships(models: Models) -> None:
    quick = fd.budget("quick")
    assert bank.widened(quick, models, [0]).M == 10_000
    assert bank.widened(quick, models, [0, 1]) == quick  # seed 1 has none
    assert fd.fusedream("a fox", models, seed=0, budget="quick").config.budget.M == 10_000
    assert fd.fusedream("a fox", models, seed=0, budget="quick", M=30).config.budget.M == 30
