"""Published BigGANs under one set of names, their spectral norms divided out.

Two releases of DeepMind's weights are known: that of ivclab (``biggan128-release.pt`` and so on), and that
which the authors' own PyTorch code converts and FuseDream used (``biggan-512.pth``). Names, orders and
spectral norms are those of both releases' public code; **no released file could be read where this was
written**, so the maps are proven on random weights under the names that the code gives.

=================  ================================  ===================================
here               ivclab                            the authors' code
=================  ================================  ===================================
first              g_z.g_linear, pixels before       linear, channels before pixels
                   channels
blocks.i.conv1     gblock_i.conv0                    blocks.i.0.conv1
blocks.i.norm1     gblock_i.hyperbn, reads (z, y)    blocks.i.0.bn1, reads (y, z)
means, variances   standing_means, of 50             stored_mean, of one, whatever the
                   truncations                       truncation
attention          attention                         blocks.i.1
last_norm, last    scaledcrossreplicabn, conv_2d     output_layer.0, output_layer.2
=================  ================================  ===================================

FuseDream's own code loads its file with batch norms of ε 1e-5; the weights were made with 1e-4, taken here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from .biggan import SHAPES, Network, Shape
from .files import Tensors, compare, described_by, read_config, read_file, read_tensors, write_tensors

EPS = 1e-4  # of the batch norms
STEP = 0.02  # between the truncations that ivclab's statistics are for: 0.02, 0.04, … 1
SUFFIXES = (".pt", ".pth")
CLASS = "BigGAN"  # how config.json calls it

Renamings = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]

_STATISTICS = {"mean": "means", "var": "variances"}
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
    (r"\.theta\.", ".query."),
    (r"\.phi\.", ".key."),
    (r"\.g\.", ".value."),
    (r"\.o_conv\.", ".out."),
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
    (r"\.theta\.", ".query."),
    (r"\.phi\.", ".key."),
    (r"\.g\.", ".value."),
    (r"\.o\.", ".out."),
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


def read(path: Path) -> tuple[Shape, Tensors, tuple[str, ...]]:
    """Return the shape, the tensors under this module's names and the classes' names, of a folder or a file.

    Raises FileNotFoundError where there is none, and ValueError for several files, and for names or
    shapes that are not a BigGAN's.
    """
    names: tuple[str, ...] = ()
    if (path / "config.json").exists():
        values = read_config(path / "config.json")
        names = tuple(values.pop("class_names", ()))
        with described_by(path / "config.json", "a BigGAN"):
            del values["_class_name"]
            shape = Shape(**values | {"widths": tuple(values["widths"])})
            _expected(shape, {})
        tensors = read_tensors(path, ("model.safetensors",))
    else:
        found = _files(path)
        if len(found) != 1:
            what = f"{len(found)} files; leave one" if found else "no BigGAN; put a .pt or .pth"
            raise (ValueError if found else FileNotFoundError)(f"{path} holds {what} there.")
        tensors = convert(read_file(found[0]), path)
        shape = _shape(tensors, path)
    compare(_expected(shape, tensors), tensors, path)
    return shape, tensors, names


def save(
    shape: Shape, tensors: Mapping[str, Tensor], class_names: Sequence[str] = (), *, folder: Path
) -> None:
    """Write config.json and model.safetensors into a folder that is there."""
    write_tensors(tensors, folder / "model.safetensors")
    names = {"class_names": class_names} if class_names else {}
    config = {"_class_name": CLASS, **asdict(shape), **names}
    (folder / "config.json").write_text(json.dumps(config, indent=1))


def convert(tensors: Mapping[str, Tensor], source: Path) -> Tensors:
    """Return the tensors of either release under this module's names, each weight over its spectral norm.

    Raises ValueError for names that are of neither.
    """
    if "g_z.g_linear.weight_orig" in tensors:
        plain = {_rename(k, _IVCLAB): v for k, v in _ivclab_weights(tensors).items()}
        return {name: _reorder(name, value, plain) for name, value in plain.items()}
    if "shared.weight" in tensors:
        plain = {_rename(k, _AUTHORS): v for k, v in _authors_weights(tensors).items()}
        one = ("means", "variances")
        return {k: v[None] if k.rpartition(".")[2] in one else v for k, v in plain.items()}
    raise ValueError(
        f"{source} is no BigGAN that is known: its names should be those of ivclab's release "
        "(g_z.g_linear.weight_orig, …) or of the authors' code (shared.weight, …)."
    )


def _rename(key: str, renamings: Renamings) -> str:
    for pattern, replacement in renamings:
        key = re.sub(pattern, replacement, key)
    return key


def _kept(tensors: Mapping[str, Tensor]) -> Tensors:
    return {k: v for k, v in tensors.items() if not _TRAINING.search(k)}


def _ivclab_weights(tensors: Mapping[str, Tensor]) -> Tensors:
    """Divide each ``weight_orig`` W by σ = uᵀ W v, W [out, height · width · in] in TensorFlow's order."""
    kept = _kept(tensors)
    for stem in [k.removesuffix("_orig") for k in kept if k.endswith(".weight_orig")]:
        weight = kept.pop(f"{stem}_orig")
        u, v = (_pop(kept, f"{stem}_{side}", f"{stem}_orig") for side in "uv")
        matrix = weight.movedim(1, -1).flatten(1)
        kept[stem] = weight / (u @ matrix @ v)
    return kept


