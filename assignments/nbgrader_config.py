"""nbgrader's settings for this course; `book/teach.md` says how to use it."""

import re
from pathlib import Path

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "transformer"

# What stands in a released notebook where the solution was. It runs, and gives nothing.
c.ClearSolutions.code_stub = {"python": "# your code\n..."}
c.ClearSolutions.text_stub = "*Your reading*"

# While grading: a cell that takes longer is stopped, and what it printed is cut. The
# extension stops a cell that prints without end, and keeps its hands off other files.
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
# name is all that stands before: grace-hopper, m.curie, 2026_17.
c.FileNameCollectorPlugin.named_regexp = (
    r"(?:.*[/\\])?(?P<student_id>[^/\\]+?)_(?P<file_id>ps\d_[a-z]+)"
)
c.FileNameCollectorPlugin.valid_ext = [".ipynb"]

# Feedback pages need no network: no formula in them, and so no MathJax from afar. Their
# list of points names each test.


def tidy_feedback(assignment, notebooks, **_):
    """Take the script out of the page that was just made, and name its tests."""
    for notebook in map(Path, notebooks):
        page = Path("feedback", notebook.parts[-3], assignment, f"{notebook.stem}.html")
        text = page.read_text("utf-8")
        text = re.sub(r'<script src="https?:[^"]*"> ?</script>', "", text)
        text = re.sub(
            r'(<a href="#(\w+)">)Test cell<', r"\1Test <code>\2</code><", text
        )
        page.write_text(text, "utf-8")


c.GenerateFeedback.post_convert_hook = tidy_feedback
