"""The report as one HTML page: no network, no script, pictures within."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from annotated_transformer.doctor.causes import CAUSES, Cause
from annotated_transformer.doctor.drawings import Drawing, drawings
from annotated_transformer.doctor.report import (
    HEALTHY,
    NOTE,
    SKIPPED,
    Report,
    Result,
    chapter_title,
    in_full,
    jsonable,
    plain,
    sentence,
)

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #20242a; --soft: #565d66; --line: #dcdfe3; --wash: #f5f6f7; --page: #fff;
  --bad: #a33e00; --good: #02694f; --focus: #015a8c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e6e9; --soft: #aab1ba; --line: #3a4149; --wash: #20252b; --page: #15191e;
    --bad: #f2a36b; --good: #4fc8a0; --focus: #8fccf0;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 1rem/1.55 "Source Sans 3", "Segoe UI", Helvetica, Arial, sans-serif;
}
main { max-width: 46rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
.findings h2 { font-size: 1.02rem; line-height: 1.4; margin: 0; }
h1, h2, p, li, dd, td, th { overflow-wrap: anywhere; }
h1.bad { color: var(--bad); } h1.good { color: var(--good); }
.soft, dt, figcaption { color: var(--soft); }
.findings { list-style: none; margin: 1.2rem 0 0; padding: 0; }
.findings > li {
  border: 1px solid var(--line); border-left: 4px solid var(--bad);
  border-radius: 4px; padding: .8rem 1rem; margin: 0 0 .8rem;
}
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .9rem; }
dl, dd { margin: .35rem 0 0; } dt { margin-top: .35rem; }
summary { cursor: pointer; margin-top: .5rem; font-weight: 600; }
summary:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
.causes > li { margin: .5rem 0; } .causes p { margin: .1rem 0; }
code { background: var(--wash); padding: .05rem .25rem; border-radius: 3px; }
figure {
  margin: 0 0 1.4rem; padding: .8rem; background: #fff; border: 1px solid var(--line);
  border-radius: 4px;
}
figure svg { display: block; width: 100%; max-width: 32rem; height: auto; }
figure svg { margin: 0 auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { color: #3d434b; margin-top: .6rem; }
table { border-collapse: collapse; width: 100%; margin-top: .5rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0; }
th { font-weight: 400; color: var(--soft); } tr { border-top: 1px solid var(--line); }
@media (max-width: 30rem) {
  main { padding: 1rem .9rem 3rem; } .causes { padding: 0 0 0 1.2rem; }
}
@media print { details > * { display: block; } }
"""


def e(text: Any) -> str:
    """Any text as HTML: a file's name and an error's message may be hostile."""
    return escape(plain(text))


def page(report: Report) -> str:
    """The whole page: verdict, findings, pictures, the rest."""
    parts = [
        f'<h1 class="{"good" if report.healthy else "bad"}">{e(report.verdict)}</h1>',
        *finding_parts(report.findings),
        *picture_parts(drawings(report.pictures, report.facts)),
        *listed("Worth knowing", map(in_full, report.of_kind(NOTE))),
        *folded("What was healthy", map(in_full, named(report.of_kind(HEALTHY)))),
        *folded(
            "What was skipped, and how to give it",
            map(in_full, named(report.of_kind(SKIPPED))),
        ),
        *fact_parts(report.facts),
    ]
    body = "\n".join(parts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{e(report.verdict)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def named(results: Sequence[Result]) -> Iterator[Result]:
    """The results, their examination before what they say."""
    for result in results:
        yield replace(result, says=f"{result.examination}: {result.says}")


def finding_parts(findings: Sequence[Result]) -> Iterator[str]:
    """A card for each finding, the details of the first open."""
    if findings:
        yield '<ol class="findings">'
    for number, finding in enumerate(findings, 1):
        yield f"<li><h2>{number}. {e(sentence(finding.says))}</h2>"
        yield numbers(finding)
        yield f"<details{' open' * (number == 1)}>"
        yield "<summary>Likely causes, and how to confirm each</summary>"
        yield f'<p class="soft">Examined: {e(finding.examination)}</p>'
        yield '<ol class="causes">'
        yield from (cause_part(CAUSES[name]) for name in finding.causes)
        yield "</ol></details></li>"
    if findings:
        yield "</ol>"


def numbers(finding: Result) -> str:
    """What was measured and expected, if it was said."""
    pairs = [("measured", finding.measured), ("expected", finding.expected)]
    rows = [f"<dt>{name}</dt><dd>{e(value)}</dd>" for name, value in pairs if value]
    return f"<dl>{''.join(rows)}</dl>" if rows else ""


def cause_part(cause: Cause) -> str:
    """A cause: its name, how to confirm it, and where in the course it is explained."""
    return (
        f"<li><p><strong>{e(cause.title)}</strong></p><p>{e(cause.confirm)}</p>"
        f'<p class="soft">{e(chapter_title(cause.chapter))}: '
        f"<code>notebooks/{e(cause.chapter)}.ipynb</code></p></li>"
    )


def picture_parts(pictures: Iterable[Drawing]) -> Iterator[str]:
    """Each picture with its caption, which says what is seen."""
    shown = list(pictures)
    if shown:
        yield "<h2>Pictures</h2>"
    for drawing in shown:
        yield f"<figure>{drawing.svg}"
        yield f"<figcaption><strong>{e(drawing.finding)}</strong> {e(drawing.how)}"
        yield "</figcaption></figure>"


def listed(title: str, lines: Iterable[str]) -> Iterator[str]:
    """A list under a heading, if there is anything to list."""
    items = "".join(f"<li>{e(line)}</li>" for line in lines)
    if items:
        yield f"<h2>{e(title)}</h2><ul>{items}</ul>"


def folded(title: str, lines: Iterable[str]) -> Iterator[str]:
    """A list that opens, if there is anything to list."""
    items = "".join(f"<li>{e(line)}</li>" for line in lines)
    if items:
        yield f"<details><summary>{e(title)}</summary><ul>{items}</ul></details>"


def fact_parts(facts: Mapping[str, Any]) -> Iterator[str]:
    """What else was measured."""
    rows = "".join(
        f'<tr><th scope="row">{e(str(name).replace("_", " "))}</th>'
        f"<td>{e(fact(value))}</td></tr>"
        for name, value in facts.items()
    )
    if rows:
        yield (
            "<details><summary>What was measured besides</summary>"
            f"<table>{rows}</table></details>"
        )


def fact(value: Any) -> str:
    """A fact in a few words."""
    value = jsonable(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 400 else f"{text[:400]} …"