def _authors_weights(tensors: Mapping[str, Tensor]) -> Tensors:
    """Divide each weight W that has a u by σ = |W v|, v = Wᵀ u / |Wᵀ u|: one step of the power iteration."""
    kept = _kept(tensors)
    for stem in [k.removesuffix(".u0") for k in kept if k.endswith(".u0")]:
        matrix = _pop(kept, f"{stem}.weight", f"{stem}.u0").flatten(1)
        v = torch.nn.functional.normalize(kept.pop(f"{stem}.u0").flatten() @ matrix, dim=0, eps=EPS)
        kept[f"{stem}.weight"] = tensors[f"{stem}.weight"] / (matrix @ v).norm()
    return kept


def _pop(tensors: Tensors, key: str, other: str) -> Tensor:
    if key not in tensors:
        raise ValueError(f"The weights have {other}, but {key}, which belongs to it, is missing.")
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


def _expected(shape: Shape, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes that :func:`fold` reads, with as many statistics as there are."""
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in Network(shape).state_dict().items()}
    rows = len(tensors.get("last_norm.means", ()))
    norms: dict[str, tuple[int, tuple[int, ...]]] = {"last_norm": (shapes["scale"][0], shapes.pop("scale"))}
    del shapes["offset"]
    for key in [k for k in shapes if k.endswith(".linear.weight")]:
        name, (twice, condition) = key.removesuffix(".linear.weight"), shapes.pop(key)
        del shapes[f"{name}.linear.bias"]
        norms[name] = (twice // 2, (twice // 2, condition))
    for name, (width, affine) in norms.items():
        shapes |= {f"{name}.{part}": affine for part in ("gain", "bias")}
        shapes |= {f"{name}.{part}": (rows, width) for part in ("means", "variances")}
    return shapes | {"attention.gain": (), "embeddings": (shape.classes, shape.embedding)}


def fold(tensors: Mapping[str, Tensor], truncation: float) -> Tensors:
    """Return :class:`Network`'s state dict: the batch norms at one truncation as affine maps.

    With statistics μ, σ² and s = 1 / √(σ² + ε), a(c) = s (1 + G c) and b(c) = B c - μ a(c).
    """
    folded = {k: v for k, v in tensors.items() if "norm" not in k}
    gain = folded.pop("attention.gain")
    folded["attention.out.weight"] = folded["attention.out.weight"] * gain
    del folded["embeddings"]
    for name in {k.rpartition(".")[0] for k in tensors if "norm" in k}:
        mean, inverse = _statistics(tensors, name, truncation)
        gain, bias = tensors[f"{name}.gain"].double(), tensors[f"{name}.bias"].double()
        if name == "last_norm":
            folded["scale"], folded["offset"] = gain * inverse, bias - mean * gain * inverse
            continue
        slope = inverse[:, None] * gain
        folded[f"{name}.linear.weight"] = torch.cat([slope, bias - mean[:, None] * slope])
        folded[f"{name}.linear.bias"] = torch.cat([inverse, -mean * inverse])
    return {name: value.float() for name, value in folded.items()}


def _statistics(tensors: Mapping[str, Tensor], name: str, truncation: float) -> tuple[Tensor, Tensor]:
    """Return μ and 1 / √(σ² + ε) at a truncation, between two of the table's linearly."""
    means, variances = (tensors[f"{name}.{part}"].double() for part in ("means", "variances"))
    place = min(max(truncation / STEP - 1, 0.0), len(means) - 1.0)
    low = min(int(place + 1e-6), max(len(means) - 2, 0))
    rows = [low, min(low + 1, len(means) - 1)]
    mean, variance = (t[rows[0]].lerp(t[rows[1]], max(place - low, 0.0)) for t in (means, variances))
    return mean, (variance + EPS).rsqrt()
