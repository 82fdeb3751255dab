"""Every notebook with all exercises solved, at a real Jupyter kernel, from the first cell to the last."""

import pytest

pytest.importorskip("jupyter_client", reason="needs the extra 'notebook'")

from kernels import kernel

from tinytorch_course import notebooks
from tinytorch_course.lessons import read_lessons
from tinytorch_course.workspace import Workspace


@pytest.mark.slow
@pytest.mark.parametrize("lesson", read_lessons(), ids=lambda lesson: lesson.folder)
def test_the_solved_notebook_runs_from_top_to_bottom(lesson, tmp_path):
    workspace = Workspace.create(tmp_path / "my_course")
    with kernel(workspace.folder / "notebooks") as student:
        for cell in notebooks.notebook(lesson, "solution").cells:
            if cell.cell_type == "code":
                shown = student.run(cell.source)
                assert shown.error == "", f"{cell.id}: {cell.source}"
                if cell.id.startswith("check-"):
                    assert "passed" in shown.text
    progress = workspace.progress()
    assert all(progress.has_passed(exercise) for exercise in lesson.exercises)
