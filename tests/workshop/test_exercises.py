"""Exercises: each check passes with the solution, and says in a sentence what other answers lack."""

from __future__ import annotations

import ast
import contextlib
import io
from functools import cache

import nbformat
import pytest
import workshop_build as build

import fusedream_nb as fd

NOTEBOOKS = build.notebooks()
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@cache
def read(path):
    return nbformat.read(path, as_version=4)


EXERCISES = [(path, exercise) for path in NOTEBOOKS for exercise in build.exercises(read(path))]
each_exercise = pytest.mark.parametrize(
    ("path", "exercise"),
    EXERCISES,
    ids=[f"{path.stem[:2]}-{exercise.title[:1]}" for path, exercise in EXERCISES],
)


def is_exercise(cell):
    return any(build.tagged(cell, tag) for tag in ("exercise", "solution", "check"))


def imports(path):
    """The imports of a notebook's cells, its own setup left out: all that exercises may rely on."""
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    nodes = [node for cell in cells if not is_exercise(cell) for node in ast.parse(cell.source).body]
    return "\n".join(ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))


def answer(path, exercise, solution):
    """What the check prints in a fresh namespace that holds a notebook's imports alone."""
    namespace = {"__name__": "notebook"}
    for source in (imports(path), exercise.drawn, solution):
        exec(compile(source, path.name, "exec"), namespace)
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        exec(compile(exercise.check, path.name, "exec"), namespace)
    return told.getvalue()


@each_exercise
def test_the_solution_is_right(path, exercise):
    assert answer(path, exercise, exercise.solution).endswith(" · right.\n")


@each_exercise
def test_the_stub_is_still_to_write(path, exercise):
    stub = build.stub(exercise.solution)
    assert stub != exercise.solution
    assert answer(path, exercise, stub).endswith(" · still to write.\n")


@each_exercise
def test_a_plausible_wrong_answer_gets_one_sentence(path, exercise):
    told = answer(path, exercise, exercise.wrong)
    assert " · not yet: " in told
    assert "stops with" not in told  # a gap in the mathematics, not a fault
    assert told.count("\n") == 1 and told.endswith(".\n")


@each_exercise
def test_the_check_carries_the_exercises_name(path, exercise):
    assert f'fd.check("{exercise.title.partition(" (")[0]}"' in exercise.check


def test_there_are_enough_of_each_kind():
    assert len(EXERCISES) >= 35
    for page in ("README.md", "workshop/README.md", "CHANGELOG.md"):
        assert f"{len(EXERCISES)} exercises" in (build.ROOT / page).read_text("utf-8")
    for kind in ("(write, ", "(predict, then run, ", "(read a picture, "):
        assert sum(kind in exercise.title for _, exercise in EXERCISES) >= 5
    for path in NOTEBOOKS:
        assert sum(where == path for where, _ in EXERCISES) in (2, 3)


@each_notebook
def test_exercises_leave_the_notebooks_own_names_alone(path):
    """What exercises define is not what the notebook's widgets, which go on afterwards, still look up."""

    def bound(source):
        nodes = list(ast.walk(ast.parse(source)))
        names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        return names | {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}

    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    ours = set().union(*(bound(cell.source) for cell in cells if is_exercise(cell)))
    functions = [
        node
        for cell in cells
        if not is_exercise(cell)
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.FunctionDef)
    ]
    looked_up = set()
    for function in functions:
        own = bound(ast.unparse(function)) | {n.arg for n in ast.walk(function) if isinstance(n, ast.arg)}
        looked_up |= {n.id for n in ast.walk(function) if isinstance(n, ast.Name)} - own
    assert not (ours & looked_up) - {"_"}


@each_notebook
def test_the_students_copy_differs_in_solutions_alone(path):
    student = build.student(read(path))
    for old, new in zip(read(path).cells, student.cells, strict=True):
        assert old.cell_type == new.cell_type
        if build.tagged(old, "solution"):
            assert new.source == build.stub(old.source)
            assert "wrong" not in new.metadata
        else:
            assert new.source == old.source
    nbformat.validate(student)


def test_the_teachers_copy_says_what_is_often_written_instead():
    teacher = build.teacher(read(NOTEBOOKS[0]))
    (first, *_) = build.exercises(read(NOTEBOOKS[0]))
    assert any(first.wrong in cell.source for cell in teacher.cells if cell.cell_type == "markdown")
    nbformat.validate(teacher)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (lambda: None, "right."),
        (lambda: exec("assert 1 == 2, 'one is not two'"), "not yet: one is not two."),
        (lambda: exec("raise NotImplementedError"), "still to write."),
        (lambda: [][1], "not yet: your code stops with IndexError, list index out of range."),
    ],
)
def test_a_check_never_raises(body, said, capsys):
    with fd.check("1. Something"):
        body()
    assert capsys.readouterr().out == f"1. Something · {said}\n"


def test_a_value_that_is_missing_is_still_to_write(capsys):
    with fd.check("2. A guess", None):
        None + 1  # noqa: B018
    assert capsys.readouterr().out == "2. A guess · still to write.\n"
