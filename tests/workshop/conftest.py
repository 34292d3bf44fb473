"""The workshop's builder, which is no part of the package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

SPEC = importlib.util.spec_from_file_location(
    "workshop_build", Path(__file__).parents[2] / "workshop" / "build.py"
)
sys.modules["workshop_build"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(sys.modules["workshop_build"])
