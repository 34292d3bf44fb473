"""Names that notebooks use until they are on :mod:`.views`."""

from .views import ALL, Draw, augment, draw, strengths

__all__ = ["ALL", "Draw", "augment", "draw", "strengths"]
