"""BigGAN-deep against the package's own forward."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import standins
import torch
from pytorch_pretrained_biggan.config import BigGANConfig
from pytorch_pretrained_biggan.model import BigGAN
from safetensors.torch import load_file
from torch import Tensor

import fusedream_nb as fd
from fusedream_nb.models import Models
from fusedream_nb.models.biggan import BigGANDeep
from fusedream_nb.models.generators import Latent
from fusedream_nb.models.weights import STICKERS

SMALL = {  # a BigGAN-deep of few channels
    "attention_layer_position": -1,
    "channel_width": 32,
    "class_embed_dim": 64,
    "eps": 1e-4,
    "layers": [[False, 16, 16], [True, 16, 8], [True, 8, 4], [True, 4, 2], [True, 2, 1]],
    "n_stats": 51,
    "num_classes": 28,
    "output_dim": 64,
    "z_dim": 64,
}
REAL_128 = standins.deep_config(128)


def save_folder(model: BigGAN, config: dict[str, object], folder: Path) -> None:
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))


@torch.no_grad()
def both(model: BigGAN, mine: BigGANDeep, truncation: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures of two random classes by the package's class and by the adapter."""
    z = torch.randn(2, mine.z_dim, generator=rng).clamp(-2, 2)
    label = torch.eye(len(mine.embeddings))[[0, len(mine.embeddings) - 1]]
    reference = model(z, label, truncation)
    return reference, mine.decode(Latent(z, mine.embeddings[label.argmax(1)]))


@pytest.mark.parametrize("truncation", [1.0, 0.4])
def test_real_128_configuration_equals_the_packages_forward(
    tmp_path: Path, rng: torch.Generator, truncation: float
) -> None:
    model = standins.biggan_deep(REAL_128, rng)
    save_folder(model, REAL_128, tmp_path)
    mine = BigGANDeep.from_path(tmp_path, truncation=truncation)
    reference, picture = both(model, mine, truncation, rng)
    assert picture.shape == (2, 3, 128, 128)
    assert reference.std() > 0.01
    torch.testing.assert_close(picture, reference, atol=1e-4, rtol=0)


def test_sticker_weights_give_the_same_picture_in_the_packages_class(
    models: Models, rng: torch.Generator
) -> None:
    config = json.loads((STICKERS / "generator" / "config.json").read_text())
    plain = BigGAN(BigGANConfig.from_dict(config)).eval()
    tensors = load_file(STICKERS / "generator" / "model.safetensors")
    plain.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=True)
    reference, picture = both(plain, models.generator, 1.0, rng)
    torch.testing.assert_close(picture, reference, atol=1e-4, rtol=0)


def test_between_two_truncations_the_nearer_statistics_weigh_more(rng: torch.Generator) -> None:
    """The package swaps the two weights; the adapter must not."""
    config = {**SMALL, "n_stats": 3}  # grid 0, 0.5, 1
    model = standins.biggan_deep(config, rng)
    near, off, far = (BigGANDeep(config, model.state_dict(), truncation=t) for t in (0.5, 0.55, 1.0))
    latent = near.sample(2, rng)
    with torch.no_grad():
        a, b, c = (g.decode(latent) for g in (near, off, far))
    assert (a - b).abs().mean() < (b - c).abs().mean()
    mean = off.network.layers[0].bn_0.mean
    stats = model.generator.layers[0].bn_0.running_means
    torch.testing.assert_close(mean, 0.9 * stats[1] + 0.1 * stats[2])


def test_samples_lie_in_the_valid_set_and_repeat_with_their_seed(models: Models) -> None:
    generator = models.generator
    a = generator.sample(500, torch.Generator().manual_seed(3))
    b = generator.sample(500, torch.Generator().manual_seed(3))
    assert torch.equal(a.z, b.z) and torch.equal(a.y, b.y)
    assert a.z.abs().max() == 2  # clamped, not redrawn
    assert 0.85 < a.z.std() < 1
    assert (a.y[:, None] == generator.embeddings).all(-1).any(1).all()


def test_project_clamps_z_and_leaves_y(models: Models, rng: torch.Generator) -> None:
    latent = models.generator.sample(8, rng).map(lambda t: 3 * t)
    projected = models.generator.project(latent)
    assert projected.z.abs().max() <= 2
    assert torch.equal(projected.y, latent.y)
    again = models.generator.project(projected)
    assert torch.equal(again.z, projected.z)


def test_decode_is_differentiable_and_in_range(models: Models, rng: torch.Generator) -> None:
    latent = models.generator.sample(2, rng).map(lambda t: t.requires_grad_())
    picture = models.generator.decode(latent)
    assert picture.shape == (2, 3, 64, 64)
    assert picture.abs().max() <= 1
    picture.mean().backward()
    assert all(t.grad.abs().sum() > 0 for t in latent.tensors())


