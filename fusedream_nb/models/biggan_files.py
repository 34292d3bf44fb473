"""Published BigGANs under one set of names, their spectral norms divided out.

Known are two releases of BigGAN, ivclab's (``biggan128-release.pt`` and so on) and that which the authors'
own PyTorch code converts and FuseDream used (``biggan-512.pth``), and BigGAN-deep's by the package
``pytorch_pretrained_biggan``. Names, orders and spectral norms are those of the releases' public code; **no
released file could be read where this was written**, so the maps are tested on random weights under those
names. FuseDream's own code loads its file with batch norms of ε 1e-5; the weights were made with 1e-4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from .biggan import SHAPES, Network, Shape
from .files import (
    Renamings,
    Tensors,
    WrongWeights,
    described_by,
    read_config,
    read_file,
    read_tensors,
    rename,
)

EPS = 1e-4  # of the batch norms
STEP = 0.02  # between the truncations that ivclab's statistics are for: 0.02, 0.04, … 1
SUFFIXES = (".pt", ".pth")
CLASS = "BigGAN"  # _class_name in config.json

_STATISTICS = {"mean": "means", "var": "variances"}
_ATTENTION: Renamings = ((r"\.theta\.", ".query."), (r"\.phi\.", ".key."), (r"\.g\.", ".value."))
_IVCLAB: Renamings = (
    (r"^linear\.weight$", "embeddings"),
    (r"^g_z\.g_linear\.", "first."),
    (r"^gblock\.", "gblock_0."),
    (r"^gblock_(\d)\.", r"blocks.\1."),
    (r"\.conv([01])\.", lambda found: f".conv{int(found[1]) + 1}."),
    (r"\.conv_sc\.", ".shortcut."),
    (r"\.hyperbn\.", ".norm1."),
    (r"\.hyperbn_1\.", ".norm2."),
    (r"^scaledcrossreplicabn\.weight$", "last_norm.gain"),
    (r"^scaledcrossreplicabn\.", "last_norm."),
    (r"\.crossreplicabn\.", "."),
    (r"\.standing_(mean|var)s$", lambda found: f".{_STATISTICS[found[1]]}"),
    (r"^attention\.gamma$", "attention.gain"),
    (r"\.gamma\.weight$", ".gain"),
    (r"\.beta\.weight$", ".bias"),
    (r"^conv_2d\.", "last."),
    (r"\.o_conv\.", ".out."),
    *_ATTENTION,
)
_AUTHORS: Renamings = (
    (r"^shared\.weight$", "embeddings"),
    (r"^linear\.", "first."),
    (r"^blocks\.\d\.1\.gamma$", "attention.gain"),
    (r"^blocks\.\d\.1\.", "attention."),
    (r"^(blocks\.\d)\.0\.", r"\1."),
    (r"\.conv_sc\.", ".shortcut."),
    (r"\.bn([12])\.", r".norm\1."),
    (r"\.(gain|bias)\.weight$", r".\1"),
    (r"\.stored_(mean|var)$", lambda found: f".{_STATISTICS[found[1]]}"),
    (r"^output_layer\.0\.", "last_norm."),
    (r"^output_layer\.2\.", "last."),
    (r"\.o\.", ".out."),
    *_ATTENTION,
)
_DEEP: Renamings = (
    (r"^generator\.", ""),
    (r"\.snconv1x1_(\w+)", lambda found: f".{found[1].removesuffix('_conv')}"),
    (r"\.o\.", ".out."),
    *_ATTENTION,
)
_TRAINING = re.compile(r"\.(num_batches_tracked|running_mean|running_var|sv\d)$")  # not read when drawing


def is_biggan(path: Path) -> bool:
    """Whether a folder or a file holds a BigGAN that is not deep, by its config or its file's name."""
    if (path / "config.json").exists():
        return read_config(path / "config.json").get("_class_name") == CLASS
    return bool(_files(path))


def _files(path: Path) -> list[Path]:
    paths = [path] if path.is_file() else sorted(path.glob("biggan*"))
    return [found for found in paths if found.suffix in SUFFIXES]


