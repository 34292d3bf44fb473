"""What FuseDream is compared with: naive Adam on CLIP, and BigSleep.

BigSleep has no paper. What it does and its numbers are those of github.com/lucidrains/big-sleep, the
repository that FuseDream cites.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fusedream_nb.models import Models
from fusedream_nb.models.encoders import Clip
from fusedream_nb.models.generators import ClassConditional, Generator, Latent

from .config import RunConfig, Seeds, Sizes, Texts, configure
from .fusedream import FIXED_SEED
from .latents import Parameterisation, Plain
from .run import Run, State, Step
from .scores import CLIPScore, Score
from .views import Rng

BIG_SLEEP_LR = 0.07
LOGITS = 0.3  # standard deviation of the class logits at the start
TEMPERATURE = 2.0  # of the classes' softmax
DECAY = 0.99  # of the moving average
CROP = (0.8, 0.3, 0.5, 0.95)  # a crop's share of the side: mean, std, least, most
SIMILARITY = 100.0  # the cosine's weight against that of the latents' own law


def naive_adam(
    prompt: Texts, models: Models, *, seed: Seeds = 0, budget: Sizes = None, **sizes: float | None
) -> NaiveAdamRun:
    """Return a run that maximises the plain CLIP score by Adam from one random latent (FuseDream, Eq. 2).

    Prompts, seeds and ``sizes`` are as in ``fusedream``; ``steps`` None takes the budget's
    ``equal_steps``, which cost the generator what a run of FuseDream costs it.
    Raises ValueError, before any work, for an empty prompt or numbers out of range.
    """
    return NaiveAdamRun(models, _equal(configure("naive_adam", prompt, seed, budget, sizes, models), sizes))


def big_sleep(
    prompt: Texts, models: Models, *, seed: Seeds = 0, budget: Sizes = None, **sizes: float | None
) -> BigSleepRun:
    """Return a run that maximises CLIP over random crops, with one latent per layer: BigSleep.

    Arguments are as in :func:`naive_adam`; ``copies`` are the crops. A Step's ``best_image`` is the best
    picture of the latents' moving average, which is BigSleep's result, and not of the latents themselves.
    Raises ValueError as :func:`naive_adam`, and TypeError for a generator without a latent per layer.
    """
    sizes = {"lr": BIG_SLEEP_LR, **sizes}
    return BigSleepRun(models, _equal(configure("big_sleep", prompt, seed, budget, sizes, models), sizes))


def _equal(config: RunConfig, sizes: Mapping[str, Any]) -> RunConfig:
    """Return a RunConfig whose steps, unless they are given, cost what a run of FuseDream costs."""
    steps = config.budget.equal_steps if sizes.get("steps") is None else config.budget.steps
    return replace(config, budget=replace(config.budget, steps=steps))


class NaiveAdamRun(Run[Step]):
    """A run of :func:`naive_adam`."""

    method = "naive_adam"

    def __init__(self, models: Models, config: RunConfig) -> None:
        self.models, self.config = models, config
        score = CLIPScore(models.clip, config.prompts)
        super().__init__(models.generator, score, **config.loop(), prompt=config.prompts)
        self.worded = [score]

    def begin(self) -> Parameterisation:
        """Return one random latent for each picture."""
        return Plain(Latent.cat([self.generator.sample(1, rng) for rng in self.rngs]))


class BigSleepRun(Run[Step]):
    """A run of :func:`big_sleep`."""

    method = "big_sleep"

    def __init__(self, models: Models, config: RunConfig) -> None:
        if not isinstance(models.generator, ClassConditional):
            reads = "BigSleep requires a BigGAN-deep or a BigGAN, which read a latent per layer"
            raise TypeError(f"{reads}; {models.name} does not.")
        self.models, self.config, self.deep = models, config, models.generator
        sizes, prompts = config.budget, config.prompts
        fixed = draw_crops(1, sizes.judged_copies, torch.Generator().manual_seed(FIXED_SEED))
        self.fixed = CropCLIP(models.clip, prompts, sizes.judged_copies, fixed=fixed)
        self.crops, self.likely = CropCLIP(models.clip, prompts, sizes.copies), _Likely()
        score = self.crops + self.likely * (1 / SIMILARITY)
        super().__init__(self.deep, score, **config.loop(), fixed_score=self.fixed, prompt=prompts)
        self.worded = [self.crops, self.fixed]

    def begin(self) -> LayerLatents:
        """Return random latents, one per layer."""
        return self._averaged(LayerLatents.start(self.deep, self.rngs))

    def restored(self, tensors: list[Tensor]) -> LayerLatents:
        """Return a saved run's latents."""
        z, logits = tensors
        return self._averaged(LayerLatents(z, logits, self.deep.embeddings))

    def _averaged(self, latents: LayerLatents) -> LayerLatents:
        self.likely.latents, self.average = latents, Average(latents.parameters(), DECAY)
        return latents

    def keep_best(self, shown: dict[str, Tensor], score: Tensor | None = None) -> None:
        """Update the moving average, and keep its picture where that is better."""
        self.average.update(self.likely.latents.parameters())
        if self.checks:
            with torch.no_grad():
                z, logits = self.average.value
                image = self.generator.decode(LayerLatents(z, logits, self.deep.embeddings).combine())
            super().keep_best({"image": image}, score)

    def state_dict(self) -> State:
        """Return copies of all that the run's future depends on."""
        return super().state_dict() | {"average": deepcopy(vars(self.average))}

    def load_state_dict(self, state: State) -> None:
        """Go to a saved state; see :meth:`Run.load_state_dict`."""
        super().load_state_dict(state)
        vars(self.average).update(deepcopy(state["average"]))


