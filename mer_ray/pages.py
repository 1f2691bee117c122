"""What a person reads: a table for Markdown or a console, and sections as Markdown or as one HTML page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Grid(NamedTuple):
    """A table before it is written down: the first column names a row."""

    header: list[str]
    rows: list[list[str]]


class Picture(NamedTuple):
    """A PNG: the name of its file without the ending, what it shows, and its bytes."""

    name: str
    alt: str
    png: bytes


class Player(NamedTuple):
    """A song to listen to: what it is called, what is said of it, and a link, None where it cannot be heard."""

    name: str
    text: str
    link: str | None


class Verdict(NamedTuple):
    """What a reader came for, in a frame of its own; ``warn`` where it must be read with care."""

    text: str
    warn: bool = False


Block = str | Grid | Picture | Player | Verdict | list[str]
"""A paragraph, a table, a picture, a song, a verdict, or remarks."""


class Section(NamedTuple):
    """A part of a report under its heading, which may be empty."""

    heading: str
    blocks: list[Block]


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


def headed(axes: Axes, title: str) -> None:
    """The title of a picture, as all pictures have it."""
    axes.set_title(title, loc="left", fontsize=11, color="#1f2933")


def png(figure: Figure) -> bytes:
    """A figure as it goes into a page."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=130)
    return image.getvalue()


def markdown(title: str, sections: Sequence[Section]) -> str:
    """The sections as Markdown, which names its pictures as files beside it."""

    def written(block: Block) -> str:
        match block:
            case str():
                return block
            case Grid():
                return table(*block).rstrip()
            case Picture():
                return f"![{block.alt}]({block.name}.png)"
            case Player():
                return f"{block.name}: {block.text}"
            case Verdict():
                return f"**{block.text}**"
            case _:
                return "\n".join(f"- {item}" for item in block)

    parts = [f"# {title}"]
    for heading, blocks in sections:
        parts += [f"## {heading}"] if heading else []
        parts += map(written, blocks)
    return "\n\n".join(parts) + "\n"


def page(title: str, sections: Sequence[Section]) -> str:
    """The same as one HTML page that needs no other file and no network; all text is escaped."""
    named = [(html.escape(heading), f"s{at}", blocks) for at, (heading, blocks) in enumerate(sections)]
    links = " ".join(f'<a href="#{name}">{heading}</a>' for heading, name, _ in named if heading)
    bodies = "\n".join(
        f'<section id="{name}">\n'
        + (f"<h2>{heading}</h2>\n" if heading else "")
        + "\n".join(map(_html, blocks))
        + "\n</section>"
        for heading, name, blocks in named
    )
    name = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{name}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>\n<nav>{links}</nav>\n{bodies}\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case str():
            return f"<p>{html.escape(block)}</p>"
        case Grid():
            rows = [("th", block.header), *(("td", row) for row in block.rows)]
            lines = ["".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) for tag, row in rows]
            head, *body = (f"<tr>{line}</tr>" for line in lines)
            written = "\n".join(body)
            return f'<div class="wide"><table>\n<thead>{head}</thead>\n<tbody>\n{written}\n</tbody></table></div>'
        case Picture():
            inside = base64.b64encode(block.png).decode()
            return f'<div class="wide"><img alt="{html.escape(block.alt)}" src="data:image/png;base64,{inside}"></div>'
        case Player():
            name, text, link = (html.escape(each or "") for each in block)
            audio = f'<audio controls preload="none" src="{link}"></audio>' if link else ""
            return f'<div class="song"><b>{name}</b><p>{text}</p>{audio}</div>'
        case Verdict():
            return f'<p class="verdict{" warn" if block.warn else ""}">{html.escape(block.text)}</p>'
        case _:
            return "<ul>\n" + "\n".join(f"<li>{html.escape(item)}</li>" for item in block) + "\n</ul>"


_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; background: #fff; max-width: 1000px; margin: 0 auto;
  padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 2px solid #1f2933; }
nav a { color: #2b5a8c; margin-right: 1.25rem; white-space: nowrap; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .5rem 0 1rem; }
th, td { padding: .28rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #e1e6eb; }
th { font-weight: 600; border-bottom: 2px solid #9aa5b1; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tbody tr:hover { background: #f2f5f8; }
img { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
.verdict { font-size: 1.1rem; background: #eef4fa; border-left: 4px solid #2b5a8c; padding: .6rem .9rem; }
.warn { background: #fff3e6; border-color: #d9822b; }
.song { margin: .8rem 0; overflow-wrap: anywhere; }
.song audio { display: block; width: 100%; max-width: 520px; height: 2.2rem; margin-top: .3rem; }
@media (max-width: 700px) { body { padding: 1rem .8rem 3rem; } .wide img { max-width: none; width: 680px; } }
li { margin: .3rem 0; overflow-wrap: anywhere; }
"""
