"""Windows to features: one file an encoder. A module outside the tree serves as well.

    encoder = load_encoder("m-a-p/MERT-v1-95M")     # a hub id, a directory, tiny, random or my_pkg.clap:small
    encoder(windows)                                # [b, samples] at encoder.sample_rate -> [b, encoder.dim] float32

An encoder's module defines ``load(word, settings, device)``, which returns an :class:`Encoder`; ``word`` is what
follows the colon, ``device`` is ``cpu`` or ``cuda``. It may define ``Settings``, a :class:`mer_ray.settings.Part`
whose fields become flags of the jobs; where the device decides one of them, ``Settings.on(device)`` says how.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from os import PathLike
from typing import Any

from pydantic import ValidationError

from mer_ray.doors import Door
from mer_ray.encoders._encoder import Encoder
from mer_ray.errors import InputError
from mer_ray.settings import OPERATIONAL, Part, marked, part_of

__all__ = ["DOOR", "Encoder", "as_made", "load_encoder"]

DOOR = Door("mer_ray.encoders", "encoder", needs="load", otherwise="mert")


def as_made(identity: Mapping[str, Any]) -> tuple[str, Part]:
    """The name and the own settings of the encoder whose features a store holds, or a model was trained on.

    Raises:
        InputError: it is a module that cannot be found by the name it gave itself.
    """
    name = str(identity.get("name"))
    part = part_of(DOOR, name)
    said = {**identity, "encoder_revision": identity.get("revision")}
    own = {key: said[key] for key in part.model_fields if key != "dtype" and said.get(key) is not None}
    return name, part.model_validate(own)


def load_encoder(
    name: str | PathLike[str] = "m-a-p/MERT-v1-95M", device: str = "auto", settings: Part | None = None, **own: Any
) -> Encoder:
    """Load an encoder.

    ``device`` may be ``auto``, which takes the GPU if there is one. Where no ``settings`` are given, ``own`` are the
    same by name, such as ``layers=(12,)``.

    Raises:
        InputError: there is no such encoder, it cannot be loaded or cannot encode a moment of noise, or torch sees no
            GPU.
    """
    module, word = DOOR.find(str(name))
    if device != "cpu":  # torch takes seconds to import, which an encoder without it need not spend
        import torch

        seen = torch.cuda.is_available()
        if device != "auto" and not seen:
            raise InputError(
                f"encoder {name}: torch sees no GPU on {os.uname().nodename}; "
                "mend its driver (nvidia-smi says what it sees), or encode on CPUs with --gpus 0."
            )
        device = "cuda" if seen else "cpu"
    try:
        settings = getattr(module, "Settings", Part)(**own) if settings is None else settings
        encoder: Encoder = module.load(word, settings, device)
        if not isinstance(encoder, Encoder):
            raise InputError(f"encoder {name}: its load returns no mer_ray.encoders.Encoder.")
        encoder.check()
    except InputError:
        raise
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise InputError(f"encoder {name}: {where} {problem.get('input')!s:.60}: {problem['msg']}.") from error
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(".")
        raise InputError(f"encoder {name}: cannot be used ({what}, at {at.filename}:{at.lineno}).") from error
    if encoder.settings is None:
        encoder.settings = settings.model_dump(exclude=set(marked(settings, OPERATIONAL)))
    return encoder
