"""What strangers wrote, models, songs, names, cannot run code, leave its place or carry a secret out."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import save_file

from mer_ray import storage
from mer_ray.encoders import load_encoder
from mer_ray.errors import InputError
from mer_ray.words.embedding import label_model
from tests.conftest import Job, done, refused
from tests.support import ROOT
from tests.support.chaos import family

SECRET = "wJalr/NotARealSecret+K7MDENGbPxRfiCYEXAMPLE"
NAMES = [
    "../../up",
    "/etc/absolute",
    "..",
    "a/../../b",
    "new\nline",
    "nul\0byte",
    "\x1b[2Jcursor",
    "~/home",
    "s3://b/k",
]


def planted_code(folder: Path, marker: Path) -> None:
    """Python files under the names that a careless loader imports, each of which would leave a mark."""
    for name in ("modeling_MERT", "configuration_MERT", "modeling_evil", "__init__"):
        code = f"open({str(marker)!r}, 'w').close()\nclass Evil: pass\n"
        (folder / f"{name}.py").write_text(code)


def test_code_beside_an_encoder_is_not_run(tmp_path: Path) -> None:
    folder, marker = tmp_path / "encoder", tmp_path / "marker"
    folder.mkdir()
    planted_code(folder, marker)
    twin = load_encoder("tiny")
    model = twin.encode.model
    auto_map = {"AutoConfig": "configuration_MERT.Evil", "AutoModel": "modeling_MERT.Evil"}
    config = {**model.config.to_dict(), "model_type": "mert_model", "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps({**config, "trust_remote_code": True}))
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    assert load_encoder(str(folder)).digest == twin.digest
    assert not marker.exists()
    subprocess.run([sys.executable, str(folder / "modeling_MERT.py")], check=True)
    assert marker.exists(), "the planted file must be one that leaves a mark when it is run"


def test_code_beside_a_label_model_is_not_run(tmp_path: Path) -> None:
    folder, marker = tmp_path / "labels", tmp_path / "marker"
    folder.mkdir()
    planted_code(folder, marker)
    module = {"idx": 0, "name": "0", "path": "", "type": "modeling_evil.Evil"}
    (folder / "modules.json").write_text(json.dumps([module]))
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "modeling_evil.Evil"}}))
    with pytest.raises(InputError, match="label model"):
        label_model(str(folder))
    assert not marker.exists()


@pytest.fixture(scope="module")
def hostile(job: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder below which hostile names were extracted with a secret in the environment, and what was printed."""
    folder = tmp_path_factory.mktemp("hostile")
    uris = ["file:///etc/passwd", "/etc/passwd", "/proc/self/environ", "/dev/zero", "../../../etc/passwd"]
    uris += [str(folder), "/nul\0byte", f"{folder}/new\nline.mp3", "s3:/not-two-slashes"]
    pq.write_table(pa.table({"track_id": NAMES, "uri": uris}), folder / "songs.parquet")
    command = [sys.executable, str(ROOT / "jobs" / "extract.py"), "--catalog", str(folder / "songs.parquet")]
    command += ["--features", str(folder / "out" / "features"), "--encoder", "descriptors", "--song-timeout-s", "20"]
    secret = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
    with TemporaryDirectory(prefix="ray-") as short:  # the path of a Unix socket has room for 107 bytes
        environment = {**os.environ, **secret, "RAY_ADDRESS": "local", "RAY_TMPDIR": short}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, cwd=ROOT)
        shutil.copytree(short, folder / "ray", symlinks=True, ignore=shutil.ignore_patterns("sockets"))
    return folder, result


