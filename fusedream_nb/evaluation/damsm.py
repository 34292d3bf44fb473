"""DAMSM (Xu et al., 2018): the two encoders that the papers' own R-precision is taken with."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from fusedream_nb.models.files import load_strictly, read_file

WORDS, HIDDEN, DIM, SIDE = 300, 128, 256, 299  # of the released encoders; SIDE is in pixels
FILES = "image_encoder*.pth", "text_encoder*.pth", "captions.pickle"
CHUNK = 1024  # captions that are read together


class Damsm:
    """Pictures and captions to unit vectors of one space, as AttnGAN's code does it.

    Inception v3 whose last layer is DAMSM's own; a two-way LSTM whose two last states are the sentence.
    """

    name = "DAMSM"

    def __init__(
        self, images: nn.Module, words: nn.Embedding, reader: nn.LSTM, vocabulary: Mapping[str, int]
    ) -> None:
        self.images, self.words, self.reader = images, words, reader
        self.vocabulary = vocabulary
        for part in (images, words, reader):
            part.eval().requires_grad_(False)

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Load the folder that AttnGAN's authors publish, with their ``captions.pickle`` in it.

        Raises FileNotFoundError for a missing file, and ValueError for one of another kind or another
        network's.
        """
        from torchvision.models import inception_v3

        image, text, words = (_one(folder, pattern) for pattern in FILES)
        vocabulary = _vocabulary(words)
        images = inception_v3(weights=None, aux_logits=False, init_weights=False, transform_input=False)
        images.fc = nn.Linear(2048, DIM)
        renamed = {name.replace("emb_cnn_code.", "fc."): value for name, value in read_file(image).items()}
        counts = {k: v for k, v in images.state_dict().items() if k.endswith("num_batches_tracked")}
        regions = "emb_features."  # of parts of a picture: R-precision is of whole ones
        known = {name: value for name, value in renamed.items() if not name.startswith(regions)}
        load_strictly(images, counts | known, image)
        embedding = nn.Embedding(len(vocabulary), WORDS)
        reader = nn.LSTM(WORDS, HIDDEN, batch_first=True, bidirectional=True)
        load_strictly(nn.ModuleDict({"encoder": embedding, "rnn": reader}), read_file(text), text)
        return cls(images, embedding, reader, vocabulary)

    def to(self, device: torch.device) -> Self:
        """Move both encoders to a device."""
        for part in (self.images, self.words, self.reader):
            part.to(device)
        return self

    @torch.no_grad()
    def encode_image(self, image: Tensor) -> Tensor:
        """Return unit vectors [n, 256], on the CPU, of pictures [n, 3, h, w] in [-1, 1]."""
        large = F.interpolate(image.to(self.words.weight.device), (SIDE, SIDE), mode="bilinear")
        return F.normalize(self.images(large), dim=-1).cpu()

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors [n, 256], on the CPU, of captions; unknown words are left out.

        Raises ValueError for a caption without a known word.
        """
        rows = self.numbers(texts)
        return torch.cat([self._read(rows[first : first + CHUNK]) for first in range(0, len(rows), CHUNK)])

    def _read(self, rows: Sequence[Sequence[int]]) -> Tensor:
        words = [self.words(torch.tensor(row, device=self.words.weight.device)) for row in rows]
        _, (last, _) = self.reader(pack_sequence(words, enforce_sorted=False))  # [2 ways, n, 128]
        return F.normalize(last.transpose(0, 1).flatten(1), dim=-1).cpu()

    def numbers(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the numbers of each caption's known words; ValueError for one without any."""
        return [self._numbers(text) for text in texts]

    def _numbers(self, text: str) -> list[int]:
        words = (word.encode("ascii", "ignore").decode() for word in re.findall(r"\w+", text.lower()))
        if found := [self.vocabulary[word] for word in words if word in self.vocabulary]:
            return found
        raise ValueError(f"DAMSM knows no word of the caption {text!r}; leave it out.")


def _one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise FileNotFoundError(
            f"{folder} holds {len(found)} files {pattern}, and one is wanted. A folder of DAMSM's has "
            f"{', '.join(FILES)}: the encoders for COCO that AttnGAN's authors publish, and the captions "
            "of its data."
        )
    return found[0]


class _Plain(pickle.Unpickler):
    """Reads lists, dicts, words and numbers, and nothing that runs code."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")


def _vocabulary(path: Path) -> dict[str, int]:
    """Return the words' numbers, the last of the four lists that AttnGAN pickles."""
    try:
        with path.open("rb") as file:
            numbers = _Plain(file, encoding="latin1").load()[3]
        if not all(isinstance(word, str) and isinstance(i, int) for word, i in numbers.items()):
            raise TypeError("its last part is not words and numbers")
        return dict(numbers)
    except (pickle.UnpicklingError, EOFError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not AttnGAN's list of captions and words: {error}.") from error
