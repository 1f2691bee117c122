"""Models that ship with the package: a folder a model. Its name stands for its directory wherever a model is asked for.

A name that ships wins over a folder of that name, as with encoders: the folder is ``./gems``.
"""

from pathlib import Path

_HERE = Path(__file__).parent


def names() -> list[str]:
    """The models that ship, sorted."""
    return sorted(folder.name for folder in _HERE.iterdir() if (folder / "config.json").is_file())


def located(model: str) -> str:
    """The directory of a model: where one that ships lies on this machine, any other as it is."""
    return str(_HERE / model) if model in names() else model
