"""The demo's catalogue: reproducible, readable, and written by the cues that its words promise."""

import csv
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from mer_ray.demo.composer import (
    FORMATS,
    MOODS,
    VOCABULARIES,
    Piece,
    Signal,
    compose,
    draw_cues,
    plan_world,
    write_audio,
    write_world,
)

RATE = 44_100


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Piece]]:
    folder = tmp_path_factory.mktemp("world")
    return folder, write_world(folder, songs_per_dataset=10, seed=3)


@pytest.fixture(scope="module")
def songs() -> dict[str, list[Signal]]:
    return {
        mood: [
            compose(draw_cues(mood, np.random.default_rng(seed)), seconds=8, seed=seed, sample_rate=RATE)
            for seed in range(3)
        ]
        for mood in MOODS
    }


def read(path: Path) -> tuple[Signal, int]:
    """Mono samples and rate, by PyAV for what libsndfile does not know."""
    if path.suffix != ".m4a":
        return soundfile.read(path, dtype="float32")
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
        return np.concatenate(frames), container.streams.audio[0].rate


def centroid(samples: Signal) -> float:
    """Mean frequency in hertz, weighted by amplitude."""
    spectrum = np.abs(np.fft.rfft(samples))
    return float(spectrum @ np.fft.rfftfreq(len(samples), 1 / RATE) / spectrum.sum())


