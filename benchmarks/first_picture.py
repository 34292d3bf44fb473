"""How long from the command to the picture, how much memory, how long an import?

    python benchmarks/first_picture.py

Runs ``fusedream-nb generate`` as a user does, each time in a fresh process, with the network cut off
where the machine lets us (``unshare --net``).
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time


def timed(command: list[str]) -> tuple[float, float]:
    """Return seconds and the largest memory so far of any child, in GB."""
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def main() -> None:
    """Measure and print JSON."""
    lonely = ["unshare", "--net"] if shutil.which("unshare") else []
    if lonely and subprocess.run([*lonely, "true"], check=False).returncode:
        lonely = []
    plain = min(timed([sys.executable, "-c", "pass"])[0] for _ in range(3))
    imported = min(timed([sys.executable, "-c", "import fusedream_nb"])[0] for _ in range(5))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fusedream_nb", "generate", "a photo of a blue dog", "--out", folder]
        runs = [timed([*lonely, *command]) for _ in range(2)]
    result = {
        "import_s": round(imported - plain, 3),
        "first_picture_s": round(runs[0][0], 1),
        "second_picture_s": round(runs[1][0], 1),
        "peak_memory_gb": round(runs[-1][1], 2),
        "network": "cut off" if lonely else "as it is",
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
