"""The converter key by key, and number by number against taming's forward written out here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import standins
import torch
import torch.nn.functional as F
from torch import Tensor

from fusedream_nb.models.files import read_file
from fusedream_nb.models.generators import Latent
from fusedream_nb.models.vqgan import VQGAN, from_taming, load_taming


class Reference:
    """taming's encoder and decoder as its paper's code has them, on a dict of tensors."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        if stride == 2:
            return F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, self.state[f"{name}.bias"], stride=2)
        return F.conv2d(x, weight, self.state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def norm(self, name: str, x: Tensor) -> Tensor:
        return F.group_norm(x, 32, self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps=1e-6)

    def block(self, name: str, x: Tensor) -> Tensor:
        h = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)))
        h = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", h)))
        shortcut = f"{name}.nin_shortcut"
        return h + (self.conv(shortcut, x) if f"{shortcut}.weight" in self.state else x)

    def attention(self, name: str, x: Tensor) -> Tensor:
        h = self.norm(f"{name}.norm", x)
        q, k, v = (self.conv(f"{name}.{part}", h).flatten(2) for part in "qkv")
        weights = torch.einsum("bci,bcj->bij", q, k).div(math.sqrt(x.shape[1])).softmax(2)
        return x + self.conv(f"{name}.proj_out", torch.einsum("bij,bcj->bci", weights, v).view_as(x))

    def middle(self, name: str, x: Tensor) -> Tensor:
        x = self.attention(f"{name}.mid.attn_1", self.block(f"{name}.mid.block_1", x))
        return self.block(f"{name}.mid.block_2", x)

    def encode(self, x: Tensor) -> Tensor:
        x = self.conv("encoder.conv_in", x)
        for i in range(5):
            for j in range(2):
                x = self.block(f"encoder.down.{i}.block.{j}", x)
                x = self.attention(f"encoder.down.4.attn.{j}", x) if i == 4 else x
            x = self.conv(f"encoder.down.{i}.downsample.conv", x, stride=2) if i < 4 else x
        x = F.silu(self.norm("encoder.norm_out", self.middle("encoder", x)))
        return self.conv("quant_conv", self.conv("encoder.conv_out", x))

    def decode(self, codes: Tensor) -> Tensor:
        x = self.conv("decoder.conv_in", self.conv("post_quant_conv", codes))
        x = self.middle("decoder", x)
        for i in reversed(range(5)):
            for j in range(3):
                x = self.block(f"decoder.up.{i}.block.{j}", x)
                x = self.attention(f"decoder.up.4.attn.{j}", x) if i == 4 else x
            if i:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
                x = self.conv(f"decoder.up.{i}.upsample.conv", x)
        return self.conv("decoder.conv_out", F.silu(self.norm("decoder.norm_out", x)))


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return standins.taming(1024)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("encoder.conv_in.bias", "encoder.conv_in.bias"),
        ("encoder.down.0.block.1.norm1.weight", "encoder.down_blocks.0.resnets.1.norm1.weight"),
        ("encoder.down.2.block.0.nin_shortcut.bias", "encoder.down_blocks.2.resnets.0.conv_shortcut.bias"),
        ("encoder.down.3.downsample.conv.weight", "encoder.down_blocks.3.downsamplers.0.conv.weight"),
        ("encoder.down.4.attn.1.norm.weight", "encoder.down_blocks.4.attentions.1.group_norm.weight"),
        ("encoder.down.4.attn.0.k.bias", "encoder.down_blocks.4.attentions.0.to_k.bias"),
        ("encoder.mid.block_2.conv1.weight", "encoder.mid_block.resnets.1.conv1.weight"),
        ("decoder.mid.attn_1.proj_out.weight", "decoder.mid_block.attentions.0.to_out.0.weight"),
        ("decoder.up.4.attn.2.q.weight", "decoder.up_blocks.0.attentions.2.to_q.weight"),
        ("decoder.up.1.upsample.conv.bias", "decoder.up_blocks.3.upsamplers.0.conv.bias"),
        ("decoder.up.0.block.2.conv2.weight", "decoder.up_blocks.4.resnets.2.conv2.weight"),
        ("decoder.norm_out.weight", "decoder.conv_norm_out.weight"),
        ("quantize.embedding.weight", "quantize.embedding.weight"),
        ("post_quant_conv.weight", "post_quant_conv.weight"),
        ("surplus.weight", "surplus.weight"),
    ],
)
def test_a_key_has_its_new_name(theirs: str, ours: str) -> None:
    assert list(from_taming({theirs: torch.zeros(1)})) == [ours]


