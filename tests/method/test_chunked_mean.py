"""A mean in pieces is the mean, gradient and all, however it is cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fusedream_nb as fd
from fusedream_nb.method import views
from fusedream_nb.method.views import Copies, chunked_mean
from fusedream_nb.models import Models

SIZE = 8


class Part:
    """The mean over copies of a smooth function of each; keeps how many it was given at a time."""

    def __init__(self, most: int = 10**9) -> None:
        self.most, self.seen = most, []

    def __call__(self, image: Tensor, numbers: Copies) -> Tensor:
        """Run out of memory above so many copies."""
        together = len(image) * numbers.count
        if together > self.most:
            raise torch.OutOfMemoryError("too many")
        self.seen.append(together)
        copies = views.augment(image, numbers)
        return copies.square().mul(1.5).sin().mean((1, 2, 3)).view(len(image), -1).mean(1)


def drawn(n: int, copies: int) -> tuple[Tensor, Copies]:
    rng = torch.Generator().manual_seed(n + 10 * copies)
    return torch.rand(n, 3, SIZE, SIZE, generator=rng) * 2 - 1, views.sample(n, copies, rng)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 4), copies=st.integers(1, 9), at_once=st.integers(1, 40))
def test_value_and_gradient_do_not_depend_on_the_cut(n: int, copies: int, at_once: int) -> None:
    image, numbers = drawn(n, copies)
    outer = torch.linspace(-1, 2, n)
    found = []
    for cut in (None, at_once):
        part, leaf = Part(), image.clone().requires_grad_()
        value = part(leaf, numbers) if cut is None else chunked_mean(part, leaf, numbers, cut)[0]
        found.append((value.detach(), torch.autograd.grad(value, leaf, outer)[0]))
        assert max(part.seen) <= max(n, cut or n * copies)
        assert sum(part.seen) == n * copies
    for whole, pieces in zip(*found, strict=True):
        torch.testing.assert_close(pieces, whole, atol=2e-6, rtol=1e-5)


def test_in_one_piece_it_is_the_same_to_the_bit() -> None:
    image, numbers = drawn(2, 4)
    leaf = image.requires_grad_()
    whole, pieces = Part()(leaf, numbers), chunked_mean(Part(), leaf, numbers, 8)[0]
    assert torch.equal(whole, pieces)
    gradients = [torch.autograd.grad(v.sum().neg(), leaf)[0] for v in (whole, pieces)]
    assert torch.equal(*gradients)


def test_a_second_derivative_is_refused_and_not_half_there() -> None:
    image, numbers = drawn(1, 2)
    leaf = image.requires_grad_()
    value, _ = chunked_mean(Part(), leaf, numbers, 2)
    (first,) = torch.autograd.grad(value.square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("how", ["no_grad", "no gradient in the picture"])
def test_nothing_is_differentiated_that_nobody_wants(how: str) -> None:
    image, numbers = drawn(2, 4)
    with torch.set_grad_enabled(how != "no_grad"):
        value, _ = chunked_mean(Part(), image.requires_grad_(how == "no_grad"), numbers, 2)
    assert not value.requires_grad


@pytest.mark.filterwarnings("ignore:There is not enough memory for 10")
def test_where_memory_is_short_fewer_go_at_once_and_it_says_so() -> None:
    image, numbers = drawn(2, 9)
    part, leaf = Part(most=6), image.requires_grad_()
    with pytest.warns(UserWarning, match=r"not enough memory for 18 .* at once; 10 go at a time"):
        value, at_once = chunked_mean(part, leaf, numbers, 10**9)
    assert at_once == 6
    assert max(part.seen) == 6
    torch.testing.assert_close(value, Part()(leaf, numbers))
    assert chunked_mean(part, leaf, numbers, at_once)[1] == 6


@pytest.mark.filterwarnings("ignore:There is not enough memory")
def test_where_not_even_one_fits_the_error_comes_out() -> None:
    image, numbers = drawn(3, 4)
    with pytest.raises(torch.OutOfMemoryError):
        chunked_mean(Part(most=2), image, numbers, 12)


def test_augclip_takes_as_many_as_its_encoder_says(
    models: Models, pictures: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for at_once in (10**6, 5):
        monkeypatch.setattr(models.clip, "at_once", at_once)
        score = fd.AugCLIP(models.clip, "a photo of a cat", copies=6)
        leaf = pictures.clone().requires_grad_()
        value = score(leaf, torch.Generator().manual_seed(3))
        found.append((value.detach(), torch.autograd.grad(value.sum(), leaf)[0]))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=0)
    scale = found[0][1].abs().max()
    torch.testing.assert_close(found[0][1] / scale, found[1][1] / scale, atol=1e-3, rtol=0)