class LayerLatents:
    """BigSleep's latents for n runs: z [n, layers, dim], and class logits [n, layers, classes].

    The class embedding of a layer is Σ softmax(logits / 2) e over the generator's embeddings e
    [classes, dim]: it stays among the classes.
    """

    def __init__(self, z: Tensor, logits: Tensor, embeddings: Tensor) -> None:
        self.z, self.logits, self.embeddings = z, logits, embeddings

    @classmethod
    def start(cls, generator: ClassConditional, rngs: Sequence[torch.Generator]) -> LayerLatents:
        """Sample z ~ N(0, I) and logits ~ N(0, 0.09 I), each run's from its own generator of randomness."""
        embeddings, layers = generator.embeddings, generator.layers
        z = torch.stack([torch.randn(layers, generator.z_dim, generator=rng) for rng in rngs])
        logits = torch.stack([torch.randn(layers, len(embeddings), generator=rng) for rng in rngs])
        latents = cls(z.to(embeddings.device), LOGITS * logits.to(embeddings.device), embeddings)
        latents.project_(generator)
        return latents

    def parameters(self) -> list[Tensor]:
        """Return z and the logits."""
        return [self.z, self.logits]

    def classes(self) -> Tensor:
        """Return each layer's weights of the classes [n, layers, classes]: above 0, their sum is 1."""
        return (self.logits / TEMPERATURE).softmax(-1)

    def combine(self) -> Latent:
        """Return the latent z, y [n, layers, dim], differentiably."""
        return Latent(self.z.clone(), self.classes() @ self.embeddings)

    @torch.no_grad()
    def project_(self, generator: Generator) -> None:
        """Clamp z to the generator's valid set, in place."""
        self.z.copy_(generator.project(Latent(self.z)).z)


class Average:
    """The moving average of tensors, Σᵢ dᵗ⁻ⁱ xᵢ / Σᵢ dᵗ⁻ⁱ over the updates i = 1 … t, for a decay d."""

    def __init__(self, tensors: Sequence[Tensor], decay: float) -> None:
        self.decay, self.weight = decay, 0.0
        self.value = [torch.zeros_like(t) for t in tensors]

    @torch.no_grad()
    def update(self, tensors: Sequence[Tensor]) -> None:
        """Take in the tensors as they stand now."""
        self.weight = self.decay * self.weight + 1
        for mean, tensor in zip(self.value, tensors, strict=True):
            mean.lerp_(tensor, 1 / self.weight)


class CropCLIP(Score):
    """The mean CLIP score over random square crops of the image, in [-1, 1].

    A crop's side is N(0.8, 0.3²) of the image's, clipped to [0.5, 0.95], its place uniform. ``fixed``
    [1, crops, 3] gives the same crops at every call instead.
    """

    def __init__(self, clip: Clip, text: Texts, crops: int, *, fixed: Tensor | None = None) -> None:
        self.clip, self.text, self.crops, self.fixed = clip, clip.encode_text(text), crops, fixed

    def __call__(self, image: Tensor, rng: Rng) -> Tensor:
        """Return the mean cosine [n] over each image's crops."""
        n = len(image)
        numbers = draw_crops(n, self.crops, rng) if self.fixed is None else self.fixed.expand(n, -1, -1)
        vectors = self.clip.encode_image(crop(image, numbers, self.clip.size))
        return (vectors.view(n, numbers.shape[1], -1).mean(1) * self.text).sum(-1)


def draw_crops(n: int, crops: int, rng: Rng) -> Tensor:
    """Sample the crops of n images, [n, crops, 3]: share of the side, and left and top as shares of it."""
    rngs = [rng] * n if isinstance(rng, torch.Generator) else rng
    mean, std, least, most = CROP
    normal = torch.stack([torch.randn(crops, 1, generator=g, device=g.device) for g in rngs])
    place = torch.stack([torch.rand(crops, 2, generator=g, device=g.device) for g in rngs])
    share = (mean + std * normal).clamp(least, most)
    return torch.cat([share, place * (1 - share)], -1)


def crop(image: Tensor, crops: Tensor, size: int) -> Tensor:
    """Return the crops [n * crops, 3, size, size] of images [n, 3, h, w], differentiably."""
    share, left, top = crops.to(image.device).flatten(0, 1).unbind(-1)
    none = torch.zeros_like(share)
    rows = [share, none, 2 * left + share - 1, none, share, 2 * top + share - 1]
    maps = torch.stack(rows, -1).view(-1, 2, 3)
    grid = F.affine_grid(maps, [len(share), 3, size, size], align_corners=False)
    copies = image.repeat_interleave(crops.shape[1], 0)
    return F.grid_sample(copies, grid, padding_mode="border", align_corners=False)


class _Likely(Score):
    """Minus BigSleep's two losses on its latents: z unlike N(0, I), and classes beside the first."""

    latents: LayerLatents

    def __call__(self, image: Tensor, rng: Rng) -> Tensor:
        classes = self.latents.classes()
        others = classes.topk(classes.shape[-1] - 1, largest=False).values
        return -departure(self.latents.z) - (50 * others).square().mean((1, 2))


def departure(z: Tensor) -> Tensor:
    """Return how far the moments of z [n, layers, dim] are from those of N(0, I): [n], 0 at the least."""
    mean, std = z.mean(-1), z.std(-1)
    normed = (z - mean[..., None]) / z.std(-1, correction=0)[..., None]
    skew, kurtosis = normed.pow(3).mean(-1), normed.pow(4).mean(-1) - 3
    moments = (1 - std).abs() + mean.abs() + skew.abs() + kurtosis.abs()
    return moments.mean(-1) + 4 * (z.square().mean((1, 2)) - 1).relu()
