"""The networks that measure: Inception, or the judge in the sticker world; DAMSM for the R-precision."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from fusedream_nb.models import Models
from fusedream_nb.models.encoders import Clip
from fusedream_nb.models.files import load_strictly, read_file

INCEPTION = "inception-v3-compat"  # torch-fidelity's name of the weights that papers use
CHUNK = 64  # pictures in memory at a time
WORDS, HIDDEN, DIM, SIDE = 300, 128, 256, 299  # of DAMSM's released encoders; SIDE is in pixels
FILES = "image_encoder*.pth", "text_encoder*.pth", "captions.pickle"
AT_ONCE = 1024  # captions that are read together


class Network(Protocol):
    """What turns pictures [n, 3, h, w] in [-1, 1] into features [n, d] and logits [n, classes]."""

    name: str

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features and the logits of pictures."""
        ...


class Judge:
    """The sticker judge's vectors as features, and its cosines with the world's nouns as logits.

    The unit vectors are stretched by √d: KID's kernel (xᵀy / d + 1)³ is then (cosine + 1)³. The logits are
    scaled as in its training, so that their softmax is the judge's probability of each class (Radford et
    al., 2021: zero-shot classification).
    """

    def __init__(self, judge: Clip) -> None:
        from fusedream_nb.models.stickers import nouns
        from fusedream_nb.models.stickers.captions import article

        self.judge, self.name = judge, judge.name
        self.scale = float(judge.model.state_dict()["logit_scale"].exp())
        self.nouns = judge.encode_text([f"a photo of {article(noun)}" for noun in nouns.NOUNS])

    @torch.no_grad()
    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features [n, d] and the logits [n, nouns] of pictures."""
        return self.read(self.judge.encode_image(image))

    def read(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features [n, d] and the logits [n, nouns] of the judge's own unit vectors [n, d]."""
        return vectors.shape[1] ** 0.5 * vectors, self.scale * vectors @ self.nouns.T.to(vectors.device)


class Inception:
    """Inception v3 with the weights that FID and the Inception Score are defined by, by torch-fidelity.

    ``weights`` is a local file of them; without it torch-fidelity downloads its own.
    """

    name = INCEPTION

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        path = None if weights is None else str(weights)
        layers = ["2048", "logits_unbiased"]
        self.network = FeatureExtractorInceptionV3(INCEPTION, layers, feature_extractor_weights_path=path)
        self.network.eval().requires_grad_(False).to(device)
        self.device = device

    @torch.no_grad()
    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled features [n, 2048] and the logits [n, 1008] of pictures."""
        levels = ((image + 1) * 127.5).round().clamp(0, 255).byte()
        features, logits = self.network(levels.to(self.device))
        return features.cpu(), logits.cpu()


def network_of(models: Models, weights: Path | None = None) -> Network:
    """Return the network that a world is measured by: the judge for stickers, Inception elsewhere.

    Raises ValueError for Inception's weights in the sticker world or in another form, OSError for no file.
    """
    if models.world:
        if weights is not None:
            raise ValueError("The stickers are measured by their judge; --inception is for other models.")
        return Judge(models.judge)
    if weights is None:
        return Inception(models.device)
    weights.open("rb").close()  # torch-fidelity's own words for a missing file are an assertion
    try:
        return Inception(models.device, weights)
    except Exception as error:  # whatever unpickling finds
        raise ValueError(
            f"{weights} is not a file of torch-fidelity's Inception weights ({type(error).__name__})."
        ) from error


def reference_of(models: Models, network: Network, n: int, folder: str | Path | None = None) -> Tensor | None:
    """Return the features [m, d] of real pictures: a folder's, or n fresh scenes of the sticker world.

    None where there is neither. Raises ValueError for a folder without pictures.
    """
    if folder is not None:
        return _of_folder(models.generator.size, network, Path(folder))
    if not models.world:
        return None
    from fusedream_nb.evaluation.captions import TEST_SEED
    from fusedream_nb.models.stickers.scenes import sample_scenes
    from fusedream_nb.models.stickers.world import render

    scenes = sample_scenes(n, torch.Generator().manual_seed(TEST_SEED + 1))  # not those of the captions
    parts = [scenes[slice(i, i + CHUNK)] for i in range(0, n, CHUNK)]
    return torch.cat([network(render(part, models.generator.size))[0].cpu() for part in parts])


def _of_folder(size: int, network: Network, folder: Path) -> Tensor:
    from fusedream_nb.models.pictures import read_picture

    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if len(paths) < 2:
        raise ValueError(
            f"{folder} holds {len(paths)} pictures; a reference requires at least two, PNG or JPEG."
        )
    parts = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    read = (torch.stack([read_picture(path, size) for path in part]) for part in parts)
    return torch.cat([network(images)[0].cpu() for images in read])


class Damsm:
    """DAMSM (Xu et al., 2018): pictures and captions to unit vectors of one space, as in AttnGAN's code.

    The papers' own R-precision is taken with it. Inception v3 whose last layer is DAMSM's own; a two-way
    LSTM whose two last states are the sentence.
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
        return torch.cat(
            [self._read(rows[first : first + AT_ONCE]) for first in range(0, len(rows), AT_ONCE)]
        )

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
