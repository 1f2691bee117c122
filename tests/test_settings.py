"""Settings come from flags, environment or a file, explain themselves, and refuse in one line."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mer_ray.catalog.settings import CatalogSettings
from mer_ray.cluster.settings import ExtractSettings, TagSettings
from mer_ray.commandline import WRONG_INPUT, parse, run
from mer_ray.demo.settings import DemoSettings
from mer_ray.errors import InputError
from mer_ray.evaluation.settings import EvaluateSettings
from mer_ray.learning.settings import TrainSettings
from mer_ray.page.settings import PageSettings
from mer_ray.paper.settings import ImportSettings, ReproduceSettings
from mer_ray.runs.settings import ForgetSettings, StatusSettings, ValidateSettings
from mer_ray.settings import JobSettings
from mer_ray.tagging.settings import LabelsSettings, SearchSettings
from tests.support import ROOT

CLASSES = [CatalogSettings, ExtractSettings, TrainSettings, EvaluateSettings, TagSettings, DemoSettings]
CLASSES += [
    PageSettings,
    ImportSettings,
    ReproduceSettings,
    StatusSettings,
    ValidateSettings,
    ForgetSettings,
    LabelsSettings,
    SearchSettings,
]
JOBS = sorted(path.name for path in (ROOT / "jobs").glob("*.py"))
TRAIN = ["--train", "/a.parquet", "--features", "/f", "--model", "/m"]
TAG = ["--features", "/f", "--model", "/m", "--labels", "gems", "--output", "/o"]


def settings_file(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "s.yaml").write_text(text)
    return ["--settings", str(tmp_path / "s.yaml")]


def refused(cls: type[JobSettings], arguments: list[str], named: str) -> str:
    """The arguments are refused in one line that says what is wrong."""
    with pytest.raises(InputError, match=named) as caught:
        parse(cls, arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_flags_win_over_the_environment_and_the_environment_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = settings_file(tmp_path, "epochs: 7\nbatch-size: 8\nmargin: 0.5\nlambda: 1\n")
    monkeypatch.setenv("MER_BATCH_SIZE", "16")
    monkeypatch.setenv("MER_MARGIN", "0.25")
    found = parse(TrainSettings, [*TRAIN, *file, "--loss", "triplet", "--margin", "0.125"])
    assert (found.epochs, found.batch_size, found.part("loss").margin, found.lr) == (7, 16, 0.125, 1e-3)
    assert found.lambda_ == 1


def test_the_file_can_be_named_by_the_environment_and_hold_required_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file(tmp_path, "train: [/x.parquet, s3://b/y.parquet]\nfeatures: [/f]\nmodel: /m\nlabel_model: here\n")
    monkeypatch.setenv("MER_SETTINGS", str(tmp_path / "s.yaml"))
    found = parse(TrainSettings, [])
    assert found.train == ["/x.parquet", "s3://b/y.parquet"]
    assert found.label_model == "here"


@pytest.mark.parametrize("flags", [["--lambda", "2.5"], ["--lambda=2.5"]])
def test_lambda_is_a_flag_although_python_keeps_the_word(flags: list[str]) -> None:
    assert parse(TrainSettings, TRAIN + flags).lambda_ == 2.5


def test_lambda_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MER_LAMBDA", "4")
    assert parse(TrainSettings, TRAIN).lambda_ == 4


@pytest.mark.parametrize("flags", [["--k", "5"], ["--k=5"], ["-k", "5"], ["-k5"]])
def test_k_is_taken_with_one_dash_or_two(flags: list[str]) -> None:
    assert parse(TagSettings, TAG + flags).k == 5


def test_repeated_flags_make_a_list_and_commas_make_layers() -> None:
    found = parse(TrainSettings, [*TRAIN, "--train", "s3://b/x/", "--features", "/g"])
    assert found.train == ["/a.parquet", "s3://b/x"]
    assert found.features == ["/f", "/g"]
    extract = ["--catalog", "/c", "--features", "/f"]
    assert parse(ExtractSettings, [*extract, "--layers", "1,12"]).part("encoder").layers == (1, 12)


def test_local_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = parse(ExtractSettings, ["--catalog", "c.parquet", "--features", "file:///f/"])
    assert (found.catalog, found.features) == (f"{tmp_path}/c.parquet", "/f")


def test_switches_are_set_by_their_name_alone() -> None:
    assert parse(TagSettings, [*TAG, "--timeline", "--retry-failed"]).timeline
    assert not parse(TrainSettings, [*TRAIN, "--no-standardize"]).standardize
    assert parse(TrainSettings, TRAIN).standardize


@pytest.mark.parametrize(
    ("flag", "suggestion"), [("--lamda", "'lambda'"), ("--batchsize", "'batch-size'"), ("--epoch", "'epochs'")]
)
def test_an_unknown_flag_is_refused_with_the_nearest_name(flag: str, suggestion: str) -> None:
    message = refused(TrainSettings, [*TRAIN, flag, "1"], f"{flag}: unknown setting")
    assert f"did you mean {suggestion}" in message
    refused(TrainSettings, [*TRAIN, "--zzzzzz=3"], "--zzzzzz.*: unknown setting; see --help")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (TRAIN[2:], "--train: required"),
        ([*TRAIN, "--epochs", "many"], "--epochs many: input should be a valid integer"),
        ([*TRAIN, "--epochs", "0"], "--epochs 0: input should be greater than 0"),
        ([*TRAIN, "--lr", "nan"], "--lr nan: input should be a finite number"),
        ([*TRAIN, "--targets", "songs"], "--targets songs: input should be 'labels' or 'clusters'"),
        ([*TRAIN, "--dropout", "1"], "--dropout 1: input should be less than 1"),
        ([*TRAIN, "--lambda", "-1"], "--lambda -1: input should be greater than or equal to 0"),
        ([*TRAIN, "--epochs"], "epochs"),
        ([*TRAIN, "stray"], "stray: unknown setting"),
        ([*TRAIN, "--settings", "/no/such/file"], "--settings /no/such/file: no such file"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_given(arguments: list[str], named: str) -> None:
    refused(TrainSettings, arguments, named)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("epochz: 3\n", r"unknown setting 'epochz' \(did you mean 'epochs'\?\)"),
        ("epochs: [\n", "not valid YAML"),
        ("- epochs\n", "expected lines like"),
        ("", "expected lines like"),
        ("epochs: x\n", "--epochs x: input should be a valid integer"),
    ],
)
def test_a_wrong_settings_file_is_refused(tmp_path: Path, text: str, named: str) -> None:
    refused(TrainSettings, [*TRAIN, *settings_file(tmp_path, text)], named)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_setting_is_explained_in_the_help(cls: type[JobSettings], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(cls, ["--help"])
    assert left.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Undefined" not in text, "a default that is made anew each time is shown as it is"
    for name, field in cls.model_fields.items():
        assert field.description, f"{cls.__name__}.{name} has no docstring"
        flag = name.rstrip("_").replace("_", "-")
        assert f"--{flag} " in text or f"-{flag} " in text or f" {flag.upper()} " in text
        assert " ".join(field.description.split()) in text, f"--{flag} is not explained"


def exit_code(monkeypatch: pytest.MonkeyPatch, arguments: list[str], main: Callable[[Any], int]) -> int:
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    return run(main, TrainSettings)


def test_a_users_mistake_is_one_line_on_stderr_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mistaken(_settings: TrainSettings) -> int:
        raise InputError("model /m: no finished model there; train one.")

    assert exit_code(monkeypatch, TRAIN, mistaken) == WRONG_INPUT == 2
    assert capsys.readouterr().err == "error: model /m: no finished model there; train one.\n"
    assert exit_code(monkeypatch, ["--nonsense"], mistaken) == 2
    assert capsys.readouterr().err.startswith("error: --nonsense")


def test_a_jobs_own_exit_code_is_passed_on_and_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_settings: TrainSettings) -> int:
        raise ZeroDivisionError

    assert exit_code(monkeypatch, TRAIN, lambda _settings: 3) == 3
    with pytest.raises(ZeroDivisionError):
        exit_code(monkeypatch, TRAIN, broken)


@pytest.mark.parametrize("job", JOBS)
def test_a_jobs_help_needs_neither_ray_nor_torch(job: str) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['jobs/{job}', '--help']\n"
        "try:\n"
        f"    runpy.run_path('jobs/{job}', run_name='__main__')\n"
        "except SystemExit as left:\n"
        "    heavy = sorted({'ray', 'torch', 'transformers', 'sklearn', 'av'} & set(sys.modules))\n"
        "    print('LEFT', left.code, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("LEFT 0 []\n"), done.stdout[-300:] + done.stderr
    assert "--settings" in done.stdout


@pytest.mark.parametrize("job", JOBS)
def test_a_job_run_from_anywhere_refuses_an_unknown_setting_with_exit_code_2(job: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "jobs" / job), "--nonsense", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_help_shows_the_settings_of_every_loss_and_a_flag_of_another_than_the_chosen_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refused(
        TrainSettings, [*TRAIN, "--margin", "0.2"], "--margin: a setting of --loss triplet, and --loss is soft_triplet"
    )
    refused(
        TrainSettings, [*TRAIN, "--loss=triplet", "--temperature=1"], "--temperature: a setting of --loss contrastive"
    )
    assert parse(TrainSettings, [*TRAIN, "--loss", "triplet", "--margin", "0.2"]).part("loss").margin == 0.2
    # A file or an environment may serve several jobs: what it says of other losses is passed over.
    shared = settings_file(tmp_path, "margin: 0.5\ntemperature: 0.3\n")
    monkeypatch.setenv("MER_POSITIVE", "sample")
    assert parse(TrainSettings, [*TRAIN, *shared]).part("loss").model_dump() == {"temperature": 0.3}
    triplet = parse(TrainSettings, [*TRAIN, *shared, "--preset", "reference"]).part("loss")
    assert triplet.model_dump() == {"margin": 0.5, "positive": "sample", "negatives": 5, "negative": "cluster"}


def test_a_loss_of_ones_own_may_call_a_setting_as_another_does_and_keeps_its_default_and_its_help(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = 'class Settings(Part):\n    negatives: int = 7\n    """How many of mine."""\n'
    (tmp_path / "a_loss_of_mine.py").write_text(f"from mer_ray.settings import Part\n{settings}loss = None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = [*TRAIN, "--loss", "a_loss_of_mine", "--preset", "reference"]
    assert parse(TrainSettings, mine).part("loss").negatives == 7
    assert parse(TrainSettings, [*mine, "--negatives", "2"]).part("loss").negatives == 2
    with pytest.raises(SystemExit):
        parse(TrainSettings, [*mine, "--help"])
    assert "How many of mine." in capsys.readouterr().out


def test_a_phrase_is_taken_as_it_stands_and_the_flag_may_be_repeated() -> None:
    files = ["--features", "/f", "--model", "/m"]
    found = parse(SearchSettings, [*files, "--query", "tender, but [tense]", "--query=a,b", "--not", "it's 100%41"])
    assert found.query == ("tender, but [tense]", "a,b")
    assert found.not_ == ("it's 100%41",)
    refused(SearchSettings, files, "--query, --like: give a phrase or a song")


def test_help_names_what_is_needed_first_and_kinds_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(ExtractSettings, ["--help"])
    text = capsys.readouterr().out
    assert text.splitlines()[0].endswith("--catalog PATH --features PATH [setting …]")
    groups = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert groups[0] == "Needed:"
    assert "With --encoder mert or random or tiny:" in groups
    assert "  --layers N,N,… " in text
    assert "tuple[" not in text


@pytest.mark.parametrize("job", ["page.py", "train.py"])
def test_the_help_of_every_job_shows_how_it_is_called(job: str) -> None:
    called = subprocess.run([sys.executable, f"jobs/{job}", "--help"], cwd=ROOT, text=True, capture_output=True)
    assert f"  python jobs/{job}" in called.stdout.partition("Settings:")[0]


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ([], ("loss soft_triplet", "lambda 1", "epochs 15", "label-text thesaurus")),
        (["--preset", "paper"], ("loss triplet", "lambda 0", "epochs 100", "label-text plain")),
        (["--preset=reference", "--experiment=baseline1"], ("epochs 75", "negatives 5", "lambda 0")),
    ],
)
def test_the_help_shows_what_a_run_with_these_flags_does(
    flags: list[str], shown: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(TrainSettings, [*flags, "--help"])
    text = capsys.readouterr().out
    for line in shown:
        name, value = line.split()
        found = re.search(rf"\n  --{name} [^\[]*\[([^\]]*)\]", text)
        assert found is not None, line
        assert found.group(1) == value
