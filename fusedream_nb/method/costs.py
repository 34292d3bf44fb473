"""Names that notebooks use until they are on :mod:`.ot`."""

from .ot import cosine, find_distance, geodesic, pull_back, push_forward, squared

__all__ = ["cosine", "find_distance", "geodesic", "pull_back", "push_forward", "squared"]
