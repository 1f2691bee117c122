"""Doors: folders with one file an encoder, a dataset or a loss, where the file's name is the setting's value.

A module outside the tree serves as well, with or without a word of its own behind a colon:

    --encoder mert:m-a-p/MERT-v1-95M      mer_ray/encoders/mert.py is given ``m-a-p/MERT-v1-95M``
    --encoder my_pkg.clap:small           my_pkg/clap.py is given ``small``
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType

from mer_ray.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Door:
    """A folder of interchangeable modules.

    Attributes:
        package: the folder, as a package; its files whose names begin with ``_`` are no choices.
        setting: the flag that chooses among them, without dashes.
        needs: what each module must define.
        otherwise: the file that takes what names no module, such as a hub id or a directory.
        nothing: the value that chooses none of them.
    """

    package: str
    setting: str
    needs: str
    otherwise: str | None = None
    nothing: str | None = None

    def names(self) -> list[str]:
        """The files of the folder, sorted."""
        folder = importlib.import_module(self.package).__path__
        return sorted(found.name for found in pkgutil.iter_modules(folder) if not found.name.startswith("_"))

    def find(self, value: str) -> tuple[ModuleType, str]:
        """The module that a value names, and the word behind the colon, empty if there is none.

        Raises:
            InputError: no such module, or one that lacks what is needed.
        """
        name, _, word = value.partition(":")
        if name in self.names():
            return importlib.import_module(f"{self.package}.{name}"), word
        if _is_module(name):
            return self._checked(name), word
        is_uri = word.startswith("//")
        if self.otherwise is not None and (is_uri or not word or not name.replace(".", "").isidentifier()):
            return importlib.import_module(f"{self.package}.{self.otherwise}"), value
        raise InputError(
            f"--{self.setting} {value}: no such {self.setting}{did_you_mean(name, self.names())}; "
            f"give one of {', '.join(self.names())}, or a module that Python can import."
        )

    def _checked(self, name: str) -> ModuleType:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise InputError(
                f"--{self.setting} {name}: cannot be imported ({error}); install what it needs."
            ) from error
        if not hasattr(module, self.needs):
            raise InputError(
                f"--{self.setting} {name}: the module defines no '{self.needs}', "
                f"as {self.package.replace('.', '/')}/{self.names()[0]}.py does."
            )
        return module


def _is_module(name: str) -> bool:
    """Whether a name is a module outside the tree; a folder without code is none, nor is a name with a slash."""
    if not all(part.isidentifier() for part in name.split(".")):
        return False
    try:
        found = find_spec(name)
    except ImportError:  # a parent package that is not there
        return False
    return found is not None and found.origin is not None
