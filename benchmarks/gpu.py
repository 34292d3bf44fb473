"""FuseDream on one GPU at the papers' shapes, random weights: the plain loop beside ours.

    python benchmarks/gpu.py --out gpu.json           # within 90 seconds on an H100
    python benchmarks/gpu.py --tiny --out gpu.json    # the same on a CPU with small shapes, to test this file

A start is counted by the sample, a step by the picture; each is a median, and ends when the GPU is done. The
plain loop is that of ``plain_loop.py``: float32 as its authors run it, and under autocast for comparison. Our
step is that of a run without its bookkeeping. Its share of the card is the work that the *plain* networks
need, whatever we spare of it, over the card's measured rate of bfloat16 products. Peak memory is that of one
loop alone, of the allocator (on a CPU of the whole process so far). A table is
printed last; a part that fails or that begins after the limit is named there, and the others go on.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import platform
import resource
import sys
import time
import traceback
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from plain_loop import PlainBigGAN, PlainLoop
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fusedream_nb.method import views
from fusedream_nb.method.scores import AugCLIP
from fusedream_nb.models.biggan import SHAPES, Affine, BigGAN, Network, Shape
from fusedream_nb.models.encoders import Clip
from fusedream_nb.models.generators import Latent

PROMPT = "a photo of a blue dog"
BASIS = 5  # basis latents of a step
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
GMAC = {256: 80.3, 512: 119.6}  # of BigGAN, one picture forwards
CLIP_GMAC = 4.41  # of ViT-B/32, one picture forwards
TINY = {
    256: Shape((2, 2, 1, 1), attention=16, chunk=4, channels=16, embedding=8, classes=10),
    512: Shape((2, 2, 1, 1, 1), attention=16, chunk=4, channels=16, embedding=8, classes=10),
}
BARS = {  # name: the bar, whether it is the least (else the most)
    "start, times the plain loop": (8.0, True),
    "step, times the plain loop": (5.0, True),
    "share of the bfloat16 rate in a step": (0.25, True),
    "peak GB at 512 pixels, 50 copies": (8.0, False),
}


class Ours:
    """FuseDream on a BigGAN of a shape: ``start`` ranks ``samples``, ``step`` climbs one picture."""

    def __init__(self, shape: Shape, network: nn.Module, on: Bench, dtype: torch.dtype) -> None:
        with on.device:
            drawn = Network(shape)
            embeddings = torch.randn(shape.classes, shape.embedding) * 0.05
        for part in drawn.modules():  # gains about one, as in a trained network, not about zero
            if isinstance(part, Affine):
                part.linear.bias.data.chunk(2)[0].add_(1)
        self.generator = BigGAN(drawn, embeddings).to(on.device, dtype)
        tokenizer = open_clip.get_tokenizer("ViT-B-32-quickgelu")
        self.clip = Clip(deepcopy(network), tokenizer, name="ViT-B/32, random").to(on.device, dtype)
        self.rng, self.samples = torch.Generator().manual_seed(0), on.samples
        self.score = AugCLIP(self.clip, PROMPT, on.copies)
        self.fixed = views.sample(1, on.copies, self.rng).to(on.device)
        basis = self.generator.sample(BASIS, self.rng)
        self.moved = [torch.full((BASIS, 1), 1 / BASIS, device=on.device), *basis.tensors()]
        self.adam = torch.optim.Adam([part.requires_grad_() for part in self.moved], lr=5e-3)

    def _picture(self) -> Tensor:
        weights, z, y = self.moved
        return self.generator.decode(Latent((weights * z).sum(0, keepdim=True), (weights * y).sum(0)[None]))

    @torch.no_grad()
    def start(self) -> None:
        """Rank the samples."""
        seen = self.clip.encode_image(self.generator.decode(self.generator.sample(self.samples, self.rng)))
        (seen @ self.score.text.T).topk(min(BASIS, self.samples), 0).values.cpu()

    def step(self) -> None:
        """Climb one step; the score is looked at, as a run does."""
        value = self.score(self._picture(), self.rng)
        if not math.isfinite(float(value.detach())):
            raise FloatingPointError("The score is not a finite number.")
        self.adam.zero_grad(set_to_none=True)
        value.sum().neg().backward()
        self.adam.step()
        with torch.no_grad():
            self.moved[1].clamp_(-2, 2)

    def slopes(self) -> list[Tensor]:
        """Return the gradients in weights, z and y, on augmentations that stay the same."""
        score = AugCLIP(self.clip, PROMPT, self.fixed.count, fixed=self.fixed)
        return list(torch.autograd.grad(score(self._picture(), self.rng).sum(), self.moved))


class Plain:
    """The plain loop, ten samples a start; below float32 under autocast."""

    def __init__(self, shape: Shape, network: nn.Module, on: Bench, dtype: torch.dtype) -> None:
        with on.device:
            drawn = PlainBigGAN(shape)
        tokens = open_clip.get_tokenizer("ViT-B-32-quickgelu")([PROMPT]).to(on.device)
        clip = deepcopy(network).eval().requires_grad_(False).to(on.device)
        self.loop, self.samples = PlainLoop(drawn, clip, tokens, BASIS, on.copies), 10
        self.dtype = dtype

    def start(self) -> None:
        """Rank ten samples."""
        with torch.autocast(self.loop.z.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            self.loop.start()

    def step(self) -> None:
        """Climb one step."""
        with torch.autocast(self.loop.z.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            self.loop.step()


Kind = type[Ours] | type[Plain]


class Bench:
    """The measurements, and where they are written."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.tiny, self.began = given, given.tiny, time.monotonic()
        self.device = torch.device("cpu" if given.tiny or not torch.cuda.is_available() else "cuda")
        self.copies: int = 4 if given.tiny else given.copies
        self.samples = 4 if given.tiny else 32  # of our start, at a time
        self.shapes = TINY if given.tiny else {size: SHAPES[size] for size in TINY}
        self.network = self._clip()
        self.slopes: dict[str, list[Tensor]] = {}
        gpu = self.device.type == "cuda"
        self.told: dict[str, Any] = {
            "machine": torch.cuda.get_device_name() if gpu else f"{torch.get_num_threads()} CPU threads",
            "torch": torch.__version__,
            "cudnn": torch.backends.cudnn.version() if gpu else None,
            "python": platform.python_version(),
            "tf32_convolutions": torch.backends.cudnn.allow_tf32,
            "tf32_products": torch.backends.cuda.matmul.allow_tf32,
            "copies": self.copies,
            "matmul_tflop_s": {},
            "rows": [],
            "failures": {},
        }

    def _clip(self) -> nn.Module:
        if not self.tiny:
            return open_clip.create_model("ViT-B-32-quickgelu", pretrained=None)
        image = {"image_size": 224, "patch_size": 32, "width": 64, "layers": 2, "head_width": 32}
        return open_clip.CLIP(32, image, {"width": 64, "heads": 2, "layers": 1}, quick_gelu=True)

    def wait(self) -> None:
        """Wait until the GPU is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, act: Callable[[], object], warm: int = 3) -> float:
        """Return the median seconds of an act, of three at least, then until the part's time is over."""
        taken: list[float] = []
        for _ in range(warm):
            act()
        self.wait()
        while len(taken) < 3 or (sum(taken) < self.given.seconds and len(taken) < 500):
            began = time.perf_counter()
            act()
            self.wait()
            taken.append(time.perf_counter() - began)
        return sorted(taken)[len(taken) // 2]

    def part(self, act: Callable[..., None], *args: Any) -> None:  # noqa: ANN401
        """Run a part; tell what failed, and write down what there is."""
        name = " ".join([act.__name__, *(getattr(arg, "__name__", str(arg)) for arg in args)])
        at = time.monotonic() - self.began
        if at > self.given.limit:
            self.told["failures"][name] = f"not begun: {self.given.limit:g} seconds were over"
            return
        try:
            act(*args)
        except Exception as error:  # noqa: BLE001  one failure must not lose the others
            self.told["failures"][name] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.told["seconds"] = time.monotonic() - self.began
        print(f"{at:5.1f} to {self.told['seconds']:5.1f} s: {name}", file=sys.stderr, flush=True)
        if self.given.out:
            self.given.out.write_text(json.dumps(self.told, indent=1) + "\n")

    def rate(self, precision: str) -> None:
        """Measure the rate of square matrix products, TFLOP a second."""
        side = 8192 if self.device.type == "cuda" else 256
        a, b = (torch.randn(side, side, device=self.device).to(DTYPES[precision]) for _ in range(2))
        self.told["matmul_tflop_s"][precision] = 2 * side**3 / self.seconds(lambda: a @ b) / 1e12

    def loop(self, kind: Kind, size: int, precision: str) -> None:
        """Measure a loop: a step with its memory and share of the card; at 256 pixels a start."""
        torch.manual_seed(0)
        loop, start = kind(self.shapes[size], self.network, self, DTYPES[precision]), size == 256
        if isinstance(loop, Ours) and start:
            self.slopes[precision] = loop.slopes()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        row: dict[str, Any] = {"loop": kind.__name__.lower(), "size": size}
        row |= {"precision": precision, "step_s": self.seconds(loop.step), "peak_gb": self.peak()}
        self.told["rows"].append(row)
        if start:
            row["start_s_a_sample"] = self.seconds(loop.start) / loop.samples
            row["peak_gb_start"] = self.peak()
        with FlopCounterMode(display=False) as counter:
            loop.step()
        row["executed_tflop"] = counter.get_total_flops() / 1e12
        macs = GMAC[size] + self.copies * CLIP_GMAC  # once forwards, once back to the picture or the latents
        row["needed_tflop"] = row["executed_tflop"] if self.tiny else 2 * 2 * macs / 1e3
        rate = self.told["matmul_tflop_s"].get("bfloat16")
        row["share_of_bfloat16"] = row["needed_tflop"] / row["step_s"] / rate if rate else None

    def peak(self) -> float:
        """Return the peak of memory, GB."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 1e9
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6

    def cosines(self) -> None:
        """Compare the gradients of a step, on the same networks and augmentations, with float32's."""
        self.told["gradient_cosine_with_float32"] = {
            precision: [
                float(F.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0))
                for a, b in zip(mine, self.slopes["float32"], strict=True)
            ]
            for precision, mine in self.slopes.items()
        }

    def profile(self) -> None:
        """Tell where the GPU's time goes in a step, and how many kernels it launches."""
        from torch.profiler import ProfilerActivity, profile

        gpu, steps = self.device.type == "cuda", 3
        ours = Ours(self.shapes[256], self.network, self, torch.bfloat16 if gpu else torch.float32)
        for _ in range(steps):
            ours.step()
        wanted = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if gpu else [ProfilerActivity.CPU]
        with profile(activities=wanted) as report:
            for _ in range(steps):
                ours.step()
            self.wait()
        name = "self_device_time_total" if gpu else "self_cpu_time_total"
        where = self.device.type.upper()
        events = [
            event
            for event in report.key_averages()
            if str(event.device_type).endswith(where) and not getattr(event, "is_user_annotation", False)
        ]
        events.sort(key=lambda e: -getattr(e, name))
        self.told["profile"] = {
            "launches_a_step": sum(e.count for e in events) / steps,
            "busy_s_a_step": sum(getattr(e, name) for e in events) / steps / 1e6,
            "longest": [[e.key[:110], getattr(e, name) / steps / 1e3, e.count / steps] for e in events[:30]],
            "columns": ["kernel", "milliseconds a step", "times a step"],
        }

    def graph(self) -> None:
        """Time a step's way there and back as one CUDA graph: what is left without the launches."""
        if self.device.type != "cuda":
            return
        ours = Ours(self.shapes[256], self.network, self, torch.bfloat16)
        eager = self.seconds(ours.slopes)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                ours.slopes()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            ours.slopes()
        self.told["slopes_s"] = {"one by one": eager, "as a graph": self.seconds(graph.replay)}

    def find(self, loop: str, size: int, precision: str, number: str) -> float:
        """Return a number of a row, NaN where it was not measured."""
        keys = {"loop": loop, "size": size, "precision": precision}
        rows = [row for row in self.told["rows"] if keys.items() <= row.items()]
        return rows[0].get(number, math.nan) or math.nan if rows else math.nan

    def judge(self) -> None:
        """Hold what was measured to the bars."""
        ours, plain, large = ("ours", 256, "bfloat16"), ("plain", 256, "float32"), ("ours", 512, "bfloat16")
        found = (
            self.find(*plain, "start_s_a_sample") / self.find(*ours, "start_s_a_sample"),
            self.find(*plain, "step_s") / self.find(*ours, "step_s"),
            self.find(*ours, "share_of_bfloat16"),
            self.find(*large, "peak_gb"),
        )
        self.told["bars"] = {
            name: {
                "bar": bar,
                "measured": None if math.isnan(value) else value,
                "met": None if math.isnan(value) else value >= bar if least else value <= bar,
            }
            for (name, (bar, least)), value in zip(BARS.items(), found, strict=True)
        }

    def table(self) -> str:
        """Return everything as Markdown."""
        told, lines = self.told, ["Small shapes: the numbers say nothing."] if self.tiny else []
        rates = ", ".join(f"{rate:.4g} in {name}" for name, rate in told["matmul_tflop_s"].items())
        lines += [f"{told['machine']}, PyTorch {told['torch']}; matrix products, TFLOP/s: {rates}.", ""]
        lines += [
            f"| BigGAN, ViT-B/32, {self.copies} copies | start, ms a sample | times | step, ms | times "
        ]
        lines[-1] += "| share of bfloat16 | peak GB | minutes for 10,000 samples and 1,000 steps |"
        lines += ["|" + "---|" * 8]
        for row in told["rows"]:
            start, step = row.get("start_s_a_sample", math.nan), row["step_s"]
            plain = {n: self.find("plain", row["size"], "float32", n) for n in ("start_s_a_sample", "step_s")}
            numbers = [
                f"{start * 1e3:.2f}",
                f"{plain['start_s_a_sample'] / start:.1f}",
                f"{step * 1e3:.1f}",
                f"{plain['step_s'] / step:.1f}",
                f"{row.get('share_of_bfloat16') or math.nan:.1%}",
                f"{row['peak_gb']:.2f}",
                f"{(1e4 * start + 1e3 * step) / 60:.2f}",
            ]
            name = f"{row['size']} pixels, {row['loop']}, {row['precision']}"
            lines += [f"| {name} | {' | '.join(numbers)} |".replace("nan%", "–").replace("nan", "–")]
        lines += ["", "| bar | | measured | |", "|---|---|---|---|"]
        for name, bar in told.get("bars", {}).items():
            sign = "≥" if BARS[name][1] else "≤"
            met = {True: "met", False: "**missed**", None: "not measured"}[bar["met"]]
            value = "–" if bar["measured"] is None else f"{bar['measured']:.3g}"
            lines += [f"| {name} | {sign} {bar['bar']:g} | {value} | {met} |"]
        profile, slopes = told.get("profile"), told.get("slopes_s")
        if profile:
            busy = profile["busy_s_a_step"] * 1e3
            lines += ["", f"A step launches {profile['launches_a_step']:.0f} kernels, {busy:.1f} ms of work."]
            lines += [f"- {ms:.3f} ms, {n:.0f} times: {key}" for key, ms, n in profile["longest"][:10]]
        if slopes:
            lines += [
                "",
                "A step's gradient: " + ", ".join(f"{v * 1e3:.2f} ms {k}" for k, v in slopes.items()),
            ]
        cosines = told.get("gradient_cosine_with_float32", {})
        for name, (weights, z, y) in cosines.items():
            lines += [f"Gradient in {name} beside float32, cosine: w {weights:.4f}, z {z:.4f}, y {y:.4f}."]
        lines += [f"NOT MEASURED, {name}: {why}" for name, why in told["failures"].items()]
        return "\n".join(lines)


