"""How pictures are made: runs, and what they consist of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusedream_nb.method.config import RunConfig
    from fusedream_nb.method.run import Run
    from fusedream_nb.models import Models


def run_class(method: str) -> type[Run[Any]]:
    """Return the class of a method's runs, yours too if it is imported; ValueError listing the known ones.

    Records that name none are the oldest, when there was but FuseDream.
    """
    from . import baselines, compose, fusedream, search, transport  # noqa: F401  their classes are now known
    from .run import Run

    method = method or fusedream.FusedreamRun.method

    found: list[type[Run[Any]]] = [Run]
    names: dict[str, type[Run[Any]]] = {}
    while found:
        kind = found.pop()
        found += kind.__subclasses__()
        names |= {kind.method: kind} if "method" in vars(kind) and kind is not Run else {}
    if method not in names:
        raise ValueError(f"No method is called {method!r}; known are {', '.join(sorted(names))}.")
    return names[method]


def run_from(config: RunConfig, models: Models) -> Run[Any]:
    """Return a run that has not begun, of what one was asked for; raises what its method raises."""
    return run_class(config.method).from_config(config, models)
