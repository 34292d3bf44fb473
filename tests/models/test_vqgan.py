"""The VQGAN adapter against diffusers' own forward, and on the loops that climb it."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import VQModel
from torch import Tensor

import fusedream_nb as fd
from fusedream_nb.method.latents import Plain, interpolate
from fusedream_nb.method.scores import CLIPScore
from fusedream_nb.models import Models
from fusedream_nb.models.generators import Latent
from fusedream_nb.models.vqgan import VQGAN, fold, nearest, straight_through
from fusedream_nb.models.weights import STICKERS

VQGAN_CONFIG = VQModel.load_config(STICKERS / "vqgan")


def random_model() -> VQModel:
    """The sticker VQGAN with random weights, its codes where its encoder's vectors are."""
    torch.manual_seed(0)
    model = VQModel.from_config(VQGAN_CONFIG).eval()
    with torch.no_grad():
        z = model.encode(torch.rand(8, 3, 64, 64) * 2 - 1).latents
        model.quantize.embedding.weight.normal_().mul_(z.std()).add_(z.mean())
        model.decoder.conv_out.weight *= 4  # so that some colours leave [-1, 1]
    return model


@pytest.fixture(scope="module")
def model() -> VQModel:
    return random_model()


@pytest.fixture(scope="module")
def generator(model: VQModel) -> VQGAN:
    return VQGAN(model)


def picture(n: int, height: int, width: int, rng: torch.Generator) -> Tensor:
    """Smooth random pictures [n, 3, height, width] in [-1, 1]."""
    coarse = torch.rand(n, 3, 6, 6, generator=rng) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (40, 72)])
def test_a_reconstruction_equals_that_of_diffusers(
    model: VQModel, generator: VQGAN, rng: torch.Generator, size: tuple[int, int]
) -> None:
    image = picture(2, *size, rng)
    reference = model(image).sample
    mine = generator.decode(generator.encode(image))
    assert mine.shape == image.shape
    assert reference.abs().max() > 1  # so the clamp had something to do
    torch.testing.assert_close(mine, reference.clamp(-1, 1), atol=1e-4, rtol=0)


def test_nearest_is_nearest(rng: torch.Generator) -> None:
    z, codes = torch.randn(2, 5, 3, 7, generator=rng), torch.randn(11, 5, generator=rng)
    index = nearest(z, codes)
    assert index.shape == (2, 3, 7)
    for n, i, j in itertools.product(range(2), range(3), range(7)):
        assert index[n, i, j] == (codes - z[n, :, i, j]).norm(dim=1).argmin()


def test_quantised_latents_are_codes_to_the_bit(generator: VQGAN, rng: torch.Generator) -> None:
    z = 3 * torch.randn(2, 16, 4, 5, generator=rng)
    q = generator.quantise(z).movedim(1, -1).flatten(0, 2)
    assert (q[:, None] == generator.codes).all(-1).any(1).all()


def test_the_gradient_goes_straight_through(generator: VQGAN, rng: torch.Generator) -> None:
    """That of z is the gradient at its codes, and that of a colour passes the clamp."""
    z = generator.sample(1, rng).z
    off = (z + 1e-3 * torch.randn(z.shape, generator=rng)).requires_grad_()
    codes = z.clone().requires_grad_()
    towards = torch.randn(1, 3, 64, 64, generator=rng)
    (mine,) = torch.autograd.grad((generator.decode(Latent(off)) * towards).sum(), off)
    raw = generator.model.decoder(generator.model.post_quant_conv(codes))
    (reference,) = torch.autograd.grad((raw * towards).sum(), codes)
    torch.testing.assert_close(mine, reference, atol=1e-4 * float(reference.abs().max()), rtol=0)
    x = torch.tensor([-2.0, 0.5], requires_grad=True)
    clamped = straight_through(x.clamp(-1, 1), x)
    assert torch.equal(clamped.detach(), torch.tensor([-1.0, 0.5]))
    assert torch.equal(torch.autograd.grad(clamped.sum(), x)[0], torch.ones(2))


@pytest.mark.parametrize("shape", [(3, 16, 4, 5), (2, 3, 16, 4, 5)], ids=["z", "basis"])
def test_project_clamps_each_channel_to_the_codebooks_range(
    generator: VQGAN, rng: torch.Generator, shape: tuple[int, ...]
) -> None:
    z = 9 * torch.randn(shape, generator=rng)
    once = generator.project(Latent(z)).z
    channels = once.movedim(-3, 0).flatten(1)
    assert torch.equal(channels.amin(1), generator.codes.amin(0))
    assert torch.equal(channels.amax(1), generator.codes.amax(0))
    assert torch.equal(generator.project(Latent(once)).z, once)
    codes = generator.sample(3, rng)
    assert torch.equal(generator.project(codes).z, codes.z)


def test_samples_are_random_codes_that_repeat_with_their_seed(generator: VQGAN) -> None:
    a, b = (generator.sample(6, torch.Generator().manual_seed(3)) for _ in range(2))
    assert a.z.shape == (6, 16, 16, 16) and a.y is None
    assert torch.equal(a.z, b.z)
    index = nearest(a.z, generator.codes)
    assert len(index.unique()) > 0.9 * len(generator.codes)
    # Under a uniform law of 512 codes the mean of 1536 indices is 255.5 ± 3.8.
    assert abs(index.float().mean() - 255.5) < 16


