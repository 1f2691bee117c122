"""The card of the model that ships: what it is for, what was measured, what not to trust it with."""

from __future__ import annotations

from typing import Any

from mer_ray.learning.model import Model
from mer_ray.pages import table

UNRELIABLE = 0.72
"""Words whose ROC-AUC is below this are named as not to be relied on."""


def card(model: Model, measured: dict[str, Any]) -> str:
    """README.md of the model."""
    encoder, songs = model.config["encoder"], measured["songs"]
    weak = [word for word, of in measured["words"].items() if of["roc_auc"] < UNRELIABLE]
    genres = measured["genres_left_out"]
    genre_mean = {name: sum(of[name] for of in genres.values()) / len(genres) for name in ("macro_f1", "roc_auc")}
    unknown = measured["words_left_out"]
    left_out = f"{unknown['roc_auc']:.2f} ± {unknown['deviation']:.2f}"
    rows = [
        [f"{songs['tested']} songs never learned from", *_figures(measured["in_domain"])],
        [f"all {songs['learned'] + songs['tested']} songs, in five folds", *_figures(measured["folds"])],
        ["a genre never heard (mean of four)", *_figures(genre_mean)],
        *([f"– {genre}", *_figures(of)] for genre, of in genres.items()),
        [f"three words never learned ({unknown['draws']} draws)", "", left_out],
        ["chance", f"{chance_f1(measured['words']):.2f}", "0.50"],
    ]
    words = [
        [word, f"{of['share']:.0%}", f"{of['f1']:.2f}", f"{of['roc_auc']:.2f}", f"{of['best_tenth']:.0%}"]
        for word, of in measured["words"].items()
    ]
    moods = [[mood, f"{of['carried']:.0%}", of["nearest"]] for mood, of in measured["moods"].items()]
    rank = model.projector.shape.hidden_dim
    return f"""# gems

Tells nine emotions of music from a song's sound, those of the Geneva Emotional Music Scales:
{", ".join(measured["words"])}.

It learned them from {songs["learned"]} one-minute songs of four genres and from the votes that their listeners gave, in
Emotify (Aljanaki, Wiering and Veltkamp 2016).

```sh
mer-ray tag --catalog ~/Music --features features/ --encoder descriptors --model gems --labels moods --output tags/
```

Its features are those of `--encoder descriptors`, version {encoder["weights_sha256"]} (D = {encoder["dim"]}): numpy and
scipy, no weights. On top of them lies a ridge regression of rank {rank}, in closed form. `make gems` makes it anew.

**Licence.** Emotify is for research use. Until somebody clears it, so are this model and the tags made with it.

## How well

Three of the nine words a song, scores standardized over the songs.

{table(["tested on", "macro F1", "ROC-AUC"], rows)}
Each word, in five folds over all songs. *Best tenth*: of the songs that it suits best, how many have it.

{table(["word", "songs that have it", "F1", "ROC-AUC", "best tenth"], words)}
## What not to rely on

- {" and ".join(weak) or "No word"}: below {UNRELIABLE} ROC-AUC.
- Nine words do not carry a vocabulary. Another word is placed by the nine in the space of sentence embeddings; for
  words that were left out of training the ROC-AUC is about {unknown["roc_auc"]:.2f}. `--labels moods` are everyday
  words of which the nine span a good part; what they leave open nobody has measured:

{table(["mood", "spanned by the nine", "nearest of them"], moods)}
- It heard classical, rock, electronic and pop, and Western listeners on the web. Other music gets words too, and so do
  speech, noise and silence.
- It knows neither how loud a song is, nor what lies above 7.5 kHz, nor its lyrics.
"""


def chance_f1(words: dict[str, dict[str, float]]) -> float:
    """Macro F1 of three words drawn for each song."""
    given = 3 / len(words)
    return sum(2 * of["share"] * given / (of["share"] + given) for of in words.values()) / len(words)


def _figures(of: dict[str, float]) -> list[str]:
    return [f"{of['macro_f1']:.3f}", f"{of['roc_auc']:.3f}"]
