"""A small catalogue of real audio files, composed here, for the demo and for tests without a dataset.

Each piece is written from a latent mood whose tempo, mode, register, timbre, articulation and loudness
follow the cues that listeners use: Juslin & Laukka, "Communication of emotions in vocal expression and
music performance" (Psychological Bulletin, 2003); Gabrielsson & Lindström, "The role of structure in the
musical expression of emotions" (Handbook of Music and Emotion, 2010). Joy is fast, major, high, bright and
staccato; sadness slow, minor, low, dull, legato and soft; tension fast, dissonant and rough; power loud,
full in register and brassy.

The pieces form two datasets that name the same moods in different words: the nine of Emotify (the Geneva
Emotional Music Scale) and twelve of MTG-Jamendo's mood/theme tags, most of them words that MiniLM places by
their musical sense (it holds `dramatic`, left out, nearer sadness than power). Format and duration tell
nothing of the mood. The music carries the words by construction: scores on it show that a pipeline works,
never how well a method does on recorded music.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

Signal = NDArray[np.float32]

PEAK = 0.75  # room for lossy codecs: ffmpeg's AAC returned drum hits up to twice as loud
TABLE = 4096
BEATS = 4


class Cues(NamedTuple):
    """What a listener hears of a mood.

    tempo in beats a minute; scale, a key of `SCALES`; register, the MIDI pitch near the melody's tonic;
    brightness from 0 (almost sine) to 1 (saw-like); articulation, the sounding share of a note (0.4
    staccato, 1 legato); loudness, RMS in dB full scale; attack in seconds; pulse, strikes of the
    accompaniment a bar; density, melody notes a beat; roughness from 0 to 1, semitone clusters and
    overdrive; drums and reverb from 0 to 1; lead and backing, keys of `TIMBRES`.
    """

    tempo: float
    scale: str
    register: float
    brightness: float
    articulation: float
    loudness: float
    attack: float
    pulse: float
    density: float
    roughness: float
    drums: float
    reverb: float
    lead: str
    backing: str


class Timbre(NamedTuple):
    """An instrument: the shape of its partials, and how a held note lives on.

    even, gain of the even partials (0 is hollow like a clarinet); formant, number of the partial that
    stands out, 1 for none; decay in seconds to 1/e, down to the level sustain; vibrato in cents; chorus,
    a second voice so many cents away, 0 for none.
    """

    even: float
    formant: float
    decay: float
    sustain: float
    vibrato: float
    chorus: float


class Piece(NamedTuple):
    """What the tables say of a song, and its mood, which they do not; path is relative to the folder."""

    track_id: str
    dataset: str
    mood: str
    labels: tuple[str, ...]
    split: str
    path: str


class Note(NamedTuple):
    """Start and length in seconds, MIDI pitch, linear gain."""

    start: float
    length: float
    pitch: int
    gain: float


# fmt: off
SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11), "lydian": (0, 2, 4, 6, 7, 9, 11), "dorian": (0, 2, 3, 5, 7, 9, 10),
    "minor": (0, 2, 3, 5, 7, 8, 10), "phrygian": (0, 1, 3, 5, 7, 8, 10), "locrian": (0, 1, 3, 5, 6, 8, 10),
}
# Roots as scale degrees counted from 0: (0, 4, 5, 3) in major is I V vi IV.
PROGRESSIONS: dict[str, tuple[tuple[int, ...], ...]] = {
    "major": ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 0, 4), (0, 2, 3, 4)),
    "lydian": ((0, 1, 0, 1), (0, 1, 4, 0), (0, 4, 1, 5)),
    "dorian": ((0, 3, 0, 6), (0, 6, 3, 0), (0, 2, 3, 0)),
    "minor": ((0, 5, 2, 6), (0, 3, 5, 4), (0, 5, 3, 0), (0, 6, 5, 4)),
    "phrygian": ((0, 1, 0, 1), (0, 1, 3, 1), (0, 0, 1, 6)),
    "locrian": ((0, 4, 1, 0), (0, 1, 4, 1)),
}
TIMBRES = {
    "pluck": Timbre(0.8, 1, 0.25, 0.0, 0, 0), "harp": Timbre(0.5, 1, 0.7, 0.0, 0, 0),
    "bell": Timbre(0.3, 5, 0.6, 0.05, 0, 0), "flute": Timbre(0.6, 1, 0.3, 0.8, 14, 0),
    "reed": Timbre(0.1, 3, 0.3, 0.85, 6, 0), "strings": Timbre(0.9, 2, 0.5, 0.9, 10, 9),
    "brass": Timbre(1.0, 4, 0.2, 0.8, 5, 5), "organ": Timbre(0.9, 2, 1.0, 1.0, 0, 4),
    "pad": Timbre(0.7, 1, 1.0, 1.0, 4, 7),
}
MOODS: dict[str, tuple[Cues, ...]] = {
    "joyful": (
        Cues(140, "major", 74, 0.75, 0.40, -17, 0.004, 8, 2.0, 0.00, 0.60, 0.12, "pluck", "pluck"),
        Cues(132, "major", 76, 0.70, 0.50, -17, 0.010, 8, 1.7, 0.00, 0.70, 0.12, "flute", "pluck")),
    "epic": (
        Cues(104, "minor", 62, 0.85, 0.85, -12, 0.020, 8, 0.9, 0.30, 0.90, 0.40, "brass", "strings"),
        Cues(112, "major", 60, 0.80, 0.90, -12, 0.025, 4, 0.9, 0.25, 0.80, 0.45, "brass", "brass")),
    "tense": (
        Cues(152, "phrygian", 63, 0.95, 0.60, -15, 0.006, 8, 2.2, 0.85, 0.35, 0.10, "reed", "strings"),
        Cues(144, "locrian", 58, 0.90, 0.70, -15, 0.008, 8, 1.6, 0.95, 0.25, 0.15, "brass", "strings")),
    "sad": (
        Cues(56, "minor", 55, 0.35, 0.98, -25, 0.100, 2, 0.7, 0.00, 0.00, 0.15, "strings", "harp"),
        Cues(60, "minor", 57, 0.30, 0.95, -25, 0.080, 2, 0.7, 0.00, 0.00, 0.15, "reed", "harp")),
    "solemn": (
        Cues(66, "dorian", 50, 0.70, 0.97, -18, 0.050, 1, 0.5, 0.08, 0.00, 0.85, "organ", "organ"),
        Cues(62, "minor", 48, 0.65, 0.95, -18, 0.060, 2, 0.5, 0.08, 0.00, 0.85, "brass", "organ")),
    "tender": (
        Cues(78, "major", 69, 0.30, 0.85, -26, 0.020, 8, 0.9, 0.00, 0.00, 0.25, "flute", "harp"),
        Cues(74, "major", 67, 0.35, 0.90, -26, 0.008, 4, 0.8, 0.00, 0.00, 0.25, "harp", "harp")),
    "calm": (
        Cues(60, "major", 67, 0.02, 1.00, -24, 0.250, 1, 0.4, 0.00, 0.00, 0.50, "pad", "pad"),
        Cues(64, "lydian", 65, 0.05, 1.00, -24, 0.180, 1, 0.3, 0.00, 0.00, 0.55, "flute", "pad")),
    "wonder": (
        Cues(92, "lydian", 81, 0.65, 0.90, -20, 0.004, 8, 1.3, 0.00, 0.05, 0.60, "bell", "bell"),
        Cues(86, "lydian", 79, 0.60, 0.95, -20, 0.010, 8, 1.0, 0.00, 0.05, 0.65, "bell", "pad")),
}
# fmt: on
# For each mood the words that lead, taken in turn, and those that may join, with their probability.
Words = tuple[tuple[str, ...], dict[str, float]]
VOCABULARIES: dict[str, dict[str, Words]] = {
    "demo-gems": {
        "joyful": (("joyful_activation",), {"amazement": 0.3, "power": 0.25}),
        "epic": (("power",), {"tension": 0.3, "amazement": 0.25, "joyful_activation": 0.25}),
        "tense": (("tension",), {"power": 0.4}),
        "sad": (("sadness",), {"nostalgia": 0.5, "solemnity": 0.2}),
        "solemn": (("solemnity",), {"sadness": 0.25, "calmness": 0.25, "power": 0.15}),
        "tender": (("tenderness", "nostalgia"), {"tenderness": 0.5, "calmness": 0.3, "nostalgia": 0.3}),
        "calm": (("calmness",), {"tenderness": 0.4, "nostalgia": 0.15}),
        "wonder": (("amazement",), {"joyful_activation": 0.3, "tenderness": 0.25}),
    },
    "demo-jamendo": {
        "joyful": (("happy", "uplifting"), {"happy": 0.5, "uplifting": 0.4, "energetic": 0.4}),
        "epic": (("powerful", "energetic"), {"powerful": 0.6, "energetic": 0.4, "inspiring": 0.25}),
        "tense": (("heavy", "dark"), {"heavy": 0.4, "dark": 0.4, "powerful": 0.3}),
        "sad": (("sad", "emotional"), {"sad": 0.6, "emotional": 0.4, "dark": 0.1}),
        "solemn": (("meditative", "dark"), {"meditative": 0.4, "emotional": 0.25, "powerful": 0.15}),
        "tender": (("romantic",), {"relaxing": 0.4, "emotional": 0.25}),
        "calm": (("relaxing", "meditative"), {"relaxing": 0.5, "meditative": 0.4, "romantic": 0.15}),
        "wonder": (("inspiring",), {"uplifting": 0.4, "happy": 0.2, "romantic": 0.15}),
    },
}
# One WAV in ten, so that 160 pieces stay below 60 MB.
FORMATS = ("mp3", "flac", "ogg", "opus", "ogg", "m4a", "ogg", "wav", "ogg", "mp3")
CONTAINERS = {"mp3": ("MP3", None), "flac": ("FLAC", "PCM_16"), "wav": ("WAV", "PCM_16")}
CONTAINERS |= {"ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS")}
SPLITS = ("train", "test", "train", "train", "validation", "train", "test", "train", "train", "test")


def draw_cues(mood: str, rng: np.random.Generator) -> Cues:
    """One piece's cues: a variant of the mood, leaning up to a quarter towards any other, with jitter."""
    own = MOODS[mood][rng.integers(len(MOODS[mood]))]
    others = [variant for name, variants in MOODS.items() if name != mood for variant in variants]
    other, lean = others[rng.integers(len(others))], rng.uniform(0, 0.25)
    mixed = {
        name: (value + lean * (getattr(other, name) - value)) * rng.uniform(0.93, 1.07)
        for name, value in own._asdict().items()
        if not isinstance(value, str)
    }
    mixed["articulation"] = min(mixed["articulation"], 1.0)
    mixed["pulse"] = 2.0 ** round(np.log2(mixed["pulse"]))
    return own._replace(**mixed)


