"""What every training run shares: a clock, a log, a checkpoint that survives a kill."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class Run:
    """One training run of a fixed length in minutes, resumable from its folder.

    The schedules follow the share of the time that is used up, so a run on a faster machine is a
    longer one, not a different one. Time counts over all sessions of the run.
    """

    def __init__(self, folder: Path, minutes: float, state: dict[str, Any]) -> None:
        self.folder, self.minutes, self.state = folder, minutes, state
        self.save_every = min(120.0, 5 * minutes)  # seconds
        self.step, self.used, self.seen = 0, 0.0, 0
        self._start = self._saved = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            self.step, self.used, self.seen = saved.pop("step"), saved.pop("used"), saved.pop("seen")
            saved.pop("share")
            for name, part in saved.items():
                self.state[name].load_state_dict(part)
            print(
                f"{folder.name}: resumed at step {self.step}, {self.used / 60:.1f} minutes used", flush=True
            )

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

    def set_rate(self, optimiser: torch.optim.Optimizer, peak: float) -> None:
        """Give every parameter group the rate of this moment."""
        for group in optimiser.param_groups:
            group["lr"] = self.rate(peak)

    def tick(self, pictures: int, **numbers: Tensor | float) -> bool:
        """Count a step over so many pictures, log and save now and then; return whether to go on."""
        self.step += 1
        self.seen += pictures
        done = self.share >= 1
        if done or self.step % 50 == 0:
            row = {"step": self.step, "minutes": round(self.seconds / 60, 2), "pictures": self.seen}
            row |= {name: round(float(torch.as_tensor(v).detach()), 4) for name, v in numbers.items()}
            print(self.folder.name, json.dumps(row), flush=True)
            with (self.folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
        if done or time.monotonic() - self._saved > self.save_every:
            self.save()
        return not done

    def save(self) -> None:
        """Write the whole state, atomically."""
        self._saved = time.monotonic()
        state = {name: part.state_dict() for name, part in self.state.items()}
        clock = {"step": self.step, "used": self.seconds, "seen": self.seen, "share": self.share}
        write({**state, **clock}, self.checkpoint)


def write(value: Mapping[str, Any], path: Path) -> None:
    """Write a mapping of tensors and numbers to a temporary name, then rename it."""
    part = path.with_suffix(".part")
    torch.save(dict(value), part)
    os.replace(part, path)


class Snapshot:
    """The latest averaged weights of another run, loaded into a module whenever they are newer.

    They count once the other run has used ``share`` of its time.
    """

    def __init__(self, folder: Path, module: nn.Module, device: torch.device, share: float = 0.0) -> None:
        self.folder, self.share = folder, share
        self.module = module.to(device).eval().requires_grad_(False)
        self._time = 0.0

    @property
    def ready(self) -> bool:
        """Whether weights were ever loaded."""
        return self._time > 0

    def refresh(self) -> bool:
        """Load newer weights if there are any; return whether the module is ready."""
        path = self.folder / "checkpoint.pt"
        if path.exists() and path.stat().st_mtime > self._time:
            moment = path.stat().st_mtime
            saved = torch.load(path, map_location="cpu", weights_only=True)
            if saved["share"] < self.share:
                return self.ready
            self.module.load_state_dict(saved["average"])
            self.module.eval()
            self._time = moment
        return self.ready


@torch.no_grad()
def ema_update(average: nn.Module, model: nn.Module, step: int, decay: float = 0.998) -> None:
    """Move an exponential moving average of weights and buffers one step towards a model."""
    weight = 1 - min(decay, (step + 1) / (step + 20))
    mine, theirs = average.state_dict(), model.state_dict()
    floats = [name for name, value in mine.items() if value.is_floating_point()]
    torch._foreach_lerp_([mine[name] for name in floats], [theirs[name] for name in floats], weight)
    for name in mine.keys() - set(floats):
        mine[name].copy_(theirs[name])