def read(path: Path) -> tuple[Network, Tensors, tuple[str, ...]]:
    """Return the network without weights, the tensors under this module's names and the classes' names.

    Raises FileNotFoundError for no BigGAN, ValueError for several files or another kind of them.
    """
    if (path / "config.json").exists():
        values = read_config(path / "config.json")
        names = tuple(values.pop("class_names", ()))
        with described_by(path / "config.json", "a BigGAN"), torch.device("meta"):
            del values["_class_name"]
            network = Network(Shape(**values | {"widths": tuple(values["widths"])}))
        return network, read_tensors(path, ("model.safetensors",)), names
    found = _files(path)
    if len(found) != 1:
        what = f"{len(found)} files; leave one" if found else "no BigGAN; put a .pt or .pth"
        raise (ValueError if found else FileNotFoundError)(f"{path} holds {what} there.")
    tensors = convert(read_file(found[0]), path)
    with torch.device("meta"):
        return Network(_shape(tensors, path)), tensors, ()


def convert(tensors: Mapping[str, Tensor], source: Path) -> Tensors:
    """Return a release's tensors under this module's names, each weight over its spectral norm."""
    kept = {k: v for k, v in tensors.items() if not _TRAINING.search(k)}
    if "g_z.g_linear.weight_orig" in kept:  # W [out, height · width · in] in TensorFlow's order
        found = _over_norms(kept, lambda weight: weight.movedim(1, -1).flatten(1))
        plain = {rename(k, _IVCLAB): v for k, v in found.items()}
        return {name: _reorder(name, value, plain) for name, value in plain.items()}
    if "shared.weight" in kept:
        plain = {rename(k, _AUTHORS): v for k, v in _authors_weights(kept).items()}
        return {k: v[None] if k.endswith((".means", ".variances")) else v for k, v in plain.items()}
    raise ValueError(
        f"{source} is no BigGAN that is known: its names should be those of ivclab's release "
        "(g_z.g_linear.weight_orig, …) or of the authors' code (shared.weight, …)."
    )


def _over_norms(tensors: Mapping[str, Tensor], matrix: Callable[[Tensor], Tensor]) -> Tensors:
    """Divide each ``weight_orig`` by σ = uᵀ W v, W its matrix.

    In double precision, so the quotient has the same bits on every CPU: a bank is found by them.
    """
    kept = dict(tensors)
    for stem in [k.removesuffix("_orig") for k in kept if k.endswith(".weight_orig")]:
        weight = kept.pop(f"{stem}_orig")
        u, v = (_pop(kept, f"{stem}_{side}", f"{stem}_orig") for side in "uv")
        sigma = torch.dot(u.double(), torch.mv(matrix(weight).double(), v.double()))
        kept[stem] = weight / sigma.to(weight)
    return kept


def _authors_weights(tensors: Mapping[str, Tensor]) -> Tensors:
    """Divide each weight W that has a u by σ = |W v|, v = Wᵀ u / |Wᵀ u|: one step of the power iteration."""
    kept = dict(tensors)
    for stem in [k.removesuffix(".u0") for k in kept if k.endswith(".u0")]:
        matrix = _pop(kept, f"{stem}.weight", f"{stem}.u0").flatten(1)
        v = torch.nn.functional.normalize(kept.pop(f"{stem}.u0").flatten() @ matrix, dim=0, eps=EPS)
        kept[f"{stem}.weight"] = tensors[f"{stem}.weight"] / (matrix @ v).norm()
    return kept


def _pop(tensors: Tensors, key: str, other: str) -> Tensor:
    if key not in tensors:
        raise WrongWeights(f"The weights have {other}, but {key}, which belongs to it, is missing.")
    return tensors.pop(key)


