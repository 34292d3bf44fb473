"""A method of one's own in one file: the rest of the house works with it, through a kill too."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

import fusedream_nb as fd
from fusedream_nb.method.budgets import Budget
from fusedream_nb.method.config import RunConfig, configure
from fusedream_nb.method.run import Run, Step
from fusedream_nb.method.scores import AugCLIP, Score
from fusedream_nb.models import Models
from fusedream_nb.records import jobs, png
from fusedream_nb.records.record import describe, read_record, save

TINY = Budget("tiny", M=2, k=1, steps=12, copies=2, lr=0.05, start_copies=1, judged_copies=2)


class Mirrored(Score):
    """AugCLIP, less what a picture differs from its mirror image."""

    def __init__(self, words: AugCLIP) -> None:
        self.words = words

    def __call__(self, image: torch.Tensor, rng: object) -> torch.Tensor:
        return self.words(image, rng) - (image - image.flip(-1)).abs().mean((1, 2, 3))


class MirroredRun(Run[Step]):
    """A run that climbs symmetric pictures by the signs of the gradient."""

    method, together = "mirrored", 2

    def __init__(self, models: Models, config: RunConfig) -> None:
        self.models, self.config = models, config
        rngs = [torch.Generator().manual_seed(seed) for seed in config.seeds]
        score = Mirrored(AugCLIP(models.clip, config.prompts, config.budget.copies))
        sizes = {"steps": config.budget.steps, "lr": config.budget.lr}
        super().__init__(models.generator, score, rngs, **sizes, prompt=config.prompts)
        self.worded = [score.words]

    def begin(self) -> fd.Plain:
        latents = [self.generator.sample(1, rng) for rng in self.rngs]
        return fd.Plain(type(latents[0]).cat(latents))

    def direction(self, gradient):
        return [-g.sign() for g in gradient]


def mirrored(prompt, models, seed=0, budget=TINY):
    return MirroredRun(models, configure("mirrored", prompt, seed, budget, {}))


def through(run, knobs=None):
    for step in run:
        run.set(**(knobs or {}).get(step.index, {}))
    return step


def test_it_is_iterated_steered_saved_and_replayed(models: Models, tmp_path: Path) -> None:
    plain, steered = through(mirrored("a dog", models)), mirrored("a dog", models)
    last = through(steered, {3: {"lr": 0.01}})
    assert last.index == 12 and not torch.equal(last.image, plain.image)
    ((image, told),) = describe(steered)
    path = save(image, told, tmp_path)
    assert read_record(path).method == "mirrored"
    assert fd.replay(path)[1] == 0


def test_it_is_shown_live(models: Models, tmp_path: Path) -> None:
    session = fd.live(mirrored("a dog", models), mode="inline", panel=True, out=tmp_path)
    session.advance()
    session.set(lr=0.01)
    assert session.result().index == 12
    assert session.save()[0].exists()


def test_killed_it_is_resumed_to_the_bit_and_filmed(models: Models, tmp_path: Path) -> None:
    asked = jobs.job(["a dog"], [3, 4], None, "cpu", TINY, method="mirrored", film=True)
    for name in ("whole", "killed"):
        if name == "killed":
            child = subprocess.Popen(
                [sys.executable, __file__, json.dumps(asdict(asked)), str(tmp_path / name)]
            )
            while not list((tmp_path / name).glob(".unfinished-*/batch-0/frame-00000005-*.png")):
                assert child.poll() is None  # it is killed on its way, not after its end
                time.sleep(0.005)
            child.kill()
            child.wait()
            assert not list((tmp_path / name).glob("*.png"))
        draw(asked, models, tmp_path / name)
    files = [{p.name: p for p in sorted((tmp_path / name).iterdir())} for name in ("whole", "killed")]
    assert files[0].keys() == files[1].keys()
    assert {Path(name).suffix for name in files[0]} >= {".png", ".json", ".gif"}
    for name, path in files[0].items():
        if path.suffix == ".png":
            assert (png.decode(path)[0] == png.decode(files[1][name])[0]).all()
        elif path.suffix == ".gif":
            assert path.read_bytes() == files[1][name].read_bytes()  # the frames from before the kill too


def draw(asked: jobs.Job, models: Models, out: Path, pause: float = 0.0) -> None:
    jobs.draw(asked, models, out, [], every=0, watch=lambda prompts: lambda step: time.sleep(pause))


if __name__ == "__main__":
    draw(jobs.Job(**json.loads(sys.argv[1])), fd.load(device="cpu"), Path(sys.argv[2]), pause=0.1)
