"""How far apart two pictures look: LPIPS (Zhang et al., 2018)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from .files import load_strictly, read_tensors

TRUNKS = {  # of torchvision, by the names of their files
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
}


class Perceptual:
    """LPIPS of the ``lpips`` package on one of its three trunks."""

    def __init__(self, module: Any) -> None:  # noqa: ANN401  lpips.LPIPS
        self.module = module.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    @classmethod
    def from_path(cls, path: Path) -> Self:
        """Load a trunk of torchvision from its file or the file's folder; other names are ``squeezenet1_1``.

        The weights of channels are the file's own where it has any, else the package's, made for ImageNet's
        trunks. ValueError for wrong keys.
        """
        import lpips

        names = ("model.safetensors", *TRUNKS.values())
        there = [name for name in names if (path / name).exists()] if path.is_dir() else [path.name]
        trunk = next((trunk for trunk, name in TRUNKS.items() if name in there[:1]), "squeeze")
        tensors = read_tensors(path, names)
        own = [(k.removeprefix("heads."), v) for k, v in tensors.items() if k.startswith("heads.")]
        heads = {f"{number}.model.1.weight": head[None, :, None, None] for number, head in own}
        features = {k.removeprefix("features."): v for k, v in tensors.items() if "classifier" not in k}
        module = lpips.LPIPS(net=trunk, pretrained=not heads, pnet_rand=True, verbose=False)
        if heads:
            load_strictly(module.lins, heads, path)
        # lpips cuts the trunk into slices but keeps each layer's number as its name.
        for part in (part for name, part in module.net.named_children() if name.startswith("slice")):
            numbers = tuple(f"{number}." for number, _ in part.named_children())
            load_strictly(part, {k: v for k, v in features.items() if k.startswith(numbers)}, path)
        return cls(module)

    def to(self, device: torch.device) -> Self:
        """Move the network to a device."""
        self.module = self.module.to(device)
        return self

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distances [n] of pictures [n, 3, h, w] in [-1, 1], differentiably; 0 if equal."""
        return self.module(a, b).flatten()
