"""A student at a real Jupyter kernel: wrong answers, hints, right answers, and the accidents of a notebook."""

import json

import pytest

pytest.importorskip("jupyter_client", reason="needs the extra 'notebook'")

from kernels import kernel

from tinytorch_course import notebooks
from tinytorch_course.answers import Answer
from tinytorch_course.lessons import read_lessons
from tinytorch_course.workspace import Workspace

LESSONS = {lesson.number: lesson for lesson in read_lessons()}
FIRST = LESSONS["01"].exercises[0]  # the sum of two tensors


@pytest.fixture
def workspace(tmp_path):
    return Workspace.create(tmp_path / "my_course")


@pytest.fixture
def student(workspace):
    """A kernel in the notebooks' folder."""
    with kernel(workspace.folder / "notebooks") as running:
        yield running


def begin(student, number="01"):
    shown = student.run(f'import tinytorch_course as course\n\ncourse.start("{number}")')
    assert shown.error == ""
    return shown


def write(student, exercise, code):
    shown = student.run(f'@course.exercise("{exercise.id}")\n{code.strip()}')
    assert shown.error == ""
    return shown


def check(student, exercise):
    shown = student.run(f'course.check("{exercise.id}")')
    assert shown.error == ""
    return shown


def cells(workspace, lesson):
    path = workspace.folder / "notebooks" / f"{lesson.folder}.ipynb"
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


# ---- a whole lesson


@pytest.mark.slow
@pytest.mark.parametrize("number", ["01", "05"])
def test_a_student_goes_through_a_notebook_by_error_and_hint(workspace, student, number):
    lesson = LESSONS[number]
    exercises = {exercise.id: exercise for exercise in lesson.exercises}
    pictures = 0
    for cell in cells(workspace, lesson):
        source = "".join(cell["source"])
        exercise = exercises.get(cell["id"])
        if cell["cell_type"] != "code":
            continue
        shown = student.run(source)
        assert shown.error == "", f"{cell['id']}: {source}"
        pictures += len(shown.pictures)
        if exercise is None:
            continue
        assert f"{exercise.message}" in check(student, exercise).text
        for wrong in exercise.wrong:
            write(student, exercise, wrong.code)
            shown = check(student, exercise)
            assert "not yet" in shown.text and " ".join(wrong.message.split()) in " ".join(shown.text.split())
            assert "not yet" in shown.html and "checked" in shown.html
        for hint in exercise.hints:
            assert hint in student.run(f'course.hint("{exercise.id}")').text
        write(student, exercise, exercise.solution())
        assert "passed" in check(student, exercise).text
    assert f"{len(exercises)} of {len(exercises)}" in student.run("course.progress()").text
    assert pictures > 0


# ---- what is shown


def test_the_first_cell_says_where_the_work_is_kept(workspace, student):
    shown = begin(student)
    assert "Lesson 01, Tensors: 0 of 8 exercises done." in shown.text
    assert str(workspace.folder / "work" / "01_tensor.py") in shown.text
    assert str(workspace.folder) in student.run("import tinytorch as tt; print(tt.__file__)").text


def test_an_answer_runs_in_the_framework_at_once_and_its_check_says_which_was_checked(workspace, student):
    begin(student)
    student.run("import tinytorch as tt")
    assert FIRST.message in student.run("tt.ones(2) + tt.ones(2)").error
    write(student, FIRST, "def __add__(x, y):\n    return x + 2 * y")
    assert "tensor([3., 3.])" in student.run("tt.ones(2) + tt.ones(2)").text
    shown = check(student, FIRST)
    assert "not yet" in shown.text and "checked   the cell that you ran, version 1" in shown.text
    write(student, FIRST, FIRST.solution())
    assert "passed, 1 point" in check(student, FIRST).text


def test_the_same_failure_for_the_third_time_offers_a_hint(student):
    begin(student)
    write(student, FIRST, "def __add__(x, y):\n    return x - y")
    assert all("hints are left" not in check(student, FIRST).text for _ in range(2))
    assert "for the third time. 3 of 3 hints are left" in " ".join(check(student, FIRST).text.split())