def compose(cues: Cues, *, seconds: float, seed: int | Sequence[int], sample_rate: int = 44_100) -> Signal:
    """A piece of `seconds` as mono samples [n] in ±0.75: melody, chords, bass, drums, reverb.

    Equal arguments give equal samples.
    """
    rng = np.random.default_rng(seed)
    bar = BEATS * 60 / cues.tempo
    bars = max(1, int((seconds - 1.2) / bar))
    tonic = round(cues.register + rng.uniform(-3, 3))
    choices = PROGRESSIONS[cues.scale]
    progression = choices[rng.integers(len(choices))]
    # The last, longer bar rests on the tonic.
    roots = [progression[i % len(progression)] for i in range(bars)] + [0]
    starts = np.append(np.arange(bars + 1) * bar, seconds - 0.3)

    mix = np.zeros(round(seconds * sample_rate), np.float32)
    _play(mix, _melody(cues, roots, starts, tonic, rng), TIMBRES[cues.lead], cues, sample_rate)
    _play(mix, _accompaniment(cues, roots, starts, tonic, rng), TIMBRES[cues.backing], cues, sample_rate)
    mix /= max(float(np.sqrt(np.mean(mix**2))), 1e-6)
    mix += _drums(cues, starts, len(mix), sample_rate, rng)
    return _master(mix, cues, sample_rate, rng)