def test_bfloat16_differs_only_by_rounding(models: Models, rng: torch.Generator) -> None:
    generator = models.generator
    latent = generator.sample(4, rng)
    with torch.no_grad():
        exact = generator.decode(latent)
        try:
            rounded = generator.to(torch.device("cpu"), torch.bfloat16).decode(latent)
        finally:
            generator.to(torch.device("cpu"))
    assert rounded.dtype == torch.float32
    assert 0 < (exact - rounded).abs().mean() < 0.03


def test_wrong_keys_are_named(tmp_path: Path, rng: torch.Generator) -> None:
    model = standins.biggan_deep(SMALL, rng)
    state = model.state_dict()
    state["surplus.weight"] = state.pop("embeddings.weight")
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    with pytest.raises(ValueError, match=r"missing: embeddings.weight; surplus: surplus.weight"):
        BigGANDeep.from_path(tmp_path)


@pytest.mark.parametrize("truncation", [0.0, -1.0, 1.5])
def test_truncation_out_of_range_is_refused(rng: torch.Generator, truncation: float) -> None:
    with pytest.raises(ValueError, match="truncation"):
        BigGANDeep(SMALL, standins.biggan_deep(SMALL, rng).state_dict(), truncation=truncation)


def test_latents_without_y_are_refused_by_a_biggan(models: Models) -> None:
    with pytest.raises(ValueError, match="class embedding"):
        models.generator.decode(Latent(torch.zeros(1, 64)))


@pytest.mark.parametrize("config", [SMALL, REAL_128], ids=["stickers", "real 128"])
@torch.no_grad()
def test_equal_latents_for_all_layers_are_one_latent(config: dict[str, object], rng: torch.Generator) -> None:
    generator = BigGANDeep(config, standins.biggan_deep(config, rng).state_dict())
    assert generator.layers == 1 + len(config["layers"])  # type: ignore[arg-type]
    latent = generator.sample(2, rng)
    rows = latent.map(lambda t: t[:, None].expand(-1, generator.layers, -1))
    torch.testing.assert_close(generator.decode(rows), generator.decode(latent), atol=1e-5, rtol=0)


def test_each_layers_latent_reaches_its_own_layer(rng: torch.Generator) -> None:
    """A layer's condition moves what that layer and those after it give, and nothing before."""
    generator = BigGANDeep(SMALL, standins.biggan_deep(SMALL, rng).state_dict())
    latent = generator.sample(generator.layers, rng).map(lambda t: t[None].clone().requires_grad_())
    seen: list[torch.Tensor] = []
    blocks = [layer for layer in generator.network.layers if hasattr(layer, "bn_0")]
    hooks = [block.register_forward_hook(lambda *args: seen.append(args[2])) for block in blocks]
    picture = generator.decode(latent)
    for hook in hooks:
        hook.remove()
    for place, output in enumerate([*seen, picture]):
        gradients = torch.autograd.grad(output.square().sum(), latent.tensors(), retain_graph=True)
        reached = [bool(g[0].abs().sum(-1)[i] > 0) for g in gradients for i in range(generator.layers)]
        assert reached == 2 * [i <= place + 1 for i in range(generator.layers)]


@torch.no_grad()
def test_no_block_of_the_stickers_generator_is_dead(models: Models, rng: torch.Generator) -> None:
    """In most pictures each block adds something: its last ReLU lets something through."""
    passed: list[Tensor] = []
    norms = [block.bn_3 for block in models.generator.network.layers if hasattr(block, "bn_3")]
    hooks = [norm.register_forward_hook(lambda *args: passed.append(args[2] > 0)) for norm in norms]
    models.generator.decode(models.generator.sample(32, rng))
    for hook in hooks:
        hook.remove()
    assert len(passed) == models.generator.layers - 1
    alive = [gate.flatten(1).any(1).float().mean().item() for gate in passed]
    assert min(alive) > 0.5


def test_another_number_of_latents_than_layers_is_refused(models: Models, rng: torch.Generator) -> None:
    rows = models.generator.sample(3, rng).map(lambda t: t[None])
    with pytest.raises(ValueError, match=rf"\[n, {models.generator.layers}, 64\], not \[1, 3, 64\]"):
        models.generator.decode(rows)


@pytest.mark.parametrize("name", ["stickers", "stickers/vqgan"])
def test_a_climb_takes_no_gradient_of_any_weight(name: str, rng: torch.Generator) -> None:
    models = fd.load(name, device="cpu")
    latent = models.generator.sample(2, rng).map(lambda t: t.requires_grad_())
    image = models.generator.decode(latent)
    (
        models.perceptual(image, image.detach()) - fd.AugCLIP(models.clip, "a dog", 2)(image, rng)
    ).sum().backward()
    assert latent.z.grad is not None
    assert latent.z.grad.abs().sum() > 0
    networks = [
        value
        for part in (models.generator, models.clip, models.judge, models.perceptual)
        for value in vars(part).values()
        if isinstance(value, torch.nn.Module)
    ]
    assert len(networks) >= 4
    assert not any(p.requires_grad or p.grad is not None for net in networks for p in net.parameters())
