"""nbgrader's settings for this course; `book/teach.md` says how to use it."""

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "transformer"

# What stands in a released notebook where the solution was. It runs, and gives nothing.
c.ClearSolutions.code_stub = {"python": "# your code\n..."}
c.ClearSolutions.text_stub = "*Your reading*"

# While grading: a cell that takes longer is stopped, and what it printed is cut. The
# extension stops a cell that prints without end, and keeps its hands off other files.
c.Execute.timeout = 60
c.Execute.extra_arguments = ["--ext=annotated_transformer.checks.classroom"]
c.LimitOutput.max_lines = 200
c.LimitOutput.max_traceback = 20

# Cells that a student deleted come back, and give no points.
c.OverwriteCells.add_missing_cells = True
