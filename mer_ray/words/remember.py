"""Makes the file of known vectors anew, after a change to the thesaurus: ``python -m mer_ray.words.remember``."""

import json
from importlib.resources import files

import numpy as np
from safetensors.numpy import save_file

from mer_ray.fingerprints import file_sha256, weights_sha256
from mer_ray.words.embedding import label_model, packaged_model
from mer_ray.words.known import FILE, WEIGHTS
from mer_ray.words.wordspace import lexicon_texts


def main() -> None:
    """Encode every phrase and write the file."""
    texts = sorted({text.replace("_", " ") for group in lexicon_texts() for text in group})
    vectors = label_model().encode(texts, normalize_embeddings=True, show_progress_bar=False)
    said = {"weights_sha256": weights_sha256(label_model()), "texts": json.dumps(texts)}
    if packaged := packaged_model("auto"):
        said["file_sha256"] = file_sha256(packaged / WEIGHTS)
    save_file({"vectors": vectors.astype(np.float32)}, str(files("mer_ray").joinpath(FILE)), metadata=said)


if __name__ == "__main__":
    main()
