"""How pictures are made: runs, and what they consist of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusedream_nb.method.config import RunConfig
    from fusedream_nb.method.run import Run
    from fusedream_nb.models import Models


def run_class(method: str) -> type[Run[Any]]:
    """Return the class of a method's runs, of "" FuseDream's (the oldest records); ValueError for others."""
    from . import baselines, compose, fusedream, search, transport  # noqa: F401  their classes are now known
    from .run import Run

    method, found = method or fusedream.FusedreamRun.method, Run.__subclasses__()
    for kind in found:
        found += kind.__subclasses__()
    names = {kind.method: kind for kind in found if "method" in vars(kind)}
    if method not in names:
        raise ValueError(f"No method is called {method!r}; known are {', '.join(sorted(names))}.")
    return names[method]


def run_from(config: RunConfig, models: Models) -> Run[Any]:
    """Return a run that has not begun, of what one was asked for; raises what its method raises."""
    return run_class(config.method).from_config(config, models)
