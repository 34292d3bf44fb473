"""FuseDream as its authors' code runs it, written plainly, for ``real_shapes.py`` to be compared with.

Spectral norms are recomputed in every forward, statistics and gains are applied one by one, the attention is
two bmm, shortcuts come after the doubling, copies are augmented at full size and then shrunk, the text is
encoded in every step, everything is float32, one picture at a time, the start ten at a time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from fusedream_nb.models.biggan import Shape


class Norm(nn.Module):
    """Conditional batch norm: statistics, then a gain and a bias of the condition."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.gain = spectral_norm(nn.Linear(condition, channels, bias=False))
        self.bias = spectral_norm(nn.Linear(condition, channels, bias=False))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return x [n, channels, h, w], normalised."""
        x = F.batch_norm(x, self.mean, self.var, eps=1e-4)
        return x * (1 + self.gain(condition))[:, :, None, None] + self.bias(condition)[:, :, None, None]


class Block(nn.Module):
    """A residual block that doubles the side."""

    def __init__(self, channels: int, width: int, condition: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(channels, condition), Norm(width, condition)
        self.conv1 = spectral_norm(nn.Conv2d(channels, width, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(width, width, 3, padding=1))
        self.shortcut = spectral_norm(nn.Conv2d(channels, width, 1))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return [n, width, 2h, 2w] of x [n, channels, h, w]."""
        change = self.conv1(F.interpolate(torch.relu(self.norm1(x, condition)), scale_factor=2))
        change = self.conv2(torch.relu(self.norm2(change, condition)))
        return change + self.shortcut(F.interpolate(x, scale_factor=2))


class Attention(nn.Module):
    """Self-attention by two bmm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = spectral_norm(nn.Conv2d(channels, channels // 8, 1, bias=False))
        self.phi = spectral_norm(nn.Conv2d(channels, channels // 8, 1, bias=False))
        self.g = spectral_norm(nn.Conv2d(channels, channels // 2, 1, bias=False))
        self.o = spectral_norm(nn.Conv2d(channels // 2, channels, 1, bias=False))
        self.gamma = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Let each pixel look at all of them."""
        theta = self.theta(x).flatten(2)
        phi, g = F.max_pool2d(self.phi(x), 2).flatten(2), F.max_pool2d(self.g(x), 2).flatten(2)
        seen = torch.bmm(theta.transpose(1, 2), phi).softmax(-1)
        return x + self.gamma * self.o(torch.bmm(g, seen.transpose(1, 2)).unflatten(2, x.shape[2:]))


class PlainBigGAN(nn.Module):
    """BigGAN, not the deep one, of random weights."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        widths = [width * shape.channels for width in shape.widths]
        condition = shape.embedding + shape.chunk
        self.first = spectral_norm(nn.Linear(shape.chunk, 16 * widths[0]))
        self.blocks = nn.ModuleList(Block(a, b, condition) for a, b in zip(widths, widths[1:], strict=False))
        self.attended = (shape.attention // 4).bit_length() - 1
        self.attention = Attention(widths[self.attended])
        self.last_norm = nn.BatchNorm2d(widths[-1], eps=1e-4)
        self.last = spectral_norm(nn.Conv2d(widths[-1], 3, 3, padding=1))
        self.eval().requires_grad_(False)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Draw [n, 3, size, size] in [-1, 1]."""
        first, *rest = z.split(self.shape.chunk, 1)
        x = self.first(first).unflatten(1, (-1, 4, 4))
        for number, (block, part) in enumerate(zip(self.blocks, rest, strict=True), 1):
            x = block(x, torch.cat([y, part], 1))
            if number == self.attended:
                x = self.attention(x)
        return torch.tanh(self.last(torch.relu(self.last_norm(x))))


def augmented(image: Tensor, copies: int) -> Tensor:
    """Return copies of one image [1, 3, h, h], augmented at full size, then shrunk to 224 pixels."""
    x, h = image.repeat(copies, 1, 1, 1), image.shape[-1]

    def u() -> Tensor:
        return torch.rand(copies, 1, 1, 1, device=x.device)

    x = x + u() - 0.5
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * 2 * u() + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * (u() + 0.5) + mean
    limit = int(h * 0.125 + 0.5)
    rows = torch.arange(h, device=x.device)
    down, right = (torch.randint(-limit, limit + 1, (copies, 1), device=x.device) for _ in range(2))
    padded = F.pad(x, [1] * 4).permute(0, 2, 3, 1)
    every = torch.arange(copies, device=x.device)[:, None, None]
    y, across = ((rows + shift + 1).clamp(0, h + 1) for shift in (down, right))
    x = padded[every, y[:, :, None], across[:, None, :]].permute(0, 3, 1, 2)
    new = int(h * (0.8 + 0.4 * float(torch.rand(()))))
    x = F.interpolate(x, (new, new), mode="bilinear")
    low = (h - new) // 2
    x = F.pad(x, (low, h - new - low, low, h - new - low))
    centre_y, centre_x = (torch.randint(0, h, (copies, 1), device=x.device) for _ in range(2))
    hole_y, hole_x = ((rows - centre).abs() < h // 4 for centre in (centre_y, centre_x))
    x = x * (~(hole_y[:, :, None] & hole_x[:, None, :]))[:, None]
    return F.interpolate(x, (224, 224), mode="bilinear")


class PlainLoop:
    """One run of the authors' loop: call ``start`` for ten samples, ``step`` for a step."""

    def __init__(self, generator: PlainBigGAN, clip: nn.Module, tokens: Tensor, k: int, copies: int) -> None:
        self.generator, self.clip, self.tokens, self.copies = generator, clip, tokens, copies
        shape, device = generator.shape, tokens.device
        z_dim = shape.chunk * (1 + shape.blocks)
        self.weights = torch.full((k, 1), 1 / k, device=device, requires_grad=True)
        self.z = torch.randn(k, z_dim, device=device).clamp(-2, 2).requires_grad_()
        self.y = torch.randn(k, shape.embedding, device=device).requires_grad_()
        self.adam = torch.optim.Adam([self.weights, self.z, self.y], lr=5e-3)

    def _text(self) -> Tensor:
        return F.normalize(self.clip.encode_text(self.tokens), dim=-1)

    @torch.no_grad()
    def start(self) -> None:
        """Rank ten samples."""
        z = torch.randn(10, self.z.shape[1], device=self.z.device).clamp(-2, 2)
        y = torch.randn(10, self.y.shape[1], device=self.z.device)
        image = F.interpolate(self.generator(z, y), (224, 224), mode="bilinear")
        (F.normalize(self.clip.encode_image(image), dim=-1) @ self._text().T).topk(5, 0)

    def step(self) -> None:
        """Climb one step."""
        image = self.generator(
            (self.weights * self.z).sum(0, keepdim=True), (self.weights * self.y).sum(0, keepdim=True)
        )
        seen = F.normalize(self.clip.encode_image(augmented(image, self.copies)), dim=-1)
        self.adam.zero_grad()
        (-(seen @ self._text().T).mean()).backward()
        self.adam.step()
        with torch.no_grad():
            self.z.clamp_(-2, 2)
