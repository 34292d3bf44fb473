"""Point everything that names the repository at another one: badges, the setup cells, the project's URLs.

    python tools/point_at.py OWNER/NAME            # at a fork, and the tag of this version there
    python tools/point_at.py OWNER/NAME --ref main # at a branch, tag or commit

pyproject.toml's Homepage says which repository it is now.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = ("pyproject.toml", "CITATION.cff", "CHANGELOG.md", "README.md", "*/*.md", "notebooks/*.ipynb")
HOSTS = ("github.com/", "google.com/github/", "mybinder.org/v2/gh/", "githubusercontent.com/")
REF = r"(google\.com/github/{0}/blob/|mybinder\.org/v2/gh/{0}/|git\+https://github\.com/{0}@)[\w.-]+"


def project(root: Path = ROOT) -> tuple[str, str]:
    """Return the repository that everything points at, OWNER/NAME, and the tag of this version."""
    table = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    return table["urls"]["Homepage"].removeprefix("https://github.com/"), f"v{table['version']}"


def point(repository: str, ref: str | None = None, root: Path = ROOT) -> list[Path]:
    """Rewrite the files that name another repository or ref (default: this version's tag); return them."""
    old, tag = project(root)
    changed = []
    for path in sorted(path for pattern in FILES for path in root.glob(pattern)):
        text = new = path.read_text("utf-8")
        for host in HOSTS:
            new = re.sub(rf"{re.escape(host + old)}(?![\w.-])", host + repository, new)
        new = re.sub(REF.format(re.escape(repository)), rf"\g<1>{ref or tag}", new)
        if new != text:
            path.write_text(new, "utf-8")
            changed.append(path)
    return changed


def main() -> None:
    """Read the command line, rewrite, and print what changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("repository", metavar="OWNER/NAME")
    parser.add_argument("--ref", help="default: the tag of this version")
    given = parser.parse_args()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", given.repository):
        parser.error(f"A repository is OWNER/NAME, not {given.repository!r}.")
    print(*point(given.repository, given.ref), sep="\n")


if __name__ == "__main__":
    main()
