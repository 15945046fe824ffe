"""nbgrader's settings for this course; `book/teach.md` says how to use it."""

from annotated_transformer.checks import grading, pages

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "transformer"

# What stands in a released notebook where the solution was. It runs, and gives nothing.
c.ClearSolutions.code_stub = {"python": "# your code\n..."}
c.ClearSolutions.text_stub = "*Your reading*"

# Cells that a student copied, split or stripped of their labels are mended first.
c.Autograde.sanitize_preprocessors = grading.SANITIZE

# Each submission runs in a sandbox. Where the operating system has none, nothing is
# graded, unless you set this to False (see book/teach.md first).
c.Autograde.autograde_preprocessors = grading.AUTOGRADE
c.SandboxedExecute.required = True

# A cell that takes longer is stopped, and what it printed is cut. The extension stops a
# cell that prints without end, and says in words what the sandbox refuses.
c.Execute.timeout = 60
c.Execute.extra_arguments = [
    "--ext=annotated_transformer.checks.classroom",
    "--HistoryManager.hist_file=:memory:",
]
c.LimitOutput.max_lines = 200
c.LimitOutput.max_traceback = 20

# Cells that a student deleted come back, and give no points.
c.OverwriteCells.add_missing_cells = True

# Files that students handed in elsewhere, named like ada_ps1_model.ipynb. A student's
# name is all that stands before: grace-hopper, m.curie, 2026_17. Names with other signs
# are left out, since pages show them.
c.FileNameCollectorPlugin.named_regexp = (
    r"(?:.*[/\\])?(?P<student_id>[\w][\w .@+-]*?)_(?P<file_id>ps\d_[a-z]+)"
)
c.FileNameCollectorPlugin.valid_ext = [".ipynb"]

# What students wrote runs nothing in a browser: not in the feedback pages, which need
# no network and whose list of points names each test, and not in the Formgrader.
pages.protect(c)
