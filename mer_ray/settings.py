"""What all settings share: where they come from, presets, URIs, and the settings that a door's module brings along.

Flags win over the environment, the environment over the file named by ``--settings``.
The docstring under a field is what ``--help`` prints. Each package keeps its own settings beside its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote, unquote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from mer_ray import models
from mer_ray.doors import Door
from mer_ray.uris import absolute

Fraction = Annotated[float, Field(ge=0, le=1)]
Presets = dict[str, dict[str, Any]]


def _named_or_absolute(model: str) -> str:
    """A model that ships by its name, which every machine of a cluster finds at home; any other as a URI."""
    return model if model in models.names() else absolute(model)


def _not_shipped(model: str) -> str:
    """The URI of a model to be written."""
    if model in models.names():
        raise ValueError(f"'{model}' is a model that ships; call the folder ./{model}")
    return absolute(model)


Uri = Annotated[str, Field(min_length=1), AfterValidator(absolute)]
ModelUri = Annotated[str, Field(min_length=1), AfterValidator(_named_or_absolute)]
NewModelUri = Annotated[str, Field(min_length=1), AfterValidator(_not_shipped)]

AS_GIVEN = "a list of texts that are taken as they stand, commas and brackets too"
_SPELLED = "\ue000"


def as_given(text: str) -> str:
    """A text of a command line, spelled so that a parser that looks for commas and brackets finds none."""
    return _SPELLED + quote(text, safe="", errors="surrogateescape")


def _read(text: str) -> str:
    return unquote(text[1:], errors="surrogateescape") if text.startswith(_SPELLED) else text


Texts = Annotated[tuple[Annotated[str, AfterValidator(_read)], ...], AS_GIVEN]

READING = "a reading of the paper: a result always says which it used"
OPERATIONAL = "how the work is done; another value gives the same result"


class Part(BaseModel):
    """The settings that one encoder, dataset or loss brings along; ``--help`` shows those of the chosen one."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, frozen=True)

    presets: ClassVar[Presets] = {}
    """As in :class:`JobSettings`."""


class JobSettings(BaseSettings):
    """What every job's settings share."""

    model_config = SettingsConfigDict(
        env_prefix="MER_",
        env_prefix_target="all",
        extra="forbid",
        use_attribute_docstrings=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_exit_on_error=False,
        cli_ignore_unknown_args=False,
        allow_inf_nan=False,
    )

    settings: Annotated[str | None, OPERATIONAL] = None
    """A YAML file with any of these settings (names as the flags, dashes or underscores)."""

    presets: ClassVar[Presets] = {}
    """Named readings of the paper: what each sets where flags, environment and file say nothing."""
    doors: ClassVar[Mapping[str, Door]] = {}
    """The settings whose value names a module, which may bring settings of its own."""
    opening: ClassVar[str] = ""
    """What a job says at once, with its settings in braces."""

    _parts: dict[str, Part] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment, then what the caller read from the settings file (flags come before both)."""
        return env_settings, init_settings

    @property
    def preset_names(self) -> list[str]:
        """The keys of :attr:`presets` that were asked for; a later one wins."""
        return [getattr(self, "preset", "")]

    def part(self, name: str) -> Any:
        """The settings of the module that a setting with a door has chosen."""
        if name not in self._parts:
            self._parts[name] = part_of(self.doors[name], getattr(self, name))()
        return self._parts[name]

    def resolved(self) -> dict[str, Any]:
        """Every setting by name, those of the chosen modules among them."""
        values = self.model_dump()
        for name in self.doors:
            values |= self.part(name).model_dump()
        return values


class OutputSettings(JobSettings):
    """Jobs that write into a directory in which one run at a time is at work."""

    wait: Annotated[bool, OPERATIONAL] = False
    """Where another run is at work in the output, wait for its end; else it is named and this one stops."""


class PresetSettings(JobSettings):
    """Jobs whose settings decide how the paper is read."""

    preset: Annotated[Literal["paper", "reference"], READING] = "paper"
    """All readings at once: the paper's, or its published code's; single settings still win."""


def part_of(door: Door, value: str) -> type[Part]:
    """The class of the settings that a value's module brings along.

    Raises:
        InputError: there is no such module.
    """
    if value == door.nothing:
        return Part
    found: type[Part] = getattr(door.find(value)[0], "Settings", Part)
    return found


def marked(settings: type[BaseModel] | BaseModel, mark: str) -> list[str]:
    """The fields that carry :data:`READING` or :data:`OPERATIONAL`, those of chosen modules among them."""
    cls = settings if isinstance(settings, type) else type(settings)
    names = [name for name, field in cls.model_fields.items() if mark in field.metadata]
    if isinstance(settings, JobSettings):
        for name in settings.doors:
            names += marked(settings.part(name), mark)
    return names
