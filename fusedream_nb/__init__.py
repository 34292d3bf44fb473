"""CLIP-guided image generation, explained and reproduced: FuseDream and prompts by optimal transport."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {  # loaded when first asked for: the import itself takes no torch
    "load": "fusedream_nb.models",
    "fusedream": "fusedream_nb.method.fusedream",
    "climb": "fusedream_nb.method.run",
    "compose": "fusedream_nb.method.compose",
    "transport": "fusedream_nb.method.transport",
    "Placement": "fusedream_nb.method.placement",
    "Placements": "fusedream_nb.method.placement",
    "Cutouts": "fusedream_nb.method.views",
    "run_from": "fusedream_nb.method",
    "fgsm": "fusedream_nb.method.attack",
    "pgd": "fusedream_nb.method.attack",
    "naive_adam": "fusedream_nb.method.baselines",
    "big_sleep": "fusedream_nb.method.baselines",
    "basin_cma": "fusedream_nb.method.search",
    "top_k": "fusedream_nb.method.latents",
    "OverParameterised": "fusedream_nb.method.latents",
    "Plain": "fusedream_nb.method.latents",
    "CLIPScore": "fusedream_nb.method.scores",
    "AugCLIP": "fusedream_nb.method.scores",
    "budget": "fusedream_nb.method.budgets",
    "claim": "fusedream_nb.notebook.claims",
    "check": "fusedream_nb.notebook.claims",
    "grid": "fusedream_nb.notebook.show",
    "live": "fusedream_nb.notebook.live",
    "checkpointed": "fusedream_nb.records.checkpoint",
    "checkpoints": "fusedream_nb.records.resume",
    "save": "fusedream_nb.records.record",
    "read_record": "fusedream_nb.records.record",
    "replay": "fusedream_nb.records.replay",
}
__all__ = sorted(_WHERE)

if TYPE_CHECKING:
    from fusedream_nb.method import run_from
    from fusedream_nb.method.attack import fgsm, pgd
    from fusedream_nb.method.baselines import big_sleep, naive_adam
    from fusedream_nb.method.budgets import budget
    from fusedream_nb.method.compose import compose
    from fusedream_nb.method.fusedream import fusedream
    from fusedream_nb.method.latents import OverParameterised, Plain, top_k
    from fusedream_nb.method.placement import Placement, Placements
    from fusedream_nb.method.run import climb
    from fusedream_nb.method.scores import AugCLIP, CLIPScore
    from fusedream_nb.method.search import basin_cma
    from fusedream_nb.method.transport import transport
    from fusedream_nb.method.views import Cutouts
    from fusedream_nb.models import load
    from fusedream_nb.notebook.claims import check, claim
    from fusedream_nb.notebook.live import live
    from fusedream_nb.notebook.show import grid
    from fusedream_nb.records.checkpoint import checkpointed
    from fusedream_nb.records.record import read_record, save
    from fusedream_nb.records.replay import replay
    from fusedream_nb.records.resume import checkpoints


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _WHERE:
        raise AttributeError(f"module 'fusedream_nb' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
