"""MERT by hub id or from a directory in the hub's layout (``config.json``, weights); the value that names no module.

MERT-v1 is a HuBERT by architecture, so its weights load into the library's own class and no code from the hub is run.
"""

from __future__ import annotations

from pathlib import Path

from mer_ray.encoders._encoder import Encoder
from mer_ray.encoders._settings import Settings as Settings
from mer_ray.errors import InputError

DEFAULT = "m-a-p/MERT-v1-95M"
REVISIONS = {DEFAULT: "12af15fef9d0ac838c3f475bfbbf26d2060dd4f5"}
"""Commits that were looked at. Another id, m-a-p/MERT-v1-330M too, needs its own named."""
LICENCE = "CC-BY-NC-4.0"


def load(word: str, settings: Settings, device: str) -> Encoder:
    """A MERT, or any HuBERT published in the same layout.

    Raises:
        InputError: no such directory or hub id, or weights that are not a MERT's.
    """
    from mer_ray.encoders._hubert import hubert, load_directory

    name = word or DEFAULT
    folder, revision, licence = _found(name, settings.encoder_revision)
    return hubert(load_directory(folder), settings, device, name=name, revision=revision, licence=licence)


def _found(name: str, revision: str | None) -> tuple[Path, str | None, str]:
    """The folder of an encoder's files, its revision and licence; fetched from the hub if need be."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder, revision, _licence(name, folder)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise InputError(
            f"encoder {name}: no such directory; give a directory, a hub id, a module, 'random' or 'tiny'."
        )
    revision = revision or REVISIONS.get(name)
    if revision is None:
        raise InputError(f"encoder {name}: no pinned revision; add --encoder-revision with the hub's commit.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    patterns = ["config.json", "*.safetensors", "pytorch_model.bin"]
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise InputError(
            f"encoder {name}@{revision[:8]}: not in the local cache and the hub did not answer "
            f"({type(error).__name__}); give a local directory, or --encoder tiny to try the pipeline."
        ) from error
    return folder, revision, LICENCE if "MERT" in name else "see the hub page"


def _licence(name: str, folder: Path) -> str:
    """MERT's own, else what the directory's model card says in its head."""
    if "mert" in name.lower():
        return LICENCE
    card = folder / "README.md"
    head = card.read_text(errors="replace").split("---")[1:2] if card.is_file() else []
    lines = [line.partition(":") for line in "".join(head).splitlines()]
    said = [value.strip(" '\"") for key, _, value in lines if key == "license"]
    return said[0] if said else "unknown (local directory)"
