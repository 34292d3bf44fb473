"""The book: Sphinx and MyST-NB read docs/, notebooks/ and workshop/ as they are; no cell is executed.

    python -m pip install -e ".[book]"
    python -m sphinx -W --keep-going -c docs . book/html -d book/doctrees

Links hold on GitHub and in the book alike, since the repository's root is the source. Nothing is loaded from
elsewhere: formulas become MathML, the search runs in the browser. (Jupyter Book 2 needs Node and fetches its
theme when it builds; Jupyter Book 1 was this same pair of extensions.)
"""

from __future__ import annotations

import base64
import json
import os
import pkgutil
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fusedream_nb
from fusedream_nb.reproduce import figures
from fusedream_nb.reproduce.report import VERDICT

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
project, author, release = "fusedream_nb", "fusedream_nb contributors", fusedream_nb.__version__
HOME = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Homepage"]
SOURCE = f"{HOME}/blob/v{release}/"
copyright = author  # noqa: A001 (Sphinx's own name)
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = ["docs/*.md", "notebooks/[0-9]*.ipynb", "workshop/*.md", "CHANGELOG.md", "CONTRIBUTING.md"]
root_doc = "docs/index"
nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["amsmath", "dollarmath", "html_image"]
myst_heading_anchors = 3
suppress_warnings = [
    "myst.header",  # an exercise may stand one level too deep
    "ref.python",  # two classes of one name: annotations say which
]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_mock_imports = ["ray"]
html_theme = "furo"
html_title = "fusedream_nb"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_extra_path = ["_root"]
html_math_renderer = "mathml"
html_copy_source = False


def mathml(translator: Any, node: Any) -> None:  # noqa: ANN401 (Sphinx's visitor)
    """Write a formula as MathML, which every browser draws by itself."""
    from docutils.nodes import SkipNode, math_block
    from docutils.utils.math.latex2mathml import tex2mathml

    tex = re.sub(r"\\big(?![a-z])", "", node.astext()).replace(r"\tfrac12", r"\tfrac{1}{2}")
    translator.body.append(tex2mathml(tex, as_block=isinstance(node, math_block)))
    raise SkipNode


def source_read(_: Sphinx, name: str, content: list[str]) -> None:
    """Fill in what is generated, and prepare notebooks for a page."""
    if name.startswith("notebooks/"):
        content[0] = page(json.loads(content[0]))
    elif name in ("docs/gallery", "docs/api"):
        content[0] = content[0].replace("{{ generated }}", gallery() if name.endswith("gallery") else api())
    else:  # what is no page of the book is on GitHub
        content[0] = re.sub(
            r"\]\((?:\.\./)?((?:fusedream_nb|benchmarks|tests|training|tools|\.ci|NOTICE|CITATION|LICENSE)[^)]*)\)",
            rf"]({SOURCE}\1)",
            content[0],
        )


def page(notebook: dict[str, Any]) -> str:
    """Return a notebook as JSON: badges as plain links, alternative texts, solutions and set-up folded."""
    for cell in notebook["cells"]:
        text, tags = "".join(cell["source"]), cell["metadata"].setdefault("tags", [])
        text = re.sub(r"\[!\[([^]]+)\]\(\S+?svg\)\]", r"[\1]", text)
        cell["source"] = text.replace("\n[Launch on Binder]", " · [Launch on Binder]")
        if {"solution", "setup"} & set(tags):
            tags.append("hide-input")
        alts = [found[2] for found in map(picture, cell.get("outputs", [])) if found]
        if alts:
            cell["metadata"]["mystnb"] = {"image": {"alt": " ".join(alts)}}
    return json.dumps(notebook)


def picture(output: dict[str, Any]) -> tuple[str, bytes, str] | None:
    """Return the kind ("png"), the bytes and the alternative text of an output's picture, if it has one."""
    for kind, data in output.get("data", {}).items():
        if kind in ("image/png", "image/jpeg"):
            return kind[6:], base64.b64decode("".join(data)), output["metadata"][kind]["alt"]
    return None


def drawn(figure: figures.PaperFigure, notebook: dict[str, Any]) -> tuple[str, bytes, str] | None:
    """Return the picture of a figure: that of its own id, else of its first part."""
    for pattern in (f'"{figure.id}"', f'"{figure.id}-'):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code" and pattern in "".join(cell["source"]):
                for found in filter(None, map(picture, cell["outputs"])):
                    return found
    return None


def gallery(folder: Path = ROOT / "docs" / "_figures") -> str:
    """Return every figure of both papers: caption, picture (written to a folder), verdicts, command."""
    parts = []
    folder.mkdir(exist_ok=True)
    for figure in figures.FIGURES:
        path = next((ROOT / "notebooks").glob(f"{figure.notebook}_*.ipynb"))
        notebook = json.loads(path.read_text("utf-8"))
        parts.append(f"({figure.id})=\n## {figure.id}: {figure.caption}\n")
        if found := drawn(figure, notebook):
            name = f"{figure.id}.{found[0]}"
            (folder / name).write_bytes(found[1])
            alt = re.sub(r"([\[\]*_])", r"\\\1", found[2])
            parts.append(f"![{alt}](_figures/{name})\n")
        outputs = [out for cell in notebook["cells"] for out in cell.get("outputs", [])]
        told = [match for out in outputs for match in VERDICT.findall("".join(out.get("text", "")))]
        claims = [match for match in told if match[0] == figure.id]
        parts += [f"- **{word}**: {statement}" for _, statement, word in claims]
        parts += [f"- The paper prints: {figure.paper}"] if figure.paper else []
        parts.append(f"\n[Notebook {figure.notebook}](../notebooks/{path.name}) ·")
        parts.append(f"`fusedream-nb reproduce {figure.id}`\n")
    return "\n".join(parts)


def api() -> str:
    """Return a section for each layer, with all its modules."""
    found = [m.name for m in pkgutil.walk_packages(fusedream_nb.__path__, "fusedream_nb.")]
    parts, layer = [], ""
    for name in sorted(found):
        if name.endswith("__main__") or (ROOT / name.replace(".", "/") / "__init__.py").exists():
            continue
        if (own := name.split(".")[1]) != layer:
            parts.append(f"## {own}\n")
            layer = own
        parts.append(f"### {name.removeprefix('fusedream_nb.')}\n")
        parts.append(f"```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```\n")
    return "\n".join(parts)


def docstring(*arguments: Any) -> None:  # noqa: ANN401 (Sphinx's event)
    """Let a docstring's bars and underscores be themselves: it is text first."""
    lines = arguments[-1]
    lines[:] = [re.sub(r"(?<!`)(\||(?<=\w)_(?!\w))(?!`)", r"\\\1", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Register what this file adds."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    app.connect("source-read", source_read)
    app.connect("autodoc-process-docstring", docstring)
