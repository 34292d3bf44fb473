"""CLIP-guided image generation, explained and reproduced: FuseDream and prompts by optimal transport."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fusedream_nb.method import run_from
    from fusedream_nb.method.attack import fgsm, pgd
    from fusedream_nb.method.baselines import big_sleep, naive_adam
    from fusedream_nb.method.budgets import budget
    from fusedream_nb.method.compose import compose
    from fusedream_nb.method.fusedream import climb, fusedream
    from fusedream_nb.method.latents import OverParameterised, Plain, top_k
    from fusedream_nb.method.placement import Placement, Placements
    from fusedream_nb.method.scores import AugCLIP, CLIPScore
    from fusedream_nb.method.search import basin_cma
    from fusedream_nb.method.transport import transport
    from fusedream_nb.method.views import Cutouts
    from fusedream_nb.models import load
    from fusedream_nb.models.compute import machine
    from fusedream_nb.notebook.claims import check, claim
    from fusedream_nb.notebook.live import live
    from fusedream_nb.notebook.show import grid
    from fusedream_nb.records.checkpoint import checkpointed
    from fusedream_nb.records.record import read_record, save
    from fusedream_nb.records.replay import replay
    from fusedream_nb.records.resume import checkpoints

# Each of those names with its module: loaded when first asked for, so that the import itself takes no torch.
_WHERE = {
    alias.name: node.module
    for node in ast.walk(ast.parse(Path(__file__).read_text("utf-8")))
    if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fusedream_nb.")
    for alias in node.names
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _WHERE:
        raise AttributeError(f"module 'fusedream_nb' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
