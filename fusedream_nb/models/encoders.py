"""CLIP behind one small class: texts and images to unit vectors."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from .clip_network import CLIPNetwork, is_plain, load_network
from .compute import compute
from .files import Tensors, described_by, load_strictly, read_config, read_tensors

if TYPE_CHECKING:
    from .stickers.presence import Presence

AT_ONCE = 48  # pictures that are climbed at a time on a CPU: more take more memory and more time
CONFIG = "open_clip_config.json"
PRESENCE = "presence.safetensors"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class Clip:
    """A CLIP: texts → unit vectors, each encoded once; images → unit vectors.

    Args:
        model: a :class:`CLIPNetwork`, or any network with ``encode_image``, ``encode_text`` and
            ``visual.image_size`` as open_clip's, of which a copy is taken.
        tokenizer: turns a list of texts into tokens [n, length], as open_clip's do.
        name: used in warnings.
        mean, std: of its pictures' red, green and blue, in [0, 1].

    ``at_once`` is how many augmented copies a climb holds in memory at a time. ``presence`` reads the nouns
    in a picture, where an encoder has such a network beside it: the sticker judge's does.
    """

    presence: Presence | None = None

    def __init__(
        self,
        model: Any,  # noqa: ANN401  open_clip's networks and tokenizers share no base class
        tokenizer: Any,  # noqa: ANN401
        *,
        name: str = "CLIP",
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        mine = model if isinstance(model, CLIPNetwork) else copy.deepcopy(model)
        self.model = mine.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.tokenizer, self.name = tokenizer, name
        size: Any = mine.visual.image_size
        self.size: int = size[0] if isinstance(size, Sequence) else size
        # Pictures come in [-1, 1]: (x + 1) / 2, then open_clip's (x - mean) / std.
        self._shift = torch.tensor(mean).view(1, 3, 1, 1) * 2 - 1
        self._scale = 1 / (2 * torch.tensor(std).view(1, 3, 1, 1))
        self.dtype = torch.float32
        self.at_once = AT_ONCE
        self._texts: dict[str, Tensor] = {}

    @classmethod
    def from_folder(cls, path: Path, *, name: str = "CLIP") -> Self:
        """Load a folder of open_clip, or weights with its config beside; ValueError for wrong keys."""
        file = (path if path.is_dir() else path.parent) / CONFIG
        config = read_config(file)
        tensors = read_tensors(path, WEIGHTS)
        with described_by(file, "a CLIP of open_clip"):
            settings = dict(config["model_cfg"])
            text = settings["text_cfg"]
            load = load_network if is_plain(settings) else _open_clip
            model = load(settings, tensors, path)
        scale = {k: v for k, v in config.get("preprocess_cfg", {}).items() if k in ("mean", "std")}
        encoder = cls(model, _tokenizer(config.get("tokenizer"), text), name=name, **scale)
        if (file.parent / PRESENCE).exists():
            from .stickers.presence import load_presence

            encoder.presence = load_presence(file.with_name(PRESENCE))
        return encoder

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Self:
        """Move the encoder to a device, and choose what its image tower computes in."""
        self.dtype = dtype
        self.at_once = AT_ONCE if device.type == "cpu" else sys.maxsize
        self.model = self.model.to(device)
        self.presence = self.presence and self.presence.to(device)
        self._shift, self._scale = self._shift.to(device), self._scale.to(device)
        self._texts = {text: vector.to(device) for text, vector in self._texts.items()}
        return self

    @property
    def dim(self) -> int:
        """Dimension of the shared space."""
        text = getattr(self.model, "text", self.model)  # open_clip's CustomTextCLIP has a tower of its own
        return int(text.text_projection.shape[1])

    def encode_text(self, texts: str | Sequence[str]) -> Tensor:
        """Return unit vectors [n, dim] of texts; warns of words that the encoder does not know or read."""
        rows = [texts] if isinstance(texts, str) else list(texts)
        for text in dict.fromkeys(rows):
            if text not in self._texts:
                for note in self._unread(text):
                    warnings.warn(f"{self.name} {note}", stacklevel=3)
                with torch.no_grad():
                    tokens = self.tokenizer([text]).to(self._shift.device)
                    self._texts[text] = F.normalize(self.model.encode_text(tokens).float(), dim=-1)[0]
        return torch.stack([self._texts[text] for text in rows])

    def _unread(self, text: str) -> list[str]:
        """Return a sentence without its subject for each way in which a text is not read as it stands."""
        notes, reader = [], self.tokenizer
        limit = (getattr(reader, "context_length", None) or 0) - 2
        if hasattr(reader, "dropped"):  # the stickers' own, which knows some words only
            unknown, dropped = list(reader.unknown(text)), reader.dropped(text)
            if unknown:
                listed = ", ".join(f"'{word}'" for word in unknown[:5]) + (", …" if len(unknown) > 5 else "")
                them = "it" if len(unknown) == 1 else "them"
                notes.append(f"has not learnt {listed}; it will ignore {them}.")
            if dropped:
                notes.append(f"reads {limit} words and ignores the rest, from '{dropped[0]}' on.")
            elif not unknown and torch.equal(reader([text]), reader([""])):
                notes.append(f"finds no word in {text!r}, so it cannot tell it from no prompt at all.")
        elif hasattr(reader, "encode") and limit > 0 and len(tokens := reader.encode(text)) > limit:
            rest = reader.decode(tokens[limit:]).strip()
            notes.append(f"reads {limit} tokens and ignores the rest, from '{rest[:40]}' on.")
        return notes

    def encode_image(self, image: Tensor) -> Tensor:
        """Return unit vectors [n, dim] of images [n, 3, h, w] in [-1, 1], differentiably.

        Images of another size are resized (bicubic, antialiased) and cropped in the middle, as by open_clip.
        """
        if image.shape[-2:] != (self.size, self.size):
            image = resize_and_crop(image, self.size)
        features = compute(self, self.model.encode_image, (image - self._shift) * self._scale)
        return F.normalize(features, dim=-1)


def _open_clip(settings: dict[str, Any], tensors: Tensors, source: Path) -> Any:  # noqa: ANN401
    """Return one of open_clip's own networks, such as those with timm's image towers."""
    import open_clip

    kind = open_clip.CustomTextCLIP if settings.pop("custom_text", False) else open_clip.CLIP
    model = kind(**settings)
    load_strictly(model, tensors, source)
    return model


def _tokenizer(kind: str | None, text: dict[str, Any]) -> Any:  # noqa: ANN401
    if kind == "words":
        from .stickers.captions import WordTokenizer

        return WordTokenizer(text["vocab_size"])
    import open_clip

    return open_clip.SimpleTokenizer(context_length=text.get("context_length", 77))


def resize_and_crop(image: Tensor, size: int) -> Tensor:
    """Return the middle [n, 3, size, size] of images [n, 3, h, w], resized to fill it, antialiased."""
    h, w = image.shape[-2:]
    height, width = max(size, round(h * size / min(h, w))), max(size, round(w * size / min(h, w)))
    image = F.interpolate(image, (height, width), mode="bicubic", antialias=True).clamp(-1, 1)
    top, left = (height - size) // 2, (width - size) // 2
    return image[:, :, top : top + size, left : left + size]
