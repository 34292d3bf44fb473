"""What a notebook runs on."""

from __future__ import annotations

import os


def machine() -> str:
    """Return the GPU's name and memory or, where there is none, what to do about it."""
    import torch

    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        return f"GPU: {gpu.name}, {gpu.total_memory / 1e9:.0f} GB"
    if torch.backends.mps.is_available():
        return "GPU: Apple's"
    click = ": choose Runtime, Change runtime type, T4 GPU" if "COLAB_RELEASE_TAG" in os.environ else ""
    return f"No GPU. The stickers need none; other models are slow without one{click}."
