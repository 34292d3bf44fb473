"""Names that notebooks use until they are on :mod:`.views`."""

from .views import Cutouts, Places, cut

__all__ = ["Cutouts", "Places", "cut"]
