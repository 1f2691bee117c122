"""What ``--help`` prints: what a job needs, an example, then its settings in groups, each with its kind and default."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_settings import CliPositionalArg

from mer_ray.settings import OPERATIONAL, JobSettings, ModelUri, NewModelUri, Part, Uri

_KINDS = {int: "N", float: "X", str: "TEXT", bool: ""}
_PATHS = [get_args(kind)[-1] for kind in (Uri, ModelUri, NewModelUri)]
"""What marks a text as a path or URI: the last thing that is done with one."""
_WIDTH = 100
_COLUMN = 26


def help_text(cls: type[JobSettings], parts: dict[str, list[type[Part]]], said: Mapping[str, Any]) -> str:
    """For a console.

    Args:
        cls: all settings.
        parts: those that modules bring along, by what chooses these.
        said: defaults that a preset says otherwise.
    """
    theirs = {name for own in parts.values() for part in own for name in part.model_fields}
    own = {name: field for name, field in cls.model_fields.items() if name not in theirs}
    needed = {name: field for name, field in own.items() if field.is_required()}
    work = {name: field for name, field in own.items() if name not in needed and OPERATIONAL in field.metadata}
    rest = {name: field for name, field in own.items() if name not in needed | work}
    command = sys.argv[0].rsplit("/", 1)[-1]
    usage = " ".join(_call(name, field) for name, field in needed.items())
    lines = [f"usage: {command} {usage}{' ' if usage else ''}[setting …]", "", (cls.__doc__ or "").strip()]
    if examples := _examples():
        lines += ["", "For example:", "", *(f"  {line}" for line in examples)]
    groups = {"Needed": needed, "Settings": rest, "How the work is done": work}
    for heading, brought in parts.items():
        groups[heading] = {name: field for part in brought for name, field in part.model_fields.items()}
    for heading, fields in groups.items():
        if fields:
            lines += ["", f"{heading}:", *(line for each in fields.items() for line in _setting(*each, said))]
    return "\n".join(lines) + "\n"


def _examples() -> list[str]:
    """The commands in the docstring of the job that is running."""
    doc = getattr(sys.modules.get("__main__"), "__doc__", None) or ""
    return [line for line in doc.splitlines()[1:] if line.startswith(("python jobs/", "    --"))]


def _setting(name: str, field: FieldInfo, said: Mapping[str, Any]) -> Iterator[str]:
    flag = _call(name, field)
    default = "" if field.is_required() else _default(said.get(name, field.get_default(call_default_factory=True)))
    text = f"{' '.join((field.description or '').split())}{f' [{default}]' if default else ''}"
    width = min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns) - _COLUMN - 2
    lines = textwrap.wrap(text, max(30, width), break_on_hyphens=False)
    head = f"  {flag} "
    if len(head) > _COLUMN + 1:
        yield head.rstrip()
        head = ""
    for at, line in enumerate(lines):
        yield f"{(head if at == 0 else '').ljust(_COLUMN + 2)}{line}"


def _call(name: str, field: FieldInfo) -> str:
    """The flag as a user types it, with the kind of value it takes."""
    plain = name.rstrip("_").replace("_", "-")
    if get_args(CliPositionalArg[str])[1] in field.metadata:
        return plain.upper()
    dashes = "-" if len(plain) == 1 else "--"
    return f"{dashes}{plain} {_kind(field.annotation, field.metadata)}".rstrip()


def _kind(annotation: Any, marks: Sequence[Any]) -> str:
    """The kind of value in a word; a list of values is given by repeating the flag, or of numbers by commas."""
    origin, inner = get_origin(annotation), [each for each in get_args(annotation) if each is not NoneType]
    if hasattr(annotation, "__metadata__"):
        return _kind(annotation.__origin__, annotation.__metadata__)
    if origin in (Union, UnionType):
        return _kind(inner[0], marks)
    if origin is Literal:
        return "|".join(map(str, inner))
    if origin in (list, tuple):
        kind = _kind(inner[0], ())
        return f"{kind} …" if kind in ("TEXT", "PATH") else f"{kind},{kind},…"
    if annotation is str and any(mark in marks for mark in _PATHS):
        return "PATH"
    return _KINDS.get(annotation, "VALUE")


def _default(value: Any) -> str:
    if value in (None, (), [], "") or value is False:
        return ""
    if value is True:
        return "on; --no-… turns it off"
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