def onsets(samples: Signal) -> float:
    """Share of 20 ms frames that are at least 3 dB louder than the one before."""
    frame = RATE // 50
    level = np.sqrt(np.mean(samples[: len(samples) // frame * frame].reshape(-1, frame) ** 2, axis=1)) + 1e-4
    return float(np.mean(np.diff(20 * np.log10(level)) > 3))


def loudness(samples: Signal) -> float:
    return float(np.sqrt(np.mean(samples**2)))


def beating(samples: Signal) -> float:
    """Share of the energy outside the 60 strongest bins of 1 Hz: high when rough or noisy."""
    power = np.sort(np.abs(np.fft.rfft(samples[:RATE])) ** 2)
    return float(power[:-60].sum() / power.sum())


def test_equal_seeds_give_equal_samples_and_other_seeds_another_piece() -> None:
    cues = draw_cues("epic", np.random.default_rng(1))
    first, again, other = (compose(cues, seconds=5, seed=seed) for seed in (4, 4, 5))
    assert cues == draw_cues("epic", np.random.default_rng(1))
    np.testing.assert_array_equal(first, again)
    assert np.corrcoef(first, other)[0, 1] < 0.9


def test_the_sample_rate_changes_the_grid_and_not_the_length() -> None:
    cues = draw_cues("calm", np.random.default_rng(1))
    lengths = [len(compose(cues, seconds=5, seed=0, sample_rate=rate)) for rate in (44_100, 48_000)]
    assert lengths == [220_500, 240_000]


@pytest.mark.parametrize(
    ("measure", "more", "less", "ratio"),
    [
        (centroid, "joyful", "sad", 1.5),
        (centroid, "wonder", "solemn", 1.2),
        (centroid, "tense", "calm", 1.5),
        (onsets, "joyful", "sad", 2.0),
        (onsets, "joyful", "calm", 2.0),
        (loudness, "epic", "tender", 2.5),
        (loudness, "epic", "sad", 2.5),
        (beating, "tense", "tender", 1.5),
    ],
)
def test_moods_differ_as_the_literature_says(songs, measure, more, less, ratio) -> None:
    strong, weak = (np.mean([measure(song) for song in songs[mood]]) for mood in (more, less))
    assert strong > ratio * weak


def test_no_piece_is_silent_or_clipped(songs) -> None:
    for pieces in songs.values():
        for samples in pieces:
            assert samples.dtype == np.float32
            assert np.isfinite(samples).all()
            assert 0.05 < np.abs(samples).max() <= 0.75
            assert abs(samples.mean()) < 0.01


def test_pieces_of_one_mood_differ(songs) -> None:
    for pieces in songs.values():
        assert len({round(centroid(samples), 3) for samples in pieces}) == len(pieces)


@pytest.mark.parametrize("suffix", sorted(set(FORMATS)))
def test_every_format_gives_back_the_music(tmp_path: Path, songs, suffix: str) -> None:
    rate = 48_000 if suffix == "opus" else RATE
    samples = songs["tender"][0]
    write_audio(tmp_path / f"song.{suffix}", samples, rate)
    decoded, decoded_rate = read(tmp_path / f"song.{suffix}")
    assert decoded_rate == rate
    assert abs(len(decoded) - len(samples)) < 4096
    assert loudness(decoded) == pytest.approx(loudness(samples), rel=0.05)


def test_the_world_is_whole_files_and_two_tables(world) -> None:
    folder, pieces = world
    assert {Path(piece.path).suffix[1:] for piece in pieces} == set(FORMATS)
    for piece in pieces:
        samples, rate = read(folder / piece.path)
        assert 11.5 < len(samples) / rate < 22
        assert 0.02 < np.abs(samples).max() <= 0.9
    for dataset in VOCABULARIES:
        with (folder / f"{dataset}.tsv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        expected = [
            {
                "track_id": piece.track_id,
                "uri": piece.path,
                "dataset": dataset,
                "split": piece.split,
                "labels": ",".join(piece.labels),
            }
            for piece in pieces
            if piece.dataset == dataset
        ]
        assert rows == expected
        assert len(rows) == 10


def test_equal_seeds_give_equal_worlds(tmp_path: Path) -> None:
    first, again = (write_world(tmp_path / name, songs_per_dataset=2, seed=3) for name in ("a", "b"))
    assert first == again == plan_world(songs_per_dataset=2, seed=3)
    assert plan_world(songs_per_dataset=2, seed=4) != first
    for piece in first:
        np.testing.assert_array_equal(read(tmp_path / "a" / piece.path)[0], read(tmp_path / "b" / piece.path)[0])


@pytest.mark.parametrize("seed", range(5))
def test_every_word_occurs_in_train_and_test_and_every_song_in_one_split(seed: int) -> None:
    pieces = plan_world(seed=seed)
    assert len({piece.track_id for piece in pieces}) == len(pieces) == 160
    assert len({piece.path for piece in pieces}) == 160
    for dataset, vocabulary in VOCABULARIES.items():
        words = {w for leading, joining in vocabulary.values() for w in (*leading, *joining)}
        own = [piece for piece in pieces if piece.dataset == dataset]
        shares = {name: sum(piece.split == name for piece in own) for name in ("train", "validation", "test")}
        assert shares == {"train": 48, "validation": 8, "test": 24}
        for split in ("train", "test"):
            assert {word for piece in own if piece.split == split for word in piece.labels} == words


def test_words_follow_the_mood_and_the_two_vocabularies_share_none() -> None:
    gems, jamendo = (
        {w for leading, joining in moods.values() for w in (*leading, *joining)} for moods in VOCABULARIES.values()
    )
    assert (len(gems), len(jamendo)) == (9, 12)
    assert not gems & jamendo
    for piece in plan_world(seed=1):
        leading, joining = VOCABULARIES[piece.dataset][piece.mood]
        assert 1 <= len(piece.labels) <= 3
        assert len(set(piece.labels)) == len(piece.labels)
        assert piece.labels[0] in leading
        assert set(piece.labels) <= {*leading, *joining}


def test_format_tells_little_of_the_mood() -> None:
    """Knowing a piece's format, the best guess of its mood is hardly better than without."""
    pieces = [piece for seed in range(20) for piece in plan_world(seed=seed)]
    suffixes = [Path(piece.path).suffix for piece in pieces]
    for suffix in set(suffixes):
        moods = [piece.mood for piece, own in zip(pieces, suffixes, strict=True) if own == suffix]
        assert max(moods.count(mood) for mood in MOODS) / len(moods) < 0.2
