"""The course around tinytorch. In a notebook: `import tinytorch_course as course`, then `course.start("05")`."""

from .session import check, exercise, hint, progress, reset, solution, start, undo
