"""How many bad files get a good name when downloads go wrong: ``python benchmarks/bad_downloads.py``.

Each trial serves a file of random bytes from one to three mirrors on this machine, each with a random run of
faults before, perhaps, the right file; sometimes a broken part lies there already, sometimes the process that
fetches is killed half-way. Three trials in four have a published hash; the others are archives of torch's,
of which nothing is known but what they say of themselves. Afterwards the file must be absent or right.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch

from fusedream_nb.models.fetch import fetch
from fusedream_nb.models.weights import Entry, File

TESTS = Path(__file__).parent.parent / "tests" / "models"
KILLED_EVERY = 10  # trials
FETCH = """
import sys
from pathlib import PosixPath, WindowsPath
from fusedream_nb.models.weights import Entry, File
from fusedream_nb.models.fetch import fetch
fetch(eval(sys.argv[1]), timeout=60, pause=0)
"""


def server_module():  # noqa: ANN201  a module
    """Return the module of the tests' server."""
    sys.path.insert(0, str(TESTS.parent))  # for the stand-ins, which it imports
    spec = importlib.util.spec_from_file_location("mirror", TESTS / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["mirror"] = module
    spec.loader.exec_module(module)
    return module


def archive(dice: random.Random) -> bytes:
    """Return an archive of torch's with random numbers."""
    file = io.BytesIO()
    numbers = torch.tensor([dice.random() for _ in range(dice.randint(10, 4000))])
    torch.save({"weight": numbers}, file)
    return file.getvalue()


def kill_half_way(row: Entry, mirror) -> None:  # noqa: ANN001
    """Start to fetch from a mirror that stalls in the middle, and kill the process there."""
    mirror.stalled.clear()
    process = subprocess.Popen([sys.executable, "-c", FETCH, repr(row)], stderr=subprocess.DEVNULL)
    mirror.stalled.wait(60)
    process.kill()
    process.wait()


def trial(number: int, dice: random.Random, mirror, faults: tuple, folder: Path) -> str:  # noqa: ANN001
    """Run one; return "absent", "right" or "BAD"."""
    known = dice.random() < 0.75
    mirror.content = dice.randbytes(dice.randint(1, 300_000)) if known else archive(dice)
    kill = number % KILLED_EVERY == 0
    urls = []
    for name in "abc"[: dice.randint(1, 3)]:
        script = [dice.choice(faults) for _ in range(dice.randint(1, 3))]
        ends = ["right"] if dice.random() < 0.5 else []
        urls.append(
            mirror.url(f"{number}{name}", *(["stall"] if kill and name == "a" else []), *script, *ends)
        )
    digest = hashlib.sha256(mirror.content).hexdigest()
    file = (
        File("model.bin", len(mirror.content), digest, tuple(urls))
        if known
        else File("model.bin", urls=tuple(urls))
    )
    row = Entry("some-model", "generator", "MIT", (file,), folder / str(number))
    row.folder.mkdir(parents=True)
    if dice.random() < 0.3:
        part = dice.choice(
            [mirror.content[: len(mirror.content) // 3], dice.randbytes(1000), mirror.content + b"x"]
        )
        (row.folder / "model.bin.part").write_bytes(part)
    if kill:
        kill_half_way(row, mirror)
        if row.here:
            return "BAD"
    try:
        fetch(row, timeout=0.3, pause=0)
    except FileNotFoundError:
        return "absent" if not row.here else "BAD"
    path = row.folder / "model.bin"
    if path.read_bytes() == mirror.content:
        return "right"
    return "BAD"


def main() -> None:
    """Run the trials and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    dice, told = random.Random(given.seed), Counter()
    module = server_module()
    mirror = module.Mirror()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for number in range(given.trials):
            told[trial(number, dice, mirror, module.FAULTS, Path(folder))] += 1
    mirror.stop()
    answers = Counter(mirror.asked)
    print(f"{given.trials} trials, {sum(answers.values())} answers of {len(answers)} mirrors")
    print(", ".join(f"{told[what]} {what}" for what in ("right", "absent")))
    print(f"{told['BAD']} bad files accepted")
    sys.exit(bool(told["BAD"]))


if __name__ == "__main__":
    main()
