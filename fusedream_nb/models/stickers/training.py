"""What every training run shares: a clock, a log, a checkpoint that survives a kill."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import torch


class Run:
    """One training run of a fixed length in minutes, resumable from its folder.

    The schedules follow the share of the time that is used up, so a run on a faster machine is a
    longer one, not a different one. Time counts over all sessions of the run.
    """

    def __init__(self, folder: Path, minutes: float, state: dict[str, Any]) -> None:
        self.folder, self.minutes, self.state = folder, minutes, state
        self.step, self.used = 0, 0.0
        self._start = self._saved = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            self.step, self.used = saved.pop("step"), saved.pop("used")
            for name, part in saved.items():
                self.state[name].load_state_dict(part)
            print(f"resumed at step {self.step}, {self.used / 60:.1f} minutes used", flush=True)

    @property
    def checkpoint(self) -> Path:
        """The file that holds the whole state."""
        return self.folder / "checkpoint.pt"

    @property
    def seconds(self) -> float:
        """Seconds used so far, over all sessions."""
        return self.used + time.monotonic() - self._start

    @property
    def share(self) -> float:
        """Share of the run's time that is used up, in [0, 1]."""
        return min(1.0, self.seconds / (60 * self.minutes))

    def rate(self, peak: float, warmup: int = 100) -> float:
        """Return the learning rate: linear warm-up in steps, then a cosine in time."""
        cosine = 0.5 * (1 + math.cos(math.pi * self.share))
        return peak * min(1.0, (self.step + 1) / warmup) * max(0.01, cosine)

    def tick(self, **numbers: float) -> bool:
        """Count a step, log now and then, save every two minutes; return whether to go on."""
        self.step += 1
        done = self.share >= 1
        if done or self.step % 25 == 0:
            row = {"step": self.step, "minutes": round(self.seconds / 60, 2)}
            row |= {name: round(float(value), 4) for name, value in numbers.items()}
            print(json.dumps(row), flush=True)
            with (self.folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
        if done or time.monotonic() - self._saved > 120:
            self.save()
        return not done

    def save(self) -> None:
        """Write the whole state to a temporary name, then rename it."""
        self._saved = time.monotonic()
        state = {name: part.state_dict() for name, part in self.state.items()}
        part = self.checkpoint.with_suffix(".part")
        torch.save({**state, "step": self.step, "used": self.seconds}, part)
        os.replace(part, self.checkpoint)


def ema_update(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    """Move an exponential moving average of weights and buffers one step towards a model."""
    with torch.no_grad():
        for a, b in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
            if a.is_floating_point():
                a.lerp_(b, 1 - decay)
            else:
                a.copy_(b)
