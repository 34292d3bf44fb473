"""Kill `generate` with SIGKILL at random moments and resume it: how many pictures are equal to the bit?

python benchmarks/kill_and_resume.py --kills 20 --steps 60
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fusedream_nb.records import png

GENERATE = (sys.executable, "-m", "fusedream_nb", "generate")


def main() -> None:
    """Print a line a kill, then the sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=float, default=0.0, help="seconds between two saved states")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    asked = ("a photo of a blue dog", "--steps", str(options.steps), "--every", str(options.every))
    asked = (*asked, "--device", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        whole, began = Path(folder, "whole"), time.monotonic()
        subprocess.run([*GENERATE, *asked, "--out", whole], check=True, capture_output=True)
        seconds = time.monotonic() - began
        (picture,) = map(pixels, whole.glob("*.png"))
        equal = lost = 0
        for number in range(options.kills):
            out = Path(folder, str(number))
            moment = moments.uniform(0, seconds)
            ended = killed([*GENERATE, *asked, "--out", str(out)], moment)
            if ended and not out.exists():  # before there was anything to lose
                print(f"{number + 1:3}: killed at {moment:5.1f} s, before it had begun")
                subprocess.run([*GENERATE, *asked, "--out", out], check=True, capture_output=True)
            elif ended:
                again = subprocess.run([*GENERATE, "--resume", out, "--device", "cpu"], capture_output=True)
                lost += again.returncode != 0
            found = [pixels(path) for path in out.glob("*.png")]
            equal += found == [picture]
            print(
                f"{number + 1:3}: killed at {moment:5.1f} s, {'equal' if found == [picture] else 'DIFFERS'}"
            )
        print(f"{equal} of {options.kills} equal, {lost} lost")


def killed(command: list[str], moment: float) -> bool:
    """Run a command for so many seconds at most; return whether it had to be killed."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(moment)
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True


def pixels(path: Path) -> bytes:
    """Return a picture's pixels."""
    return png.decode(path)[0].tobytes()


if __name__ == "__main__":
    main()