def _reorder(name: str, value: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """Bring ivclab's orders to those of the authors' code: channels before pixels, y before z."""
    if name.startswith("first."):
        return value.unflatten(0, (16, -1)).transpose(0, 1).flatten(0, 1).contiguous()
    if re.search(r"\.norm[12]\.(gain|bias)$", name):
        chunk = value.shape[1] - tensors["embeddings"].shape[1]
        return value.roll(-chunk, 1)
    return value.reshape(()) if name == "attention.gain" else value


def _shape(tensors: Mapping[str, Tensor], source: Path) -> Shape:
    """Return the published shape that has as many blocks, with the sizes that the tensors have."""
    blocks = {int(found[1]) for k in tensors if (found := re.match(r"blocks\.(\d)\.", k))}
    known = {shape.blocks: shape for shape in SHAPES.values()}
    try:
        shape = known[1 + max(blocks)]
        classes, embedding = tensors["embeddings"].shape
        chunk, channels = tensors["first.weight"].shape[1], len(tensors["first.bias"]) // 256
    except (KeyError, ValueError) as error:
        raise ValueError(f"{source} is a BigGAN without its first layer, or of no known size.") from error
    return Shape(shape.widths, shape.attention, chunk, channels, embedding, classes)


def fold(tensors: Mapping[str, Tensor], truncation: float) -> Tensors:
    """Return :class:`.biggan.Network`'s state dict, and the embeddings: batch norms as affine maps.

    With statistics μ, σ² at the truncation and s = 1 / √(σ² + ε), a(c) = s (1 + G c), b(c) = B c - μ a(c).
    """
    folded = dict(tensors)
    gain = _pop(folded, "attention.gain", "attention")
    folded["attention.out.weight"] = _pop(folded, "attention.out.weight", "attention.gain") * gain
    for name in {k.rpartition(".")[0] for k in tensors if "norm" in k}:
        parts = ("means", "variances", "gain", "bias")
        means, variances, gain, bias = (_pop(folded, f"{name}.{part}", name).double() for part in parts)
        mean, inverse = _statistics(means, variances, truncation / STEP - 1, EPS)
        if name == "last_norm":
            folded["scale"], folded["offset"] = gain * inverse, bias - mean * gain * inverse
            continue
        slope = inverse[:, None] * gain
        folded[f"{name}.linear.weight"] = torch.cat([slope, bias - mean[:, None] * slope])
        folded[f"{name}.linear.bias"] = torch.cat([inverse, -mean * inverse])
    return {name: value.float() for name, value in folded.items()}


def deep(tensors: Mapping[str, Tensor], truncation: float, eps: float) -> Tensors:
    """Return :class:`.biggan.DeepNetwork`'s state dict, its batch norms at one truncation."""
    found = {rename(k, _DEEP): v for k, v in _over_norms(tensors, lambda weight: weight.flatten(1)).items()}
    for stem in [k.removesuffix(".running_means") for k in found if k.endswith(".running_means")]:
        means = found.pop(f"{stem}.running_means")
        variances = _pop(found, f"{stem}.running_vars", f"{stem}.running_means")
        place = truncation * (len(means) - 1)
        found[f"{stem}.mean"], found[f"{stem}.inverse"] = _statistics(means, variances, place, eps)
    for gamma in [k for k in found if k.endswith(".gamma")]:
        out = f"{gamma.removesuffix('gamma')}out.weight"
        found[out] = _pop(found, out, gamma) * found.pop(gamma)
    return found | {k: v[:3] for k, v in found.items() if k.startswith("conv_to_rgb.")}  # red, green, blue


def _statistics(means: Tensor, variances: Tensor, place: float, eps: float) -> tuple[Tensor, Tensor]:
    """Return μ and 1 / √(σ² + ε) at a place among the rows of a table, between two rows linearly."""
    place = min(max(place, 0.0), len(means) - 1.0)
    low = min(int(place + 1e-6), max(len(means) - 2, 0))
    rows = [low, min(low + 1, len(means) - 1)]
    mean, variance = (t[rows[0]].lerp(t[rows[1]], max(place - low, 0.0)) for t in (means, variances))
    return mean, (variance + eps).rsqrt()