def test_a_method_called_as_one_of_pythons_own_does_not_hide_it(student):
    begin(student)
    sum_ = LESSONS["01"].exercises[4]
    write(student, sum_, sum_.solution())
    assert student.run("sum([1, 2])").text.strip() == "3"


def test_text_that_is_no_html_has_no_html(student):
    begin(student)
    shown = student.run(f'course.hint("{FIRST.id}")')
    assert FIRST.hints[0] in shown.text and shown.html == ""


# ---- accidents


def test_a_kernel_that_was_restarted_has_what_was_written(workspace):
    folder = workspace.folder / "notebooks"
    with kernel(folder) as student:
        begin(student)
        write(student, FIRST, "def __add__(x, y):\n    return x + 2 * y")
    with kernel(folder) as student:
        begin(student)
        assert "tensor([3., 3.])" in student.run("import tinytorch as tt; tt.ones(2) + tt.ones(2)").text
        assert "not yet" in check(student, FIRST).text


def test_another_tinytorch_that_is_already_imported_is_refused(student):
    student.run("import tinytorch")
    shown = student.run('import tinytorch_course as course; course.start("01")')
    assert shown.error.startswith("RuntimeError: tinytorch was imported before course.start")
    assert "Restart the kernel" in shown.error


def test_before_the_first_cell_all_others_say_so(student):
    student.run("import tinytorch_course as course")
    assert "Run the first cell" in student.run('course.check("ex-01-1")').error


def test_the_first_cell_can_be_run_again_but_not_for_another_lesson(student):
    begin(student)
    write(student, FIRST, FIRST.solution())
    check(student, FIRST)
    assert "1 of 8 exercises done" in begin(student).text
    assert "Restart it" in student.run('course.start("05")').error


def test_cells_out_of_order_and_twice_keep_the_last_one(workspace, student):
    begin(student)
    last = LESSONS["01"].exercises[-1]
    write(student, last, last.solution())
    write(student, FIRST, "def __add__(x, y):\n    return x - y")
    write(student, FIRST, FIRST.solution())
    assert "passed" in check(student, FIRST).text and "passed" in check(student, last).text
    assert workspace.ledger(LESSONS["01"]).read_text(encoding="utf-8").count(FIRST.id) == 1


def test_an_empty_cell_that_is_run_again_takes_nothing_away(workspace, student):
    begin(student)
    write(student, FIRST, FIRST.solution())
    shown = student.run(notebooks.answer_cell(FIRST))
    assert "what you wrote for ex-01-1 before is kept" in shown.text
    assert "passed" in check(student, FIRST).text


def test_a_cell_that_lost_its_decorator_is_found_by_name(student):
    begin(student)
    student.run("def __add__(x, y):\n    return x + y")
    shown = check(student, FIRST)
    assert "passed" in shown.text and "had lost its @course.exercise line" in " ".join(shown.text.split())


def test_a_newer_cell_without_its_decorator_is_not_passed_off_as_checked(student):
    begin(student)
    write(student, FIRST, FIRST.solution())
    student.run("def __add__(x, y):\n    return x * 7")
    shown = " ".join(check(student, FIRST).text.split())
    assert "passed" in shown and "A newer cell defines __add__ without @course.exercise" in shown


def test_what_an_editor_changed_is_not_called_the_cell(workspace, student):
    begin(student)
    write(student, FIRST, FIRST.solution())
    ledger = workspace.ledger(LESSONS["01"])
    ledger.write_text(ledger.read_text(encoding="utf-8").replace("return x + y", "return y + x"), encoding="utf-8")
    assert "checked   work/01_tensor.py, version 2" in check(student, FIRST).text


def test_a_ledger_that_an_editor_broke_is_said_and_nothing_is_lost(workspace, student):
    begin(student)
    ledger = workspace.ledger(LESSONS["01"])
    ledger.write_text("def broken(:\n", encoding="utf-8")
    assert "is not yet Python: line 1" in write(student, FIRST, FIRST.solution()).text
    assert "cannot be tried" in check(student, FIRST).text
    assert "made anew from the backups" in student.run('course.undo("ex-01-1")').text
    assert "passed" in check(student, FIRST).text


