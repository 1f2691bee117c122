"""From a command line to a job and its exit code; ``mer-ray JOB …`` is ``python jobs/JOB.py …``."""

from __future__ import annotations

import ast
import os
import signal
import sys
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, TypeVar, cast

import yaml
from pydantic import ValidationError, create_model
from pydantic_settings import SettingsError

from mer_ray.errors import InputError, Terminated, did_you_mean
from mer_ray.helptext import help_text
from mer_ray.settings import AS_GIVEN, JobSettings, Part, Presets, as_given, marked, part_of
from mer_ray.threads import leave, still_called

ALL_DONE, WRONG_INPUT, TOO_MANY_FAILURES, STOPPED, TERMINATED = 0, 2, 3, 130, 143
NOT_VALID = 3

Settings = TypeVar("Settings", bound=JobSettings)


def main() -> int:
    """``mer-ray JOB …``: every file of ``jobs/`` is a command."""
    folder = jobs_folder()
    jobs = {path.stem: path for path in sorted(folder.glob("[!_]*.py"))}
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in jobs:
        if name not in ("", "-h", "--help"):
            hint = did_you_mean(name, jobs)
            print(f"error: {name}: no such command{hint}; mer-ray --help lists them.", file=sys.stderr)
            return WRONG_INPUT
        print("usage: mer-ray COMMAND [--help] …\n")
        for job, path in jobs.items():
            print(f"  {job:<16} {(ast.get_docstring(ast.parse(path.read_text())) or '').splitlines()[0]}")
        return ALL_DONE
    sys.argv = [f"mer-ray {name}", *sys.argv[2:]]
    # As a script, but for the name in its help: runpy would put the path there.
    exec(compile(jobs[name].read_text(), jobs[name], "exec"), {"__name__": "__main__", "__file__": str(jobs[name])})
    return ALL_DONE


def jobs_folder() -> Path:
    """Where the jobs lie: beside the package in a checkout, inside it where it is installed."""
    package = Path(__file__).parent
    inside = package / "jobs"
    return inside if inside.is_dir() else package.parent / "jobs"


