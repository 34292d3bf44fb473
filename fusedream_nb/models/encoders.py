"""What judges a picture against words: CLIP, behind one small class."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .files import autocast, load_strictly, read_tensors
from .towers import fold

AT_ONCE = 48  # pictures that are climbed at a time on a CPU: more take more memory and more time


class Clip:
    """A CLIP of ``open_clip``: texts → unit vectors, each encoded once; images → unit vectors.

    The model is taken over: what is constant in a ResNet's image tower is folded into its weights.
    ``at_once`` is how many augmented copies a climb holds in memory at a time.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,  # noqa: ANN401  open_clip's tokenizers share no base class
        *,
        name: str = "CLIP",
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        model.visual = fold(model.visual)
        self.model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.tokenizer, self.name = tokenizer, name
        size = model.visual.image_size
        self.size: int = size[0] if isinstance(size, Sequence) else size
        # Pictures come in [-1, 1]: (x + 1) / 2, then open_clip's (x - mean) / std.
        self._shift = torch.tensor(mean).view(1, 3, 1, 1) * 2 - 1
        self._scale = 1 / (2 * torch.tensor(std).view(1, 3, 1, 1))
        self.dtype = torch.float32
        self.at_once = AT_ONCE
        self._texts: dict[str, Tensor] = {}

    @classmethod
    def from_folder(cls, folder: Path, *, name: str = "CLIP") -> Self:
        """Load a folder in open_clip's own format, config and weights; every key must match.

        Raises FileNotFoundError for a missing file and ValueError for missing or surplus keys.
        """
        config = json.loads((folder / "open_clip_config.json").read_text())
        settings = dict(config["model_cfg"])
        custom = settings.pop("custom_text", False)
        model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**settings)
        tensors = read_tensors(folder, ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"))
        load_strictly(model, tensors, folder)
        scale = config.get("preprocess_cfg", {})
        if config.get("tokenizer") == "words":
            from .stickers.captions import WordTokenizer

            tokenizer: Any = WordTokenizer()
        else:
            tokenizer = open_clip.SimpleTokenizer(
                context_length=config["model_cfg"]["text_cfg"]["context_length"]
            )
        return cls(model, tokenizer, name=name, **{k: scale[k] for k in ("mean", "std") if k in scale})

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Self:
        """Move the encoder to a device, and choose what its image tower computes in."""
        self.dtype = dtype
        self.at_once = AT_ONCE if device.type == "cpu" else sys.maxsize
        self.model = self.model.to(device)
        self._shift, self._scale = self._shift.to(device), self._scale.to(device)
        self._texts = {text: vector.to(device) for text, vector in self._texts.items()}
        return self

    @property
    def dim(self) -> int:
        """Dimension of the shared space."""
        text = getattr(self.model, "text", self.model)  # open_clip's CustomTextCLIP has a tower of its own
        return text.text_projection.shape[1]

    def encode_text(self, texts: str | Sequence[str]) -> Tensor:
        """Return unit vectors [n, dim] of texts; warns of words that the encoder does not know."""
        rows = [texts] if isinstance(texts, str) else list(texts)
        for text in dict.fromkeys(rows):
            if text not in self._texts:
                self._texts[text] = self._encode_one(text)
        return torch.stack([self._texts[text] for text in rows])

    @torch.no_grad()
    def _encode_one(self, text: str) -> Tensor:
        unknown, dropped = self.unknown_words(text), self._dropped_words(text)
        if unknown:
            listed = ", ".join(f"'{word}'" for word in unknown[:5]) + (", …" if len(unknown) > 5 else "")
            it = "it" if len(unknown) == 1 else "them"
            warnings.warn(f"{self.name} has not learnt {listed}; it will ignore {it}.", stacklevel=4)
        if dropped:
            limit = self.tokenizer.context_length - 2
            warnings.warn(f"{self.name} reads {limit} words and ignores the rest.", stacklevel=4)
        tokens = self.tokenizer([text]).to(self._shift.device)
        return F.normalize(self.model.encode_text(tokens).float(), dim=-1)[0]

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that the encoder's vocabulary lacks ([] for CLIP's own BPE)."""
        return self.tokenizer.unknown(text) if hasattr(self.tokenizer, "unknown") else []

    def _dropped_words(self, text: str) -> list[str]:
        return self.tokenizer.dropped(text) if hasattr(self.tokenizer, "dropped") else []

    def encode_image(self, image: Tensor) -> Tensor:
        """Return unit vectors [n, dim] of images [n, 3, h, w] in [-1, 1], differentiably.

        Images of another size than the encoder's are resized (bicubic, antialiased) and, where they
        are not square, cropped in the middle, as open_clip's own transform does.
        """
        if image.shape[-2:] != (self.size, self.size):
            image = _resize_and_crop(image, self.size)
        with autocast(image, self.dtype):
            features = self.model.encode_image((image - self._shift) * self._scale)
        return F.normalize(features.float(), dim=-1)


def _resize_and_crop(image: Tensor, size: int) -> Tensor:
    h, w = image.shape[-2:]
    height, width = max(size, round(h * size / min(h, w))), max(size, round(w * size / min(h, w)))
    image = F.interpolate(image, (height, width), mode="bicubic", antialias=True).clamp(-1, 1)
    top, left = (height - size) // 2, (width - size) // 2
    return image[:, :, top : top + size, left : left + size]
