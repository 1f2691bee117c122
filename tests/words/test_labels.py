"""Words become unit vectors and clusters; lists of words are read as a user writes them."""

from pathlib import Path

import numpy as np
import pytest

from mer_ray.catalog.datasets import vocabularies
from mer_ray.errors import InputError
from mer_ray.words.labels import cluster_labels, embed_labels, label_model, read_labels, unit


def words_of(*datasets: str) -> list[str]:
    return list(dict.fromkeys(word for name in datasets for word in vocabularies()[name]))


@pytest.mark.parametrize(
    ("datasets", "clusters", "bandwidths"),
    [
        (("cal500", "gems"), 22, (0.825, 0.875)),
        (("jamendo", "gems"), 55, (0.875, 0.875)),
        (("jamendo", "cal500"), 59, (0.8, 0.8)),
        (("jamendo", "cal500", "gems"), 64, (0.8, 0.8)),
    ],
)
def test_auto_bandwidth_finds_the_known_number_of_clusters(
    datasets: tuple[str, ...], clusters: int, bandwidths: tuple[float, float]
) -> None:
    embeddings = embed_labels(words_of(*datasets))
    found = cluster_labels(embeddings)
    assert found.centers.shape == (clusters, 384)
    assert bandwidths[0] <= found.bandwidth <= bandwidths[1]
    assert sorted(set(found.assignments.tolist())) == list(range(clusters))
    np.testing.assert_allclose(np.linalg.norm(found.centers, axis=1), 1, atol=1e-5)
    nearest = (embeddings @ found.centers.T).argmax(axis=1)
    assert (nearest == found.assignments).all()


def test_clusters_group_what_is_near_and_never_more_than_a_quarter_of_the_words() -> None:
    words = words_of("cal500", "gems")
    embeddings = embed_labels(words)
    assignments = cluster_labels(embeddings).assignments
    same = np.equal.outer(assignments, assignments) & ~np.eye(len(words), dtype=bool)
    cosines = embeddings @ embeddings.T
    assert cosines[same].mean() > cosines[~same & ~np.eye(len(words), dtype=bool)].mean() + 0.2
    assert np.bincount(assignments).max() <= len(words) / 4


def test_embeddings_are_unit_vectors_of_the_real_sentence_encoder() -> None:
    vectors = embed_labels(["happy", "joyful", "tax return"])
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.6 > 0.4 > vectors[0] @ vectors[2]
    np.testing.assert_allclose(vectors[0], label_model().encode("happy", normalize_embeddings=True), atol=1e-6)


def test_underscores_are_read_as_spaces() -> None:
    vectors = embed_labels(["joyful_activation", "joyful activation", "joyfulactivation"])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-2


def test_a_labels_phrases_are_averaged_and_scaled_to_length_one() -> None:
    phrases = {"calm": ("calm", "peaceful", "serene_music")}
    calm, sad = embed_labels(["calm", "sad"], phrases=phrases)
    mean = embed_labels(["calm", "peaceful", "serene music"]).mean(axis=0)
    np.testing.assert_allclose(calm, mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_allclose(sad, embed_labels(["sad"])[0], atol=1e-5)
    assert np.abs(calm - embed_labels(["calm"])[0]).max() > 1e-2


def test_scaling_leaves_a_zero_row_at_zero() -> None:
    np.testing.assert_allclose(unit(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]])


@pytest.mark.parametrize("bandwidth", ["quantile:0.03", "quantile:0.04", 0, "0.01", "100", 1e9, "-1", "nan"])
def test_a_degenerate_bandwidth_is_an_error_never_an_answer(bandwidth: str | float) -> None:
    refused_bandwidth(words_of("gems"), bandwidth, "into one" if str(bandwidth) in ("100", "1000000000.0") else "not")


