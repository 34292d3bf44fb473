"""The networks that measure: Inception, or the judge in the sticker world; DAMSM for the R-precision."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from fusedream_nb.evaluation.captions import TEST_SEED
from fusedream_nb.models import Models
from fusedream_nb.models.encoders import Clip
from fusedream_nb.models.files import load_strictly, read_file
from fusedream_nb.models.pictures import read_picture
from fusedream_nb.models.stickers import nouns
from fusedream_nb.models.stickers.captions import article
from fusedream_nb.models.stickers.scenes import sample_scenes
from fusedream_nb.models.stickers.world import render

INCEPTION = "inception-v3-compat"  # torch-fidelity's name of the weights that papers use
CHUNK = 64  # pictures in memory at a time
WORDS, HIDDEN, DIM, SIDE = 300, 128, 256, 299  # of DAMSM's released encoders; SIDE is in pixels
FILES = "image_encoder*.pth", "text_encoder*.pth", "captions.pickle"
AT_ONCE = 1024  # captions that are read together


def batched(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield the rows in order, so many at a time (itertools.batched is of Python 3.12)."""
    return (rows[first : first + size] for first in range(0, len(rows), size))


class Network(Protocol):
    """What turns pictures [n, 3, h, w] in [-1, 1] into features [n, d] and logits [n, classes]."""

    name: str

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features and the logits of pictures."""
        ...


class Judge:
    """The sticker judge's vectors as features, and its zero-shot logits of the world's nouns.

    The unit vectors are stretched by √d: KID's kernel (xᵀy / d + 1)³ is then (cosine + 1)³.
    """

    def __init__(self, judge: Clip) -> None:
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
    """torch-fidelity's Inception v3, by which FID and IS are defined; it downloads weights unless given."""

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

    Raises ValueError for weights in the sticker world or of another kind, OSError for a missing file.
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
    """Return the features [m, d] of real pictures: a folder's, n fresh sticker scenes, or else None.

    Raises ValueError for a folder with fewer than two pictures.
    """
    size = models.generator.size
    if folder is not None:
        paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
        if len(paths) < 2:
            what = "a reference requires at least two, PNG or JPEG"
            raise ValueError(f"{folder} holds {len(paths)} pictures; {what}.")
        read = (torch.stack([read_picture(p, size) for p in part]) for part in batched(paths, CHUNK))
        return torch.cat([network(images)[0].cpu() for images in read])
    if not models.world:
        return None
    scenes = sample_scenes(n, torch.Generator().manual_seed(TEST_SEED + 1))  # not those of the captions
    parts = [scenes[slice(i, i + CHUNK)] for i in range(0, n, CHUNK)]
    return torch.cat([network(render(part, size))[0].cpu() for part in parts])


class Damsm(nn.Module):
    """DAMSM (Xu et al., 2018), the papers' R-precision's encoders, as in AttnGAN's code.

    Inception v3 whose last layer is DAMSM's own; a two-way LSTM whose two last states are the sentence.
    Loaded from the folder that AttnGAN's authors publish, with their ``captions.pickle`` in it; raises
    FileNotFoundError for a missing file, and ValueError for one of another kind.
    """

    def __init__(self, folder: Path) -> None:
        from torchvision.models import inception_v3

        super().__init__()
        image, text, words = (_one(folder, pattern) for pattern in FILES)
        self.vocabulary = _vocabulary(words)
        images = inception_v3(weights=None, aux_logits=False, init_weights=False, transform_input=False)
        images.fc = nn.Linear(2048, DIM)
        renamed = {name.replace("emb_cnn_code.", "fc."): value for name, value in read_file(image).items()}
        counts = {k: v for k, v in images.state_dict().items() if k.endswith("num_batches_tracked")}
        regions = "emb_features."  # of parts of a picture: R-precision is of whole ones
        known = {name: value for name, value in renamed.items() if not name.startswith(regions)}
        load_strictly(images, counts | known, image)
        self.images, self.words = images, nn.Embedding(len(self.vocabulary), WORDS)
        self.reader = nn.LSTM(WORDS, HIDDEN, batch_first=True, bidirectional=True)
        load_strictly(nn.ModuleDict({"encoder": self.words, "rnn": self.reader}), read_file(text), text)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def encode_image(self, image: Tensor) -> Tensor:
        """Return unit vectors [n, 256], on the CPU, of pictures [n, 3, h, w] in [-1, 1]."""
        large = F.interpolate(image.to(self.words.weight.device), (SIDE, SIDE), mode="bilinear")
        return F.normalize(self.images(large), dim=-1).cpu()

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors [n, 256], on the CPU, of captions; ValueError as :meth:`numbers`."""
        found = []
        for rows in batched(self.numbers(texts), AT_ONCE):
            words = [self.words(torch.tensor(row, device=self.words.weight.device)) for row in rows]
            _, (last, _) = self.reader(pack_sequence(words, enforce_sorted=False))  # [2 ways, n, 128]
            found.append(F.normalize(last.transpose(0, 1).flatten(1), dim=-1).cpu())
        return torch.cat(found)

    def numbers(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the numbers of each caption's known words; ValueError for one without any."""
        rows = []
        for text in texts:
            words = (word.encode("ascii", "ignore").decode() for word in re.findall(r"\w+", text.lower()))
            rows.append([self.vocabulary[word] for word in words if word in self.vocabulary])
            if not rows[-1]:
                raise ValueError(f"DAMSM knows no word of the caption {text!r}; leave it out.")
        return rows


def _one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise FileNotFoundError(
            f"{folder} holds {len(found)} files {pattern}, and one is required. A folder of DAMSM's has "
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
