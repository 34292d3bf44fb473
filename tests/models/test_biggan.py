"""BigGAN against a plain forward written here, under the names of both releases."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fusedream_nb.models.biggan import SHAPES, BigGAN, Shape
from fusedream_nb.models.biggan_files import CLASS, STEP, convert, is_biggan, read
from fusedream_nb.models.files import read_file, write_tensors
from fusedream_nb.models.generators import Latent


def plain(w: dict, size: int, z: Tensor, y: Tensor, row: int) -> Tensor:
    """The paper's generator written out: norms unfolded, attention by bmm, shortcuts after the doubling."""
    shape = SHAPES[size]

    def normed(name: str) -> Tensor:
        weight, u, v = (w[f"{name}.weight_{part}"] for part in ("orig", "u", "v"))
        matrix = weight.permute(0, 2, 3, 1).flatten(1) if weight.ndim == 4 else weight
        return weight / torch.dot(u, torch.mv(matrix, v))

    def conv(name: str, x: Tensor) -> Tensor:
        weight = normed(name)
        return F.conv2d(x, weight, w.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    def norm(name: str, x: Tensor, condition: Tensor) -> Tensor:
        mean, var = (w[f"{name}.crossreplicabn.standing_{part}"][row] for part in ("means", "vars"))
        x = F.batch_norm(x, mean, var, eps=1e-4)
        gain, bias = (F.linear(condition, normed(f"{name}.{part}")) for part in ("gamma", "beta"))
        return (1 + gain)[:, :, None, None] * x + bias[:, :, None, None]

    def double(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def attention(x: Tensor) -> Tensor:
        query = conv("attention.theta", x).flatten(2)
        key, value = (F.max_pool2d(conv(f"attention.{name}", x), 2).flatten(2) for name in ("phi", "g"))
        weights = torch.bmm(query.transpose(1, 2), key).softmax(-1)
        seen = torch.bmm(value, weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + w["attention.gamma"] * conv("attention.o_conv", seen)

    first, *rest = z.split(shape.chunk, 1)
    x = F.linear(first, normed("g_z.g_linear"), w["g_z.g_linear.bias"]).unflatten(1, (4, 4, -1))
    x = x.permute(0, 3, 1, 2)
    for i, part in enumerate(rest):
        block, condition = f"gblock_{i}" if i else "gblock", torch.cat([part, y], 1)
        change = conv(f"{block}.conv0", double(torch.relu(norm(f"{block}.hyperbn", x, condition))))
        change = conv(f"{block}.conv1", torch.relu(norm(f"{block}.hyperbn_1", change, condition)))
        x = change + conv(f"{block}.conv_sc", double(x))
        if x.shape[-1] == shape.attention:
            x = attention(x)
    last = "scaledcrossreplicabn"
    mean, var = (w[f"{last}.standing_{part}"][row] for part in ("means", "vars"))
    x = F.batch_norm(x, mean, var, w[f"{last}.weight"], w[f"{last}.bias"], eps=1e-4)
    return torch.tanh(conv("conv_2d", torch.relu(x)))


def to_authors(w: dict, row: int) -> dict[str, Tensor]:
    """What the authors' conversion makes of the same weights: other names, orders, one row of statistics."""
    made = {"shared.weight": w["linear.weight"]}

    def normed(new: str, old: str, change=lambda t: t) -> None:
        made[f"{new}.weight"] = change(w[f"{old}.weight_orig"])
        u = w[f"{old}.weight_u"]
        made[f"{new}.u0"] = (change(u[:, None])[:, 0] if new == "linear" else u)[None]
        if f"{old}.bias" in w:
            bias = w[f"{old}.bias"]
            made[f"{new}.bias"] = change(bias[:, None])[:, 0] if new == "linear" else bias

    def channels_first(t: Tensor) -> Tensor:
        return t.view(4, 4, len(t) // 16, -1).permute(2, 0, 1, 3).reshape(len(t), -1)

    def y_first(t: Tensor) -> Tensor:
        return torch.cat([t[:, -128:], t[:, :-128]], 1)

    normed("linear", "g_z.g_linear", channels_first)
    blocks = sorted({k.partition(".")[0] for k in w if k.startswith("gblock")}, key=lambda k: (len(k), k))
    for i, old in enumerate(blocks):
        for new, name in {"conv1": "conv0", "conv2": "conv1", "conv_sc": "conv_sc"}.items():
            normed(f"blocks.{i}.0.{new}", f"{old}.{name}")
        for new, name in {"bn1": "hyperbn", "bn2": "hyperbn_1"}.items():
            normed(f"blocks.{i}.0.{new}.gain", f"{old}.{name}.gamma", y_first)
            normed(f"blocks.{i}.0.{new}.bias", f"{old}.{name}.beta", y_first)
            for part in ("mean", "var"):
                stored = w[f"{old}.{name}.crossreplicabn.standing_{part}s"][row]
                made[f"blocks.{i}.0.{new}.stored_{part}"] = stored
    at = {5: 3, 6: 4, 7: 3}[len(blocks)]
    for new, name in {"theta": "theta", "phi": "phi", "g": "g", "o": "o_conv"}.items():
        normed(f"blocks.{at}.1.{new}", f"attention.{name}")
    made[f"blocks.{at}.1.gamma"] = w["attention.gamma"][0]
    made["output_layer.0.gain"] = w["scaledcrossreplicabn.weight"]
    made["output_layer.0.bias"] = w["scaledcrossreplicabn.bias"]
    for part in ("mean", "var"):
        made[f"output_layer.0.stored_{part}"] = w[f"scaledcrossreplicabn.standing_{part}s"][row]
    normed("output_layer.2", "conv_2d")
    return made


def converged(w: dict) -> dict:
    """The same weights with u and v as close to the singular vectors as float32 has them."""
    w = dict(w)
    for name in [k.removesuffix("_orig") for k in w if k.endswith("weight_orig")]:
        weight = w[f"{name}_orig"]
        matrix = weight.permute(0, 2, 3, 1).flatten(1) if weight.ndim == 4 else weight
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        w[f"{name}_u"], w[f"{name}_v"] = left[:, 0].contiguous(), right[0].contiguous()
    return w


@pytest.fixture
def small(release):
    """A function that makes the same with few channels and classes."""
    return lambda rng, size=128: release(rng, size=size, channels=8, classes=10)


@torch.no_grad()
def test_the_real_128_configuration_equals_the_plain_forward(
    release, tmp_path: Path, rng: torch.Generator
) -> None:
    made = release(rng)
    torch.save(made, tmp_path / "biggan128-release.pt")
    generator = BigGAN.from_path(tmp_path)
    assert (generator.size, generator.z_dim, generator.layers) == (128, 120, 6)
    latent = generator.sample(1, rng)
    reference = plain(made, 128, latent.z, latent.y, -1)
    assert reference.std() > 0.1
    torch.testing.assert_close(generator.decode(latent), reference, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [128, 256, 512])
@pytest.mark.parametrize("row", [0, 24, 49])
@torch.no_grad()
def test_every_size_at_every_truncation_of_the_table(
    small, tmp_path: Path, rng: torch.Generator, size: int, row: int
) -> None:
    made = small(rng, size)
    torch.save(made, tmp_path / "any-name.pt")
    generator = BigGAN.from_path(tmp_path / "any-name.pt", truncation=STEP * (row + 1))
    assert generator.size == size
    assert generator.z_dim == {128: 120, 256: 140, 512: 128}[size]
    latent = generator.sample(1, rng)
    assert latent.z.abs().max() <= 2 * STEP * (row + 1)
    reference = plain(made, size, latent.z, latent.y, row)
    torch.testing.assert_close(generator.decode(latent), reference, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [128, 256, 512])
@torch.no_grad()
def test_both_releases_draw_the_same_picture(small, tmp_path: Path, rng: torch.Generator, size: int) -> None:
    made = converged(small(rng, size))
    torch.save(made, tmp_path / "biggan-release.pt")
    torch.save(to_authors(made, -1), tmp_path / "biggan.pth")
    ivclab, authors = (BigGAN.from_path(tmp_path / f"biggan{end}") for end in ("-release.pt", ".pth"))
    latent = ivclab.sample(2, rng)
    a, b = ivclab.decode(latent), authors.decode(latent)
    assert a.std() > 0.1
    torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


@torch.no_grad()
def test_between_two_truncations_the_statistics_are_between_theirs(
    small, tmp_path: Path, rng: torch.Generator
) -> None:
    made = small(rng)
    torch.save(made, tmp_path / "biggan.pt")
    got = BigGAN.from_path(tmp_path, truncation=0.415).network
    last = "scaledcrossreplicabn"
    mean, var = (made[f"{last}.standing_{part}"][19:21] for part in ("means", "vars"))  # 0.40 and 0.42
    mean, var = (torch.tensor([0.25, 0.75]) @ t for t in (mean, var))
    scale = made[f"{last}.weight"] / (var + 1e-4).sqrt()
    torch.testing.assert_close(got.scale, scale)
    torch.testing.assert_close(got.offset, made[f"{last}.bias"] - scale * mean)


@torch.no_grad()
def test_a_converted_folder_draws_the_same_to_the_bit(small, tmp_path: Path, rng: torch.Generator) -> None:
    torch.save(small(rng), tmp_path / "biggan.pt")
    network, tensors, names = read(tmp_path / "biggan.pt")
    shape = network.shape
    assert names == ()
    assert shape == Shape(SHAPES[128].widths, 64, 20, channels=8, classes=10)
    folder = tmp_path / "converted"
    folder.mkdir()
    write_tensors(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors"
    )
    described = {"_class_name": CLASS, **asdict(shape), "class_names": ["dog", "cat"]}
    (folder / "config.json").write_text(json.dumps(described))
    assert is_biggan(folder) and is_biggan(tmp_path / "biggan.pt")
    a, b = (BigGAN.from_path(path, truncation=0.5) for path in (tmp_path / "biggan.pt", folder))
    latent = a.sample(2, rng)
    assert torch.equal(a.decode(latent), b.decode(latent))
    assert (a.class_names, b.class_names) == ((), ("dog", "cat"))


def test_each_layers_latent_reaches_its_own_layer(small, tmp_path: Path, rng: torch.Generator) -> None:
    """Equal rows are one latent; of the i-th row of z only the i-th part is read."""
    torch.save(small(rng), tmp_path / "biggan.pt")
    generator = BigGAN.from_path(tmp_path)
    latent = generator.sample(1, rng)
    rows = latent.map(lambda t: t[:, None].repeat(1, generator.layers, 1).requires_grad_())
    picture = generator.decode(rows)
    torch.testing.assert_close(picture, generator.decode(latent), atol=1e-5, rtol=0)
    z, y = torch.autograd.grad(picture.square().sum(), rows.tensors())
    read = (z[0].unflatten(1, (generator.layers, -1)).abs().sum(-1) > 0).tolist()
    assert read == torch.eye(generator.layers).bool().tolist()
    assert (y[0].abs().sum(-1) > 0).tolist() == [False] + [True] * (generator.layers - 1)


@torch.no_grad()
def test_a_network_is_folded_once_however_often_a_generator_is_made_of_it(
    small, tmp_path: Path, rng: torch.Generator
) -> None:
    torch.save(small(rng), tmp_path / "biggan.pt")
    generator = BigGAN.from_path(tmp_path)
    again = BigGAN(generator.network, generator.embeddings)
    latent = generator.sample(2, rng)
    assert torch.equal(again.decode(latent), generator.decode(latent))


@torch.no_grad()
def test_bfloat16_differs_only_by_rounding(small, tmp_path: Path, rng: torch.Generator) -> None:
    torch.save(small(rng), tmp_path / "biggan.pt")
    generator = BigGAN.from_path(tmp_path)
    latent = generator.sample(2, rng)
    exact = generator.decode(latent)
    rounded = generator.to(torch.device("cpu"), torch.bfloat16).decode(latent)
    assert rounded.dtype == torch.float32
    assert 0 < (exact - rounded).abs().mean() < 0.05


def test_missing_and_surplus_names_are_told(small, tmp_path: Path, rng: torch.Generator) -> None:
    made = small(rng)
    made["more"] = made.pop("gblock_2.conv0.bias")
    torch.save(made, tmp_path / "biggan.pt")
    with pytest.raises(ValueError, match="missing: blocks.2.conv1.bias; surplus: more"):
        BigGAN.from_path(tmp_path)
    del made["gblock.conv0.weight_u"]
    with pytest.raises(ValueError, match="gblock.conv0.weight_u, which belongs to it, is missing"):
        convert(made, tmp_path)
    with pytest.raises(ValueError, match="is no BigGAN that is known"):
        convert({"weight": torch.zeros(1)}, tmp_path)


def test_files_that_are_none_or_several_or_broken(small, tmp_path: Path, rng: torch.Generator) -> None:
    with pytest.raises(FileNotFoundError, match="holds no BigGAN"):
        read(tmp_path)
    torch.save(small(rng), tmp_path / "biggan.pt")
    whole = (tmp_path / "biggan.pt").read_bytes()
    (tmp_path / "biggan.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole file of tensors only"):
        read(tmp_path)
    torch.save({"f": Path}, tmp_path / "code.pt")
    with pytest.raises(ValueError, match="not a whole file of tensors only"):
        read_file(tmp_path / "code.pt")
    (tmp_path / "biggan-2.pth").write_bytes(whole)
    with pytest.raises(ValueError, match="2 files; leave one"):
        read(tmp_path)


def test_latents_of_other_shapes_are_refused(small, tmp_path: Path, rng: torch.Generator) -> None:
    torch.save(small(rng), tmp_path / "biggan.pt")
    generator = BigGAN.from_path(tmp_path)
    with pytest.raises(ValueError, match="class embedding"):
        generator.decode(Latent(torch.zeros(1, 120)))
    with pytest.raises(ValueError, match=r"\[n, 120\] or \[n, 6, 120\], not \[1, 140\]"):
        generator.decode(Latent(torch.zeros(1, 140), torch.zeros(1, 128)))
    with pytest.raises(ValueError, match="truncation"):
        BigGAN.from_path(tmp_path, truncation=1.5)