def test_no_two_keys_become_one_and_none_is_lost(state: dict[str, Tensor]) -> None:
    converted = from_taming({**state, "loss.logvar": torch.zeros(1)})
    assert len(converted) == len(state)
    assert sum(v.numel() for v in converted.values()) == sum(v.numel() for v in state.values())
    assert {v.data_ptr() for v in converted.values()} == {v.data_ptr() for v in state.values()}


@torch.no_grad()
@pytest.mark.parametrize("codes", [1024, 16384], ids=["imagenet-1024", "imagenet-16384 and wikiart"])
def test_numbers_equal_those_of_taming(tmp_path: Path, state: dict[str, Tensor], codes: int) -> None:
    """The encoder's vectors, the codes and the picture, from a saved checkpoint; every key must match."""
    rng = torch.Generator().manual_seed(codes)
    state = {**state, "quantize.embedding.weight": torch.randn(codes, standins.CODE, generator=rng)}
    standins.save_lightning(state, tmp_path / "model.ckpt")
    generator, reference = VQGAN.from_folder(tmp_path), Reference(state)
    assert generator.codes.shape == (codes, standins.CODE) and generator.canvas == (256, 256)
    image = torch.rand(1, 3, 32, 48, generator=rng) * 2 - 1
    vectors = reference.encode(image)
    assert vectors.shape == (1, standins.CODE, 2, 3) and vectors.std() > 0.1
    mine = generator.model.encode(image).latents
    torch.testing.assert_close(mine, vectors, atol=1e-4, rtol=0)
    grid = state["quantize.embedding.weight"]
    near = torch.cdist(vectors[0].flatten(1).T, grid, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    q = grid[near].T.view(1, standins.CODE, 2, 3)
    assert torch.equal(generator.encode(image).z, q)
    drawn = reference.decode(q)
    assert drawn.std() > 0.1
    torch.testing.assert_close(generator.decode(Latent(q)), drawn.clamp(-1, 1), atol=1e-4, rtol=0)


def test_what_does_not_match_is_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    broken = {key: value for key, value in state.items() if key != "encoder.mid.attn_1.q.weight"}
    path = standins.save_lightning(
        {**broken, "quantize.proj.weight": torch.zeros(1)}, tmp_path / "model.ckpt"
    )
    wanted = r"missing: encoder.mid_block.attentions.0.to_q.weight; surplus: quantize.proj.weight"
    with pytest.raises(ValueError, match=wanted):
        load_taming(path)
    del broken["quantize.embedding.weight"]
    with pytest.raises(ValueError, match=r"missing: .*quantize.embedding.weight"):
        load_taming(standins.save_lightning(broken, path))


class Stranger:
    """Not a tensor."""


def test_only_one_checkpoint_of_tensors_is_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no VQGAN"):
        load_taming(tmp_path)
    torch.save({"state_dict": {}, "callbacks": Stranger()}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="not a whole file of tensors only"):
        load_taming(tmp_path)
    (tmp_path / "a.ckpt").write_bytes(b"<html>")
    with pytest.raises(ValueError, match="not a whole file of tensors only"):
        load_taming(tmp_path)
    (tmp_path / "b.ckpt").touch()
    with pytest.raises(ValueError, match="holds 2 checkpoints"):
        load_taming(tmp_path)


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    torch.save({"conv_in.weight": torch.ones(2).half()}, tmp_path / "a.ckpt")
    assert read_file(tmp_path / "a.ckpt")["conv_in.weight"].dtype == torch.float32
