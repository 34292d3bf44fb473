"""Commands on several things look at all of them before they do the first: nothing is told too late."""

from __future__ import annotations

import re

import pytest

from fusedream_nb.cli import main
from fusedream_nb.method import bank
from fusedream_nb.models import fetch

REFUSED = [
    (["models", "rm", "lpips-squeeze", "stickers"], "not deleted"),
    (["models", "rm", "lpips-squeeze", "nobody"], "No model is called 'nobody'"),
    (["models", "fetch", "lpips-squeeze", "nobody"], "No model is called 'nobody'"),
    (["models", "verify", "stickers", "nobody"], "No model is called 'nobody'"),
    (["models", "bank", "stickers", "nobody", "--M", "4"], "nobody"),
    (["models", "--json", "verify"], "--json is for the list of models"),
    (["reproduce", "fd-02", "fd-99"], "No figure is called 'fd-99'"),
    (["reproduce", "fd-02", "--model", "nobody"], "nobody"),
    (["reproduce", "fd-02", "--check", "--json"], "leave out --json"),
    (["generate", "a dog", "  "], "prompt is empty"),
    (["evaluate", "--out", "table", "--limit", "3001"], "has 3,000 captions, so 3001"),
    (["generate", "a dog", "--compose", "--foreground", ""], "prompt is empty"),
    (["generate", "a dog", "--transport", "--prompt-picture", "none.png"], "There is no picture"),
]


@pytest.mark.parametrize(("arguments", "reason"), REFUSED, ids=lambda value: " ".join(value)[:50])
def test_a_bad_name_is_said_before_anything_is_done(tmp_path, monkeypatch, capsys, arguments, reason) -> None:
    def do(*_: object, **__: object) -> None:
        raise AssertionError("something was done")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSEDREAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bank, "build", do)
    monkeypatch.setattr(fetch, "fetch", do)
    weights = tmp_path / "cache/lpips-squeeze/squeezenet1_1-b8a52dc0.pth"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(rf"fusedream-nb: [^\n]*{re.escape(reason)}[^\n]*\n", err), err
    assert weights.exists() and [path.name for path in tmp_path.iterdir()] == ["cache"]