def main() -> None:
    """Measure, the most wanted first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON, written anew after each part")
    parser.add_argument("--copies", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=1.5, help="for each number, at least three times")
    parser.add_argument("--limit", type=float, default=75.0, help="no part begins after so many seconds")
    parser.add_argument("--tiny", action="store_true", help="small shapes on the CPU: to test this file")
    given = parser.parse_args()
    given.seconds = min(given.seconds, 0.1) if given.tiny else given.seconds
    bench = Bench(given)
    for name in DTYPES:
        bench.part(bench.rate, name)
    bench.part(bench.loop, Ours, 256, "bfloat16")
    bench.part(bench.loop, Plain, 256, "float32")
    bench.part(bench.loop, Ours, 512, "bfloat16")
    bench.part(bench.loop, Ours, 256, "float16")
    bench.part(bench.loop, Ours, 256, "float32")
    bench.part(bench.cosines)
    bench.part(bench.profile)
    bench.part(bench.loop, Plain, 512, "float32")
    bench.part(bench.loop, Plain, 256, "bfloat16")
    bench.part(bench.loop, Plain, 256, "float16")
    bench.part(bench.graph)  # last: a capture that fails may leave the stream unusable
    given.limit = math.inf
    bench.part(bench.judge)
    print(bench.table())


if __name__ == "__main__":
    main()
