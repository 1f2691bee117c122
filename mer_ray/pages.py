"""What a person reads: tables as Markdown, on a console or in HTML, and a page that needs no other file."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import NamedTuple


class Grid(NamedTuple):
    """A table before it is written down: the first column names a row."""

    header: list[str]
    rows: list[list[str]]


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column left, the others right."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *rows]) + "\n"


def text_table(header: list[str], rows: list[list[str]]) -> str:
    """The same for a console: columns aligned, the first left, the others right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        [cells[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))]
        for cells in (header, ["-" * width for width in widths], *rows)
    ]
    return "\n".join("  ".join(cells).rstrip() for cells in lines) + "\n"


def html_table(header: list[str], rows: list[list[str]]) -> str:
    """The same for a page, all text escaped."""

    def row(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(row(cells, "td") for cells in rows)
    return f'<div class="wide"><table>\n<thead>{row(header, "th")}</thead>\n<tbody>\n{body}\n</tbody></table></div>'


def html_image(png: bytes, alt: str) -> str:
    """A picture that travels inside the page."""
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def html_list(items: Sequence[str]) -> str:
    """Paragraph-sized remarks, all text escaped."""
    return "<ul>\n" + "\n".join(f"<li>{html.escape(item)}</li>" for item in items) + "\n</ul>"


def page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """One HTML page that needs no other file and no network.

    Args:
        title: plain text.
        sections: heading (plain text; none if empty) and body (HTML) of each.
    """
    named = [(heading, f"s{at}", body) for at, (heading, body) in enumerate(sections)]
    links = " ".join(f'<a href="#{name}">{html.escape(heading)}</a>' for heading, name, _ in named if heading)
    bodies = "\n".join(
        f'<section id="{name}">\n' + (f"<h2>{html.escape(heading)}</h2>\n" if heading else "") + f"{body}\n</section>"
        for heading, name, body in named
    )
    name = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{name}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>\n<nav>{links}</nav>\n{bodies}\n</body>\n</html>\n"
    )


_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; background: #fff; max-width: 1000px; margin: 0 auto;
  padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 2px solid #1f2933; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
nav a { color: #2b5a8c; margin-right: 1.25rem; white-space: nowrap; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .5rem 0 1rem; }
th, td { padding: .28rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #e1e6eb; }
th { font-weight: 600; border-bottom: 2px solid #9aa5b1; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tbody tr:hover { background: #f2f5f8; }
img { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
li { margin: .3rem 0; overflow-wrap: anywhere; }
"""
