"""Make a workshop's files from the notebooks: copies for students and teachers, and slides.

    python workshop/build.py student          # exercises open, checks kept → workshop-student/
    python workshop/build.py teacher          # solutions, and wrong answers → workshop-teacher/
    python workshop/build.py slides 00 07 11  # a deck of these notebooks' pictures → workshop-slides/

An exercise is cells tagged ``exercise`` (text, or code that draws), ``solution`` and ``check``, in this
order; the solution's metadata keeps one plausible ``wrong`` answer. Slides are the pictures tagged ``slide``.
"""

from __future__ import annotations

import argparse
import ast
import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
STYLE = (  # pictures large and in the middle
    "<style>.reveal img { display: block; margin: 0 auto; width: 100%; height: 480px; object-fit: contain; }"
    " .reveal h1, .reveal h2 { font-size: 36px; text-align: center; }</style>"
)


class Exercise(NamedTuple):
    """One exercise of a notebook: its cells' sources."""

    title: str
    drawn: str
    solution: str
    wrong: str
    check: str


def tagged(cell: NotebookNode, tag: str) -> bool:
    """Say whether a cell has a tag."""
    return tag in cell.metadata.get("tags", [])


def notebooks(numbers: list[str] | None = None) -> list[Path]:
    """Return the notebooks' files, all or those with some numbers; ValueError for an unknown one."""
    found = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if unknown := set(numbers or []) - {path.name[:2] for path in found}:
        raise ValueError(f"No notebook has the number {min(unknown)}; the last is {found[-1].name[:2]}.")
    return [path for path in found if not numbers or path.name[:2] in numbers]


def exercises(notebook: NotebookNode) -> Iterator[Exercise]:
    """Yield a notebook's exercises."""
    title = drawn = ""
    for cell, after in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        if tagged(cell, "exercise") and cell.cell_type == "markdown":
            title, drawn = re.findall(r"^### (.+)$", cell.source, re.MULTILINE)[-1], ""
        elif tagged(cell, "exercise"):
            drawn = cell.source
        elif tagged(cell, "solution"):
            yield Exercise(title, drawn, cell.source, "".join(cell.metadata["wrong"]), after.source)


def stub(solution: str) -> str:
    """Return a solution without its work: functions keep signature and docstring, values become None."""
    lines, kept = solution.splitlines(), []
    for node in ast.parse(solution).body:
        text = lines[node.lineno - 1 : node.end_lineno]
        if isinstance(node, ast.FunctionDef):
            body = node.body[0].end_lineno - node.lineno + 1
            kept += [*text[:body], "    raise NotImplementedError  # your lines instead"]
        elif isinstance(node, ast.Assign):
            comment = re.search(r"  # .*$", text[-1])
            kept.append(f"{ast.unparse(node.targets[0])} = None{comment[0] if comment else ''}")
        else:
            kept += text
    return "\n".join(kept)


def student(notebook: NotebookNode) -> NotebookNode:
    """Return the students' copy: stubs for solutions, and no outputs below the exercises."""
    made = copy.deepcopy(notebook)
    for cell in made.cells:
        if tagged(cell, "solution"):
            cell.source = stub(cell.source)
            cell.metadata.pop("wrong")
        if cell.cell_type == "code" and (tagged(cell, "solution") or tagged(cell, "check")):
            cell.outputs, cell.execution_count = [], None
    return made


def teacher(notebook: NotebookNode) -> NotebookNode:
    """Return the teachers' copy: solutions, and below each what groups often write instead."""
    made = copy.deepcopy(notebook)
    made.cells = []
    for cell in notebook.cells:
        made.cells.append(cell)
        if tagged(cell, "solution"):
            often = f"**Often seen instead:**\n\n```python\n{''.join(cell.metadata['wrong'])}\n```"
            made.cells.append(nbformat.v4.new_markdown_cell(often, id=f"{cell.id}-wrong"))
    return made


def deck(paths: list[Path]) -> NotebookNode:
    """Return the slides: a title for each notebook, and its tagged pictures under the headings above them."""
    made, heading = nbformat.v4.new_notebook(), ""
    for cell in (cell for path in paths for cell in nbformat.read(path, as_version=4).cells):
        if cell.cell_type == "markdown":
            titles = re.findall(r"^(##?) (.+)$", cell.source, re.MULTILINE)
            heading = titles[-1][1] if titles else heading
            made.cells += [_slide(f"# {text}", "slide") for mark, text in titles if mark == "#"]
        pictures = [
            out
            for out in cell.get("outputs", [])
            if any(kind.startswith("image/") for kind in out.get("data", {}))
        ]
        if tagged(cell, "slide") and pictures:
            made.cells += [_slide(f"## {heading}", "slide"), _slide("", "-", pictures)]
    made.cells[0].source += f"\n\n{STYLE}"
    return made


def _slide(source: str, kind: str, outputs: list[NotebookNode] | None = None) -> NotebookNode:
    how = {"metadata": {"slideshow": {"slide_type": kind}}}
    if outputs:
        return nbformat.v4.new_code_cell(source, outputs=outputs, **how)
    return nbformat.v4.new_markdown_cell(source, **how)


def slides(paths: list[Path], modules: str = "") -> str:
    """Return the deck as one page by nbconvert; ``modules`` is npm's folder, for a room offline."""
    from nbconvert import SlidesExporter

    names = {"reveal_url_prefix": "reveal.js", "require_js_url": "requirejs/require.js"}
    names["jquery_url"] = "jquery/dist/jquery.js"
    local = {trait: f"{modules}/{name}" for trait, name in names.items()} if modules else {}
    exporter = SlidesExporter(exclude_input=True, exclude_output_prompt=True, **local)
    return exporter.from_notebook_node(deck(paths))[0]


def main() -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kind", choices=["student", "teacher", "slides"])
    parser.add_argument("numbers", nargs="*", help="notebooks, such as 00 07; all unless given")
    parser.add_argument("--out", type=Path, help="a folder beside docs/, so that links hold")
    parser.add_argument("--modules", default="", help="npm's folder with reveal.js, for a room offline")
    given = parser.parse_args()
    try:
        paths = notebooks(given.numbers)
    except ValueError as error:
        parser.error(str(error))
    out = given.out or ROOT / f"workshop-{given.kind}"
    out.mkdir(parents=True, exist_ok=True)
    if given.kind == "slides":
        (out / "index.html").write_text(slides(paths, given.modules), "utf-8")
    else:
        make = {"student": student, "teacher": teacher}[given.kind]
        for path in paths:
            nbformat.write(make(nbformat.read(path, as_version=4)), out / path.name)
    print(f"{len(paths)} notebooks → {out}")


if __name__ == "__main__":
    main()