def test_any_canvas_of_whole_cells(model: VQModel, generator: VQGAN, rng: torch.Generator) -> None:
    wide = VQGAN(model, canvas=(24, 100))
    assert (wide.canvas, wide.size, wide.factor) == ((24, 100), 100, 4)
    assert generator.canvas == (64, 64)
    latent = wide.sample(2, rng)
    assert latent.z.shape == (2, 16, 6, 25)
    with torch.no_grad():
        assert generator.decode(latent).shape == (2, 3, 24, 100)  # a latent knows its own size
    for canvas in ((64, 66), (0, 64)):
        with pytest.raises(ValueError, match=f"sides that 4 divides, not {canvas[1]} × {canvas[0]} "):
            VQGAN(model, canvas=canvas)


def test_what_is_not_its_latent_is_refused(generator: VQGAN, rng: torch.Generator) -> None:
    with pytest.raises(ValueError, match=r"requires latents z \[n, 16, h, w\], not \[1, 64\]"):
        generator.decode(Latent(torch.zeros(1, 64)))
    with pytest.raises(ValueError, match="no classes"):
        generator.decode(Latent(torch.zeros(1, 16, 2, 2), torch.zeros(1, 64)))
    with pytest.raises(ValueError, match="start image of this VQGAN .* not 32 × 30"):
        generator.encode(torch.zeros(1, 3, 30, 32))


@torch.no_grad()
def test_bfloat16_differs_only_by_rounding_and_never_in_the_codes(rng: torch.Generator) -> None:
    generator = VQGAN(random_model(), canvas=(32, 32))
    z = torch.randn(1, 16, 8, 8, generator=rng)
    exact, codes = generator.decode(Latent(z)), generator.quantise(z)
    generator.to(torch.device("cpu"), torch.bfloat16)
    rounded = generator.decode(Latent(z))
    assert rounded.dtype == torch.float32
    assert torch.equal(generator.quantise(z), codes)
    assert 0 < (exact - rounded).abs().mean() < 0.03


@pytest.fixture
def folder(tmp_path: Path, model: VQModel) -> Path:
    """The random VQGAN as diffusers itself saves it."""
    model.save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_of_diffusers_loads_whole_or_not_at_all(
    folder: Path, generator: VQGAN, rng: torch.Generator
) -> None:
    latent = generator.sample(1, rng)
    with torch.no_grad():
        loaded = VQGAN.from_folder(folder)
        mine = loaded.decode(latent)
        assert torch.equal(VQGAN(fold(loaded.model)).decode(latent), mine)  # folded once
        torch.testing.assert_close(mine, generator.decode(latent), atol=1e-4, rtol=0)  # it is folded, too
    state = {k: v for k, v in generator.model.state_dict().items() if k != "quant_conv.bias"}
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({**state, "surplus.weight": torch.zeros(1)}, folder / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"missing: quant_conv.bias; surplus: surplus.weight"):
        VQGAN.from_folder(folder)


def test_load_takes_a_vqgan_by_its_folder(folder: Path, rng: torch.Generator) -> None:
    small = {"clip": "stickers/clip", "judge": "stickers/judge", "perceptual": "stickers/lpips"}
    models = fd.load(str(folder), device="cpu", canvas=(32, 64), **small)
    assert models.world == ""
    with torch.no_grad():
        assert models.generator.decode(models.generator.sample(1, rng)).shape == (1, 3, 32, 64)
    with pytest.raises(ValueError, match="A BigGAN draws pictures of one size"):
        fd.load("stickers", device="cpu", canvas=(32, 64))


def test_the_start_the_loop_and_transport_take_grids(
    models: Models, generator: VQGAN, rng: torch.Generator
) -> None:
    """A few steps raise the score, and every latent stays in the codebook's range."""
    small = VQGAN(generator.model, canvas=(32, 32))
    score = CLIPScore(models.clip, "a photo of a red car")
    best, values = fd.top_k(small, score, 6, 2, rng, batch=3)
    assert best.z.shape == (2, 16, 8, 8) and values[0] >= values[1]
    steps = list(fd.climb(small, score, Plain(best), rng, steps=15, lr=0.05))
    assert (steps[-1].best_score > steps[0].best_score).all()
    assert torch.equal(small.project(steps[-1].latent).z, steps[-1].latent.z)
    assert interpolate(best[:1], best[1:], [0.0, 0.5, 1.0]).z.shape == (3, 16, 8, 8)
    world = Models(
        "random", "", small, models.clip, models.judge, models.perceptual, models.device, models.dtype
    )
    matches = list(fd.transport(["a dog", "a car"], world, seed=[0, 1], steps=2, cutouts=fd.Cutouts(4)))
    assert matches[-1].image.shape == (2, 3, 32, 32)
    assert matches[-1].costs.shape == (2, 4, 2)


def test_diffusers_waits_until_a_vqgan_is_loaded() -> None:
    modules = "fusedream_nb, fusedream_nb.models.vqgan"
    script = f"import sys, {modules}; print('diffusers' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
