"""What listing a large bucket into a manifest takes, in seconds and memory, as the bucket grows.

python -m benchmarks.listing --songs 100000 1000000 --answer 0.1

A stand-in for S3 answers as its reference says, made-up keys in their order a thousand a request, each after ``answer``
seconds. So all but the requests is what the catalog job does. Listing one prefix after the other stands beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import botocore.parsers
import botocore.session
import botocore.utils
from fsspec.asyn import get_loop

from benchmarks.measure import flags
from benchmarks.processes import alone, private_memory
from mer_ray.catalog.folder import write_folder
from mer_ray.catalog.listing import Listing, listed_batches
from mer_ray.catalog.manifest import ROWS
from mer_ray.pages import table
from mer_ray.storage import listing
from mer_ray.storage.access import time_told

LAST = "\U0010ffff"
"""After every letter of a key."""
A_FOLDER = 5_000


class Bucket:
    """Answers list_objects_v2 as S3 does, of ``count`` keys in their order, in place of a client of s3fs."""

    def __init__(self, key: Callable[[int], str], count: int, answer_s: float = 0.0) -> None:
        self._key, self._count, self._answer_s = key, count, answer_s
        self.loop = get_loop()
        self.requests = 0

    def split_path(self, path: str) -> tuple[str, str, None]:
        """Bucket and key."""
        bucket, _, key = path.partition("/")
        return bucket, key, None

    async def _call_s3(self, method: str, **asked: Any) -> dict[str, Any]:
        assert method == "list_objects_v2"
        self.requests += 1
        await asyncio.sleep(self._answer_s)
        prefix, delimiter, most = asked["Prefix"], asked.get("Delimiter"), asked["MaxKeys"]
        at = int(asked.get("ContinuationToken") or self._first(prefix))
        end = self._first(prefix + LAST)
        contents: list[dict[str, Any]] = []
        prefixes: list[dict[str, Any]] = []
        while at < end and len(contents) + len(prefixes) < most:
            key = self._key(at)
            folder, deeper, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            if deeper:
                prefixes.append({"Prefix": f"{prefix}{folder}{deeper}"})
                at = self._first(f"{prefix}{folder}{deeper}{LAST}")
            else:
                contents.append({"Key": key, "Size": 3_000_000 + at, "ETag": f'"{at:032x}"'})
                at += 1
        more = {"NextContinuationToken": str(at)} if at < end else {}
        return {"Contents": contents, "CommonPrefixes": prefixes, **more}

    def _first(self, key: str) -> int:
        """The place of the first key that is not before this one."""
        return bisect_left(range(self._count), key, key=self._key)


@contextlib.contextmanager
def listed(bucket: Bucket) -> Iterator[None]:
    """Have listings ask a stand-in."""
    with patch.object(listing, "filesystem", lambda uri: (bucket, uri.removeprefix("s3://").rstrip("/"))):
        yield


def key(number: int) -> str:
    """A made-up key, in the order of its number."""
    return f"music/{number // A_FOLDER:06d}/{number:09d} some song of a name.mp3"


def list_bucket(songs: int, answer_s: float, ahead: int) -> tuple[float, float, float, int]:
    """Seconds, CPU seconds, most private MiB and requests of one listing."""
    with tempfile.TemporaryDirectory() as folder, private_memory() as most:
        bucket, source = Bucket(key, songs, answer_s), "s3://bucket/music"
        began, spent = time.monotonic(), time.process_time()
        with listed(bucket), patch.object(listing, "AHEAD", ahead):
            write_folder(str(Path(folder) / "songs"), listed_batches(source, ROWS, Listing()), source)
        return time.monotonic() - began, time.process_time() - spent, most[0], bucket.requests


def parse_pages(timestamp_parser: Callable[[Any], Any], pages: int = 20) -> float:
    """CPU µs a key of botocore's parser of real answers, with its own reading of times or another."""
    operation = botocore.session.get_session().get_service_model("s3").operation_model("ListObjectsV2")
    one = "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>3000000</Size></Contents>"
    body = "<ListBucketResult>" + "".join(one.format(key(number)) for number in range(1000)) + "</ListBucketResult>"
    factory = botocore.parsers.ResponseParserFactory()
    factory.set_parser_defaults(timestamp_parser=timestamp_parser)
    parser, began = factory.create_parser("rest-xml"), time.process_time()
    for _ in range(pages):
        parser.parse({"status_code": 200, "headers": {}, "body": body.encode()}, operation.output_shape)
    return (time.process_time() - began) / pages / 1000 * 1e6


def main() -> None:
    """Print a row a size."""
    asked = flags(__doc__, songs=[100_000, 1_000_000], answer=0.1)
    rows = []
    for songs in map(int, asked.songs):
        for ahead in (1, listing.AHEAD):
            wall, cpu, most, requests = alone(list_bucket, songs, asked.answer, ahead)
            figures = [f"{wall:,.0f}", f"{songs / wall:,.0f}", f"{cpu / songs * 1e6:,.0f}", f"{most:,.0f}"]
            rows.append([f"{songs:,}", str(ahead), f"{requests:,}", *figures])
    print(table(["songs", "side by side", "requests", "s", "songs a second", "CPU µs a song", "most MiB"], rows))
    own, ours = parse_pages(botocore.utils.parse_timestamp), parse_pages(time_told)
    print(f"parsing real answers: {own:.0f} CPU µs a key by botocore alone, {ours:.0f} with times read by Python")


if __name__ == "__main__":
    main()