@pytest.mark.parametrize("bandwidth", ["wide", "quantile:", "quantile:x", "quantile:2", "quantile:-0.1"])
def test_a_bandwidth_that_is_none_is_refused(bandwidth: str) -> None:
    refused_bandwidth(words_of("gems"), bandwidth, "give auto, quantile:q")


@pytest.mark.parametrize("words", [["happy"], ["happy", "joyful"], ["happy", "tax return"]])
def test_labels_too_few_to_group_are_refused_in_a_sentence(words: list[str]) -> None:
    refused_bandwidth(words, "auto", "no bandwidth from 0.5 to 1.0")


def test_a_given_bandwidth_or_quantile_is_followed() -> None:
    embeddings = embed_labels(words_of("cal500", "gems"))
    assert cluster_labels(embeddings, 0.85).bandwidth == 0.85
    assert len(cluster_labels(embeddings, "0.85").centers) == 22
    assert len(cluster_labels(embeddings, "quantile:0.1").centers) < 26


def refused_bandwidth(words: list[str], bandwidth: str | float, named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        cluster_labels(embed_labels(words), bandwidth)
    assert str(bandwidth) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "count"), [("jamendo", 56), ("cal500", 17), ("gems", 9)])
def test_built_in_vocabularies_are_read_by_name(name: str, count: int) -> None:
    labels = read_labels(name)
    assert len(labels) == count
    assert all(phrases == (word,) for word, phrases in labels.items())


def test_a_text_file_may_have_comments_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffcalm\r\n\r\n# not this\r\n  sad and slow  # nor this\r\nsüß\r\n".encode())
    assert read_labels(str(path)) == {
        "calm": ("calm",),
        "sad and slow": ("sad and slow",),
        "süß": ("süß",),
    }


def test_a_yaml_file_gives_phrases_as_text_or_lists_or_none_at_all(tmp_path: Path) -> None:
    text = (
        "calm: peaceful, serene music ,\nsad: [gloomy, 'blue, deeply']\nhappy:\ntender: ~\nno: yes\n1980: 80s\nq: []\n"
    )
    assert read(tmp_path, text) == {
        "calm": ("peaceful", "serene music"),
        "sad": ("gloomy", "blue, deeply"),
        "happy": ("happy",),
        "tender": ("tender",),
        "no": ("yes",),
        "1980": ("80s",),
        "q": ("q",),
    }


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("w.txt", "", "no words in it"),
        ("w.txt", "# only this\n\n", "no words in it"),
        ("w.txt", "calm\nsad\ncalm\n", "'calm' stands there twice"),
        ("w.yaml", "", "no words in it"),
        ("w.yaml", "calm: a\nsad: b\ncalm: c\n", "'calm' stands there twice"),
        ("w.yaml", "calm: [a", "not valid YAML"),
        ("w.yml", "- calm\n- sad\n", "expected 'label: phrase, phrase' entries"),
        ("w.yaml", "calm\n", "expected 'label: phrase, phrase' entries"),
        ("w.yaml", "sad: x\ncalm: {a: b}\n", "line 2 is not"),
        ("w.yaml", "[calm]: b\n", "line 1 is not"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused_with_its_name(tmp_path: Path, name: str, text: str, named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        read(tmp_path, text, name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_that_is_missing_binary_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file; .*cal500, gems, jamendo"):
        read_labels(str(tmp_path / "none.txt"))
    with pytest.raises(InputError, match="not a UTF-8 text file"):
        read_labels(str(tmp_path))
    (tmp_path / "w.txt").write_bytes(b"\xff\xfe\x00calm")
    with pytest.raises(InputError, match="not a UTF-8 text file"):
        read_labels(str(tmp_path / "w.txt"))


def test_a_sentence_encoder_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"label model .*: not on disk"):
        embed_labels(["calm"], model=str(tmp_path / "none"))


def read(folder: Path, text: str, name: str = "w.yaml") -> dict[str, tuple[str, ...]]:
    (folder / name).write_text(text)
    return read_labels(str(folder / name))
