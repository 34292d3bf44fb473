"""Tables that a program reads: a row is a line, and no name is cut or broken, however narrow the terminal."""

from __future__ import annotations

import json

import pytest

from fusedream_nb.cli import main

COMMANDS = {"figures": "id", "models": "name", "doctor": "name"}


@pytest.mark.parametrize("columns", ["1", "40", "80"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_row_is_a_line(capsys, monkeypatch, tmp_path, command, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("FUSEDREAM_CACHE", str(tmp_path))
    assert main([command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert main([command]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(rows) > 2
    assert all(row[COMMANDS[command]] in line for row, line in zip(rows, lines, strict=True))
    assert not [line for line in lines if line != line.rstrip()]


def test_a_value_of_many_lines_is_one_line(capsys):
    from fusedream_nb.cli.terminal import table

    table([("prompt", "a dog\nand a cat\x1b[31m"), ("options", "x" * 5000)])
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["prompt", "a", "dog\\nand", "a", "cat\\x1b[31m"]
    assert second.endswith("x" * 5000)
