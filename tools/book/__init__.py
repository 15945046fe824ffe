"""Builds the web book: Jupyter Book over a prepared copy of the notebooks.

`chapters` copies the notebooks, `pages` writes what is made from data (the paper line
by line, departures, API, map of the code), and `extension` runs inside Sphinx. Nothing
is executed, and nothing outside `book/_build` and `book/node_modules` is written.
"""