def run(job: Callable[[Settings], int], cls: type[Settings]) -> int:
    """Parse the command line, do the job, and turn a user's mistake into one sentence and exit code 2."""
    terminated: list[int] = []

    def terminate(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one must not cut off the cleaning up
        terminated.append(number)
        raise Terminated

    if current_thread() is main_thread():
        signal.signal(signal.SIGTERM, terminate)
    # Threads that share a matrix product spin while they wait for one another, and what else runs waits for them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.path.append(os.getcwd())  # modules that --encoder, --dataset and --loss name may lie here
    try:
        settings = parse(cls, sys.argv[1:])
        if settings.opening:
            print(settings.opening.format(**settings.model_dump()), flush=True)
        return job(settings)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt as end:
        by_sigterm = terminated or isinstance(end, Terminated)  # Ray may raise a KeyboardInterrupt of its own for it
        how = "stopped by SIGTERM" if by_sigterm else "interrupted"
        print(f"{how}; the same command goes on where this one stopped.", file=sys.stderr)
        code = TERMINATED if by_sigterm else STOPPED
        return leave(code) if still_called() else code


def parse(cls: type[Settings], arguments: Sequence[str]) -> Settings:
    """Resolve a job's settings.

    Raises:
        InputError: one sentence naming the setting, what is wrong and where to look.
    """
    filed = _from_file(arguments)
    chosen = {name: _said(cls, name, arguments, filed) for name in cls.doors}
    parts = {name: part_of(door, chosen[name]) for name, door in cls.doors.items()}
    whole = _whole(cls, tuple(parts.values()))
    if not {"-h", "--help"}.isdisjoint(arguments):
        print(help_text(whole, _brought(cls, parts.values()), _by_preset(whole, cls, arguments, filed)), end="")
        raise SystemExit(ALL_DONE)
    unknown = next((key for key in filed if key not in _names(whole)), None)
    if unknown is not None:
        raise InputError(f"--settings: unknown setting '{unknown}'{_hint(unknown, whole)}; see --help.")
    try:
        _refuse_others(cls, chosen, arguments)
        flags = _quoted(whole, arguments)
        build: Callable[..., JobSettings] = whole
        found = _with_preset(build(_cli_parse_args=flags, **filed))
    except ValidationError as error:
        raise InputError(
            "; ".join(_explain(problem, whole) for problem in error.errors()[:3]) + "; see --help."
        ) from error
    except SettingsError as error:
        raise InputError(_explain_flag(str(error), whole)) from error
    settings = cls.model_construct(
        found.model_fields_set & cls.model_fields.keys(), **{name: getattr(found, name) for name in cls.model_fields}
    )
    for name, part in parts.items():
        settings._parts[name] = part.model_validate({own: getattr(found, own) for own in part.model_fields})
    return settings


def _brought(cls: type[JobSettings], chosen: Iterable[type[Part]]) -> dict[str, list[type[Part]]]:
    """The settings that modules bring along, by the choice that brings them; those of a module outside first."""
    brought: dict[str, list[type[Part]]] = {}
    own = [part_of(door, name) for door in cls.doors.values() for name in door.names()]
    if strangers := [part for part in chosen if part not in own and part.model_fields]:
        brought["Of the chosen module"] = strangers
    for door in cls.doors.values():
        names: dict[type[Part], list[str]] = {}
        for name in door.names():
            names.setdefault(part_of(door, name), []).append(name)
        for part, choices in names.items():
            if part.model_fields:
                brought[f"With --{door.setting} {' or '.join(choices)}"] = [part]
    return brought


@cache
def _whole(cls: type[JobSettings], chosen: tuple[type[Part], ...]) -> type[JobSettings]:
    """One command line of a job's settings, of the chosen modules' and of those that might have been chosen."""
    theirs = [part_of(door, name) for door in cls.doors.values() for name in door.names()]
    parts = [part for part in dict.fromkeys([*chosen, *theirs]) if part.model_fields]
    if not parts:
        return cls
    whole: Any = create_model(cls.__name__, __base__=(cls, *parts), __doc__=cls.__doc__)
    each: list[Presets] = [cls.presets, *(part.presets for part in chosen)]
    whole.presets = {name: ChainMap(*(own.get(name, {}) for own in each)) for own in each for name in own}
    return cast("type[JobSettings]", whole)


def _quoted(cls: type[JobSettings], arguments: Sequence[str]) -> list[str]:
    """The arguments as their parser wants them: ``-k``, and texts in a spelling that it does not cut at commas."""
    texts = {"--" + name.rstrip("_").replace("_", "-") for name in marked(cls, AS_GIVEN)}
    flags, before = [], ""
    for argument in arguments:
        flag, is_whole, value = argument.partition("=")
        if flag in texts and is_whole:
            argument = f"{flag}={as_given(value)}"
        elif before in texts and not argument.startswith("--"):
            argument = as_given(argument)
        flags.append(argument[1:] if flag == "--k" else argument)
        before = argument
    return flags


def _by_preset(
    whole: type[JobSettings], cls: type[JobSettings], arguments: Sequence[str], filed: Mapping[str, Any]
) -> dict[str, Any]:
    """What the presets that are said set, so that help shows what a run with these flags does."""
    names = ("preset", "experiment")
    said: dict[str, Any] = {name: _said(cls, name, arguments, filed) for name in names if name in cls.model_fields}
    named = cls.model_construct(None, **said).preset_names
    return {name: value for each in named for name, value in whole.presets.get(each, {}).items()}


def _refuse_others(cls: type[JobSettings], chosen: Mapping[str, str], arguments: Sequence[str]) -> None:
    """Raise InputError for a flag of a module that was not chosen: it would do nothing."""
    given = {argument.split("=")[0] for argument in arguments}
    for setting, door in cls.doors.items():
        own = part_of(door, chosen[setting]).model_fields
        for name in door.names():
            flags = ["--" + field.replace("_", "-") for field in part_of(door, name).model_fields if field not in own]
            if idle := given.intersection(flags):
                raise InputError(
                    f"{sorted(idle)[0]}: a setting of --{setting} {name}, and --{setting} is {chosen[setting]}; "
                    "leave it out, or choose the other."
                )


def _said(cls: type[JobSettings], name: str, arguments: Sequence[str], filed: Mapping[str, Any]) -> str:
    """The value of a setting before the others are known, from where it is said first."""
    otherwise = os.environ.get(f"MER_{name.upper()}", filed.get(name))
    if (value := _flag("--" + name.replace("_", "-"), arguments, otherwise)) is not None:
        return str(value)
    preset = _said(cls, "preset", arguments, filed) if name != "preset" and "preset" in cls.model_fields else ""
    return str(cls.presets.get(preset, {}).get(name, cls.model_fields[name].default))


def _with_preset(settings: JobSettings) -> JobSettings:
    """Fill in what the preset says where nothing else does; what only other modules know is passed over."""
    preset = dict(pair for name in settings.preset_names for pair in settings.presets.get(name, {}).items())
    known = type(settings).model_fields.keys() - settings.model_fields_set
    return settings.model_copy(update={name: value for name, value in preset.items() if name in known})


def _from_file(arguments: Sequence[str]) -> dict[str, object]:
    path = _flag("--settings", arguments, os.environ.get("MER_SETTINGS"))
    if path is None:
        return {}
    if not Path(path).is_file():
        raise InputError(f"--settings {path}: no such file; give a YAML file of settings.")
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--settings {path}: not valid YAML; write lines like 'epochs: 20'.") from error
    if not isinstance(content, dict):
        raise InputError(f"--settings {path}: expected lines like 'epochs: 20'.")
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def _flag(flag: str, arguments: Sequence[str], otherwise: Any) -> Any:
    """What a command line gives a flag last, as its parser will find."""
    said = [f"{flag}={value}" if argument == flag else argument for argument, value in pairwise(arguments)]
    given = [each.removeprefix(f"{flag}=") for each in [*said, *arguments[-1:]] if each.startswith(f"{flag}=")]
    return given[-1] if given else otherwise


def _names(cls: type[JobSettings]) -> list[str]:
    return [name.rstrip("_") for name in cls.model_fields]


def _hint(name: str, cls: type[JobSettings]) -> str:
    return did_you_mean(name.replace("-", "_"), _names(cls)).replace("_", "-")


def _explain(problem: object, cls: type[JobSettings]) -> str:
    assert isinstance(problem, dict)
    if not problem["loc"]:
        return str(problem["msg"]).removeprefix("Value error, ")
    where = str(problem["loc"][0])
    flag = "--" + where.rstrip("_").replace("_", "-")
    if problem["type"] == "missing":
        return f"{flag}: required"
    if problem["type"] == "extra_forbidden":
        return f"{flag}: unknown setting{_hint(where, cls)}"
    return f"{flag} {problem.get('input')!s:.60}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _explain_flag(message: str, cls: type[JobSettings]) -> str:
    reason = message.removeprefix("error parsing CLI: ")
    if reason.startswith("unrecognized arguments: "):
        flag = reason.removeprefix("unrecognized arguments: ").split()[0]
        return f"{flag}: unknown setting{_hint(flag.lstrip('-').split('=')[0], cls)}; see --help."
    return f"{reason}; see --help."