def _pitch(degree: int, tonic: int, scale: str) -> int:
    steps = SCALES[scale]
    return tonic + 12 * (degree // len(steps)) + steps[degree % len(steps)]


def _melody(
    cues: Cues, roots: list[int], starts: NDArray[np.float64], tonic: int, rng: np.random.Generator
) -> list[Note]:
    """Two one-bar motifs in the order A A B A, each bar begun on the chord tone nearest the last note."""
    grid = (4 if cues.density > 1.5 else 2) * BEATS
    count = min(grid, max(1, round(cues.density * BEATS)))
    motifs = []
    for _ in range(2):
        onsets = np.append(0, 1 + np.sort(rng.choice(grid - 1, count - 1, replace=False))) / grid
        motifs.append((onsets, np.append(0, rng.choice((-2, -1, -1, 1, 1, 2), count - 1))))
    notes, degree = [], 4
    for i, root in enumerate(roots[:-1]):
        onsets, steps = motifs[i % 4 == 2]
        chord_tones = [root + third + octave for third in (0, 2, 4) for octave in (-7, 0, 7)]
        degree = min((tone for tone in chord_tones if -2 <= tone <= 9), key=lambda tone: abs(tone - degree))
        bar = starts[i + 1] - starts[i]
        lengths = np.diff(np.append(onsets, 1.0)) * bar * cues.articulation
        for onset, step, length in zip(onsets, steps, lengths, strict=True):
            degree += int(step) if -3 <= degree + step <= 10 else -int(step)
            gain = rng.uniform(0.8, 1.1)
            notes.append(Note(starts[i] + onset * bar, length, _pitch(degree, tonic, cues.scale), gain))
    final = 0 if degree < 4 else 7
    notes.append(Note(starts[-2], starts[-1] - starts[-2], _pitch(final, tonic, cues.scale), 1.0))
    return notes


def _accompaniment(
    cues: Cues, roots: list[int], starts: NDArray[np.float64], tonic: int, rng: np.random.Generator
) -> list[Note]:
    """Chords and bass, struck `pulse` times a bar; gentle moods break the chord into an arpeggio."""
    base = max(43 + (tonic - 43) % 12, tonic - 12)
    broken = cues.pulse >= 4 and cues.drums < 0.2
    notes = []
    for i, root in enumerate(roots):
        chord = [_pitch(root + third, base, cues.scale) for third in (0, 2, 4)]
        if rng.random() < cues.roughness:
            chord.append(chord[rng.integers(3)] + 1)
        strikes = 1 if i == len(roots) - 1 else int(cues.pulse)
        step = (starts[i + 1] - starts[i]) / strikes
        for j in range(strikes):
            start, accent = starts[i] + j * step, 0.45 if j % 2 == 0 else 0.33
            arpeggio = broken and strikes > 1
            tones = [chord[(0, 1, 2, 1)[j % 4]]] if arpeggio else chord
            held = 2.0 if arpeggio else cues.articulation
            notes += [Note(start, step * held, tone, accent) for tone in tones]
            if j % 2 == 0:
                notes.append(Note(start, 2 * step * cues.articulation, 31 + (chord[0] - 31) % 12, 0.6))
    return notes


def _play(mix: Signal, notes: list[Note], timbre: Timbre, cues: Cues, sample_rate: int) -> None:
    """Adds the notes to `mix` [n] by reading a table of one period, with an envelope for each note."""
    ticks = np.arange(len(mix)) / sample_rate
    seconds = ticks.astype(np.float32)
    rate, depth = 5.3, timbre.vibrato * np.log(2) / 1200
    swing = -depth / (2 * np.pi * rate) * np.cos(2 * np.pi * rate * ticks)
    release = 0.04 + 0.25 * cues.articulation**2
    tables: dict[int, Signal] = {}
    for note in notes:
        begin = round(note.start * sample_rate)
        n = min(len(mix) - begin, round((note.length + release) * sample_rate))
        hertz = 440 * 2 ** ((note.pitch - 69) / 12)
        # One table for three semitones: a band limit finer than that is not heard.
        if note.pitch // 3 not in tables:
            tables[note.pitch // 3] = _period(hertz, timbre, cues.brightness)
        table = tables[note.pitch // 3]
        time = ticks[:n] + swing[:n] if timbre.vibrato else ticks[:n]
        tone = table[(time * (hertz * TABLE)).astype(np.int32) & (TABLE - 1)]
        if timbre.chorus:
            detuned = hertz * 2 ** (timbre.chorus * (1 + 2 * cues.roughness) / 1200)
            tone = 0.7 * (tone + table[(time * (detuned * TABLE)).astype(np.int32) & (TABLE - 1)])
        mix[begin : begin + n] += note.gain * (tone * _envelope(seconds[:n], note.length, release, timbre, cues))


def _period(hertz: float, timbre: Timbre, brightness: float) -> Signal:
    """One period of the timbre [TABLE] at unit RMS, its partials below 11 kHz."""
    partials = np.arange(1, max(2, min(40, int(11_000 / hertz)) + 1))
    weights = partials ** -(3.0 - 2.2 * brightness)
    weights[1::2] *= timbre.even
    if timbre.formant > 1:
        weights *= 1 + 3 * brightness * np.exp(-(((partials - timbre.formant) / 1.5) ** 2))
    spectrum = np.zeros(TABLE // 2 + 1, np.complex128)
    # Spread phases keep a bright tone from being a click train.
    spectrum[partials] = weights * np.exp(0.7j * partials**2)
    wave = np.fft.irfft(spectrum)
    return (wave / wave.std()).astype(np.float32)


def _envelope(time: Signal, length: float, release: float, timbre: Timbre, cues: Cues) -> Signal:
    """Attack, decay, sustain, release over `time` seconds [n]."""
    envelope: Signal = np.minimum(time / np.float32(min(cues.attack, 0.6 * length)), 1)
    if timbre.sustain < 1:
        envelope *= timbre.sustain + (1 - timbre.sustain) * np.exp(time * np.float32(-1 / timbre.decay))
    held = np.searchsorted(time, length)
    envelope[held:] *= np.clip((length + release - time[held:]) / release, 0, 1) ** 2
    return envelope


def _drums(cues: Cues, starts: NDArray[np.float64], n: int, sample_rate: int, rng: np.random.Generator) -> Signal:
    """Kick on one and three, snare on two and four, hats on the eighths: [n], none below 0.1."""
    track = np.zeros(n + sample_rate, np.float32)
    if cues.drums < 0.1:
        return track[:n]
    time = np.arange(round(0.3 * sample_rate)) / sample_rate
    noise = rng.standard_normal(len(time))
    kick = 2.6 * np.sin(2 * np.pi * (45 * time + 3 * (1 - np.exp(-time * 30)))) * np.exp(-time * 11)
    snare = (0.9 * noise + 0.8 * np.sin(2 * np.pi * 185 * time)) * np.exp(-time * 18)
    hat = 0.35 * np.diff(noise, prepend=0) * np.exp(-time * 55)
    for start, end in pairwise(starts[:-1]):
        for eighth in range(2 * BEATS):
            at = round((start + eighth * (end - start) / (2 * BEATS)) * sample_rate)
            track[at : at + len(time)] += hat
            if eighth % 2 == 0:
                track[at : at + len(time)] += snare if eighth % 4 == 2 else kick
    return cues.drums * track[:n]


def _master(mix: Signal, cues: Cues, sample_rate: int, rng: np.random.Generator) -> Signal:
    """Reverb, overdrive, loudness, and a soft limit at `PEAK`."""
    tail = np.linspace(0, 1, round((0.3 + 1.7 * cues.reverb) * sample_rate), dtype=np.float32)
    # The average over six samples takes the hiss out of the room.
    room = np.convolve(rng.standard_normal(len(tail), np.float32), np.ones(6, np.float32), "same")
    room *= np.exp(-6.9 * tail)
    size = 1 << (len(mix) + len(tail)).bit_length()
    echo = np.fft.irfft(np.fft.rfft(mix, size) * np.fft.rfft(room, size))[: len(mix)]
    wet = mix + echo * np.float32(0.9 * cues.reverb / np.std(echo))
    if cues.roughness > 0.02:
        wet = np.tanh(wet * np.float32(1.2 * cues.roughness / np.std(wet)))
    fade = round(0.3 * sample_rate)
    wet[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    wet *= np.float32(10 ** (cues.loudness / 20) / np.std(wet))
    return np.float32(PEAK) * np.tanh(wet / np.float32(PEAK))


def plan_world(*, songs_per_dataset: int = 80, seed: int = 0) -> list[Piece]:
    """The pieces of a world without their audio: moods, words, splits (60/10/30 % of each mood), paths."""
    pieces = []
    for number, (dataset, vocabulary) in enumerate(VOCABULARIES.items()):
        rng = np.random.default_rng([seed, number])
        moods = rng.permutation(np.resize(list(MOODS), songs_per_dataset)).tolist()
        splits: dict[str, list[str]] = {mood: [] for mood in MOODS}
        for index, mood in enumerate(moods):
            split = SPLITS[len(splits[mood]) % len(SPLITS)]
            leading, joining = vocabulary[mood]
            # Leading words take turns within a split, so that none is missing from one.
            first = leading[splits[mood].count(split) % len(leading)]
            others = [word for word, chance in joining.items() if word != first and rng.random() < chance]
            splits[mood].append(split)
            name = f"{dataset}/{index + 1:04d}"
            path = f"{name}.{FORMATS[index % len(FORMATS)]}"
            pieces.append(Piece(name, dataset, mood, (first, *others[:2]), split, path))
    return pieces


def write_world(folder: Path, *, songs_per_dataset: int = 80, seed: int = 0) -> list[Piece]:
    """Composes and writes both datasets: `<dataset>/<number>.<format>` and `<dataset>.tsv` in `folder`."""
    pieces = plan_world(songs_per_dataset=songs_per_dataset, seed=seed)
    for index, piece in enumerate(pieces):
        rng = np.random.default_rng([seed, 7, index])
        path = folder / piece.path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Opus knows no 44.1 kHz.
        sample_rate = 48_000 if path.suffix in (".opus", ".m4a") else 44_100
        cues, seconds = draw_cues(piece.mood, rng), rng.uniform(12, 21.5)
        samples = compose(cues, seconds=seconds, seed=[seed, 8, index], sample_rate=sample_rate)
        write_audio(path, samples, sample_rate)
    for dataset in VOCABULARIES:
        rows = [("track_id", "uri", "dataset", "split", "labels")]
        rows += [
            (one.track_id, one.path, dataset, one.split, ",".join(one.labels))
            for one in pieces
            if one.dataset == dataset
        ]
        (folder / f"{dataset}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    return pieces


def write_audio(path: Path, samples: Signal, sample_rate: int) -> None:
    """Writes mono samples [n] in the format of the suffix: mp3, flac, wav, ogg, opus or m4a."""
    if path.suffix == ".m4a":
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = sample_rate, 0
        with av.open(str(path), "w", format="mp4") as container:
            stream = container.add_stream("aac", rate=sample_rate, layout="mono")
            container.mux([*stream.encode(frame), *stream.encode(None)])
        return
    name, subtype = CONTAINERS[path.suffix[1:]]
    with soundfile.SoundFile(path, "w", sample_rate, 1, subtype, format=name) as file:
        # libsndfile's Vorbis encoder keeps a whole write on its stack.
        for begin in range(0, len(samples), 65_536):
            file.write(samples[begin : begin + 65_536])