def test_no_name_leaves_the_output_directory(hostile: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, result = hostile
    done(result, 3)  # none of these songs can be read
    assert sorted(path.name for path in folder.iterdir()) == ["out", "ray", "songs.parquet"]
    assert [path.name for path in (folder / "out").iterdir()] == ["features"]
    names = sorted(path.name for path in (folder / "out" / "features").iterdir())
    assert names[:2] == ["_SUCCESS", "_run"]
    assert names[2:]
    assert all(re.fullmatch(r"part-[0-9a-f]{20}\.parquet", name) for name in names[2:])


def test_hostile_names_and_places_are_rows_like_any_other(
    hostile: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, result = hostile
    rows = pa.concat_tables(
        [pq.read_table(part) for part in sorted((folder / "out" / "features").glob("part-*"))]
    ).to_pylist()
    assert sorted(row["track_id"] for row in rows) == sorted(NAMES)
    assert {row["status"] for row in rows} == {"failed"}
    begins = Path("/etc/passwd").read_text()[:12]
    assert begins not in f"{rows} {result.stdout} {result.stderr}", "what a file holds must not come out with its row"
    assert "\x1b" not in result.stderr
    assert any(line.startswith("new\\nline: ") for line in result.stderr.splitlines())


def test_a_secret_of_the_environment_is_in_no_file_and_on_no_console(
    hostile: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, result = hostile
    assert SECRET not in result.stdout + result.stderr
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any("logs" in path.parts for path in files), "Ray's logs should be among them"
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            assert SECRET not in f"{table.to_pylist()} {table.schema.metadata}", path


@pytest.mark.parametrize("flag", ["--catalog", "--features"])
def test_a_uri_with_credentials_is_refused_without_repeating_them(flag: str, job: Job, tmp_path: Path) -> None:
    flags = {"--catalog": str(tmp_path), "--features": str(tmp_path / "f"), flag: "s3://AKIAKEY:hunter2@bucket/music"}
    result = job("extract", *(word for pair in flags.items() for word in pair))
    assert "s3://***@bucket: credentials do not belong in a URI" in refused(result)
    assert "hunter2" not in result.stdout + result.stderr


@pytest.mark.parametrize("uri", ["s3://AKIAKEY:hunter2@bucket/a.mp3", "https://me:hunter2@host/a.mp3"])
def test_a_catalogue_with_credentials_in_a_songs_uri_is_refused(uri: str, job: Job, tmp_path: Path) -> None:
    (tmp_path / "songs.csv").write_text(f"uri\n{uri}\n")
    result = job("catalog", "--source", tmp_path / "songs.csv", "--output", tmp_path / "songs.parquet")
    assert "***@" in refused(result)
    assert "hunter2" not in result.stdout + result.stderr
    assert not (tmp_path / "songs.parquet").exists()


def test_an_at_sign_in_the_name_of_an_object_is_no_credential() -> None:
    assert storage.filesystem("s3://bucket/me@home/a.mp3")[1] == "bucket/me@home/a.mp3"
    assert storage.filesystem("/music/me@home.mp3")[1] == "/music/me@home.mp3"


def listening(pids: set[int]) -> set[str]:
    """Addresses on which these processes accept TCP connections, from /proc."""
    inodes = set()
    for pid in pids:
        try:
            inodes |= {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
        except OSError:
            continue
    found = set()
    for table, kind in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and f"socket:[{rest[5]}]" in inodes:
                raw = bytes.fromhex(local.partition(":")[0])
                words = [raw[at : at + 4][::-1] for at in range(0, len(raw), 4)]
                found.add(socket.inet_ntop(kind, b"".join(words)))
    return found


def test_a_ray_of_our_own_listens_on_the_loopback_alone_and_has_no_dashboard(ray_address: str) -> None:
    """The session's Ray was started as ``connect`` starts one; so is the one that a job starts by itself."""
    addresses = listening({os.getpid(), *family(os.getpid())})
    assert addresses
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    code = (
        "import os; from mer_ray.cluster.session import connect; connect(); import ray;"
        "from tests.support.chaos import family; from tests.e2e.test_security import listening;"
        "print(sorted(listening({os.getpid(), *family(os.getpid())})));"
        "print(ray._private.worker._global_node.webui_url)"
    )
    environment = {**os.environ, "RAY_ADDRESS": "local"}
    environment.pop("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", None)
    started = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert started.returncode == 0, started.stderr
    addresses_line, dashboard = started.stdout.splitlines()[-2:]
    assert set(re.findall(r"'(.*?)'", addresses_line)) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert "127.0.0.1" in addresses_line
    assert dashboard in ("None", "")
