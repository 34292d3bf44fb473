"""Names that notebooks use until they are on :mod:`.ot`."""

from .ot import cost_scale as spread
from .ot import marginal_weights as shares
from .ot import mean_loss, mean_plan, sinkhorn, transport_loss

__all__ = ["mean_loss", "mean_plan", "shares", "spread", "transport_loss", "transport_plan"]


def transport_plan(*arguments, **options):  # noqa: ANN002, ANN003, ANN201, D103
    return sinkhorn(*arguments, **options).plan