def test_a_helper_that_others_use_is_not_changed_in_silence(student):
    begin(student)
    second = LESSONS["01"].exercises[1]
    student.run("def helper(x, y):\n    return x + y")
    write(student, FIRST, "def __add__(x, y):\n    return helper(x, y)")
    student.run("def helper(x, y):\n    return x * y")
    shown = write(student, second, "def __mul__(x, y):\n    return helper(x, y)")
    assert "This changes a helper that ex-01-1 uses, too: check that again." in shown.text


def test_what_keeps_the_framework_from_being_imported_is_left_out(workspace):
    broken = "NAME = no_such_name\n\n\ndef __add__(x, y):\n    return x + y + NAME"
    folder = workspace.folder / "notebooks"
    with kernel(folder) as student:
        begin(student)
        student.run("no_such_name = 0")
        student.run(broken.replace("def", '@course.exercise("ex-01-1")\ndef', 1))
    ledger = workspace.ledger(LESSONS["01"])
    ledger.write_text(ledger.read_text(encoding="utf-8").replace("no_such_name = 0", ""), encoding="utf-8")
    with kernel(folder) as student:
        assert "What you wrote keeps the framework from being imported" in begin(student).text
        write(student, FIRST, FIRST.solution())
        assert "passed" in check(student, FIRST).text


def test_nbgrader_gets_a_number_and_an_empty_cell_no_points(workspace, student):
    """Whatever is in the workspace around: the notebook that is graded counts alone."""
    workspace.save(FIRST, Answer(FIRST.id, FIRST.solution()))
    student.run('import os; os.environ["NBGRADER_EXECUTION"] = "autograde"')
    shown = begin(student)
    assert str(workspace.folder) not in shown.text
    student.run(notebooks.answer_cell(FIRST))
    assert check(student, FIRST).text.splitlines()[-1] == "0.0"
    write(student, FIRST, FIRST.solution())
    shown = check(student, FIRST)
    assert shown.text.splitlines()[-1] == "1.0" and shown.html == ""


def test_two_kernels_at_once_keep_both_answers(workspace):
    folder, last = workspace.folder / "notebooks", LESSONS["01"].exercises[-1]
    with kernel(folder) as one, kernel(folder) as other:
        begin(one)
        begin(other)
        write(one, FIRST, FIRST.solution())
        write(other, last, last.solution())
        assert "passed" in check(one, last).text and "passed" in check(other, FIRST).text


def test_helpers_and_constants_and_imports_of_other_cells_come_along(workspace, student):
    begin(student)
    student.run("import math\n\nONE = 1.0\n\ndef times(x, factor):\n    return x * factor * math.cos(0.0)")
    write(student, FIRST, "def __add__(x, y):\n    return times(x, ONE) + y")
    check(student, FIRST)
    ledger = workspace.ledger(LESSONS["01"]).read_text(encoding="utf-8")
    assert "import math" in ledger and "ONE = 1.0" in ledger and "def times(x, factor):" in ledger
    assert "tensor([2., 2.])" in student.run("import tinytorch as tt; tt.ones(2) + tt.ones(2)").text


def test_a_name_that_only_the_notebook_knows_is_named(student):
    begin(student)
    student.run("import tinytorch as tt\nfactor = tt.tensor(1.0)")
    shown = write(student, FIRST, "def __add__(x, y):\n    return x + y * factor")
    assert "uses factor, which tinytorch/tensor/arithmetic.py does not know" in shown.text
    assert "cannot be tried" in check(student, FIRST).text


def test_reset_and_undo(student):
    begin(student)
    write(student, FIRST, FIRST.solution())
    assert "open again" in student.run('course.reset("ex-01-1")').text
    assert "still open" in check(student, FIRST).text
    assert "Version 1" in student.run('course.undo("ex-01-1")').text
    assert "passed" in check(student, FIRST).text


def test_without_a_workspace_one_is_made_beside_the_notebook(tmp_path):
    with kernel(tmp_path) as student:
        assert "A workspace was made in" in begin(student).text
        write(student, FIRST, FIRST.solution())
        assert "passed" in check(student, FIRST).text
    assert (tmp_path / "my_course" / "work" / "01_tensor.py").exists()
