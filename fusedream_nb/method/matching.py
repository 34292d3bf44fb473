"""Names that notebooks use until they are on :mod:`.ot`."""

from typing import Any

from .ot import cost_scale as spread
from .ot import marginal_weights as shares
from .ot import mean_loss, mean_plan, sinkhorn, transport_loss

__all__ = ["mean_loss", "mean_plan", "shares", "spread", "transport_loss", "transport_plan"]


def transport_plan(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401, D103
    return sinkhorn(*arguments, **options).plan
