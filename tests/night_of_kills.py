"""A night of kills: extract and tag of real audio against an undisturbed run (`make chaos`).

python -m tests.night_of_kills [--music DIR] [--songs 60] [--kills 30] [--seed 0]
python -m tests.night_of_kills --songs-per-shard 2 [--drivers 2] ...

Starts a Ray of its own with two nodes. Kills of random kind come at random moments; whenever a run ends
otherwise than well, the same command is run again; when the directory is done, the next one is begun,
until all kills are spent. Each directory is compared with the undisturbed run: same ids, same features
within 1e-3, same tags. Prints a Markdown table of kills by kind and songs redone; ends with exit code 1 if a
song is lost, doubled or different. Without ``--music`` it composes its songs.

With few ``--songs-per-shard`` the directories have many shards, and what these leave is damaged too. Several
``--drivers`` work side by side in each directory, each with a range of its shards and kills of its own.
"""

from __future__ import annotations

import argparse
import os
import queue
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from mer_ray import storage
from mer_ray.catalog.sources import load_catalog
from mer_ray.demo.composer import write_world
from mer_ray.pages import table
from mer_ray.runs.shards import SONGS, stated
from tests.support.chaos import DAMAGE, DAMAGE_OF_SHARDS, DRIVERS, Night, assert_same, lost_and_doubled, rows_of

KINDS = {
    "extract": (*DRIVERS, "encoder", "decode worker", "decoder", "commit worker", "node", "late part"),
    "tag": (*DRIVERS, "tagger", "node"),
}
KILLS_A_DIRECTORY = 12
TAGGED_EVERY = 4
"""One directory in so many is one of tags, the others are of features."""
REPLACED_AFTER_SECONDS = 2.0


class TwoNodes:
    """A Ray of two raylets on this machine, of which the second can be lost and is then replaced."""

    def __init__(self) -> None:
        from ray._common.utils import reset_ray_address
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        reset_ray_address()  # or whoever starts Ray on this machine meanwhile would join this one
        self._second = self._cluster.add_node(num_cpus=2)
        self._asked = queue.Queue[threading.Event]()
        self.address: str = self._cluster.address

    def lose(self) -> None:
        """SIGKILL of the second raylet, and of all that runs on it; another comes up soon after.

        Ray starts a raylet in the main thread alone; others ask it (:meth:`serve`).
        """
        if threading.current_thread() is not threading.main_thread():
            done = threading.Event()
            self._asked.put(done)
            done.wait()
            return
        self._cluster.remove_node(self._second, allow_graceful=False)
        time.sleep(REPLACED_AFTER_SECONDS)
        self._second = self._cluster.add_node(num_cpus=2, wait=False)

    def serve(self) -> None:
        """Do what another thread has asked for, if any does within a moment."""
        with suppress(queue.Empty):
            done = self._asked.get(timeout=0.2)
            self.lose()
            done.set()

    def shutdown(self) -> None:
        """Give everything back."""
        self._cluster.shutdown()


def main() -> int:
    """Kill until all kills are spent, and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--music", type=Path, help="folder of songs; composed if not given")
    parser.add_argument("--songs", type=int, default=60, help="at most this many songs (60)")
    parser.add_argument("--kills", type=int, default=30, help="how many (30)")
    parser.add_argument("--seed", type=int, default=0, help="of every moment and choice (0)")
    parser.add_argument("--songs-per-shard", type=int, default=SONGS, help=f"about so many ({SONGS:,})")
    parser.add_argument("--drivers", type=int, default=1, help="side by side in each directory (1)")
    asked = parser.parse_args()
    nodes = TwoNodes()
    try:
        with tempfile.TemporaryDirectory(prefix="mer-ray-chaos-") as folder:
            return _rehearse(asked, Path(folder), nodes)
    finally:
        nodes.shutdown()


def _rehearse(asked: argparse.Namespace, folder: Path, nodes: TwoNodes) -> int:
    environment = {**os.environ, "RAY_ADDRESS": nodes.address, "HF_HUB_OFFLINE": "1"}
    nights = [Night(environment, os.getpid(), asked.seed + n, lose_node=nodes.lose) for n in range(asked.drivers)]
    chance = random.Random(asked.seed)
    flags, watched = _undisturbed(asked, folder, nights[0])
    truth = {job: rows_of(folder / f"undisturbed-{job}") for job in KINDS}
    nights[0].undisturbed = truth["extract"]
    shards = stated(str(folder / "undisturbed-extract"))
    bad, directory = Counter[str](), 0
    while sum(night.killed for night in nights) < asked.kills:
        directory += 1
        job = "extract" if directory % TAGGED_EVERY else "tag"
        output = folder / f"{job}-{directory}"
        if asked.drivers == 1:
            kinds = _kinds(job, chance, DAMAGE if shards == 1 else (*DAMAGE, *DAMAGE_OF_SHARDS))
            nights[0].through(job, [*flags[job], output], output, kinds, watched if job == "extract" else ())
        else:
            _side_by_side(job, [*flags[job], output], output, nights, shards, nodes, chance)
        lost, doubled = lost_and_doubled(output, truth[job])
        bad.update(lost=lost, doubled=doubled)
        try:
            assert_same(output, truth[job])
        except AssertionError as difference:
            bad["different"] += 1
            print(f"{output.name}: {difference}", flush=True)
        counts = Counter(kind for night in nights for kind in night.kills)
        so_far = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        killed = sum(night.killed for night in nights)
        print(f"{output.name}: {killed} of {asked.kills} kills, {lost} lost, {doubled} doubled ({so_far})", flush=True)
    of_each = f" of {shards} shards, {asked.drivers} drivers" if shards > 1 else ""
    print(f"\n{len(truth['extract'])} songs, {directory} directories{of_each}, seed {asked.seed}\n")
    redone = sum((night.redone for night in nights), Counter())
    rows = [[kind, str(counts[kind]), str(redone[kind])] for kind in sorted(counts)]
    rows.append(["all", str(counts.total()), str(redone.total())])
    print(table(["killed or damaged", "times", "songs redone"], rows))
    print(f"\n{bad['lost']} lost, {bad['doubled']} doubled, {bad['different']} directories unlike the undisturbed run")
    return int(bad.total() > 0)


def _side_by_side(
    job: str,
    flags: list[object],
    output: Path,
    nights: list[Night],
    shards: int,
    nodes: TwoNodes,
    chance: random.Random,
) -> None:
    """Several drivers of a job in one directory, each with a range of its shards, and each through kills of its own.

    No damage: what befalls the shards of a driver that has ended is for a run of the whole to mend.
    """
    ends = []
    with ThreadPoolExecutor(len(nights)) as pool:
        for at, night in enumerate(nights):
            kinds = [kind for kind in _kinds(job, chance, ()) if kind != "late part"]
            own = f"{shards * at // len(nights)}:{shards * (at + 1) // len(nights)}"
            ends.append(pool.submit(night.through, job, [*flags, "--shards", own], output, kinds))
        while not all(end.done() for end in ends):
            nodes.serve()
    for end in ends:
        end.result()


def _kinds(job: str, chance: random.Random, damages: Sequence[str]) -> list[str]:
    """What strikes one directory: kills of random kinds, and damage after some of the driver's."""
    drawn: list[str] = []
    for kind in chance.choices(KINDS[job], k=KILLS_A_DIRECTORY):
        drawn.append(kind)
        if kind in DRIVERS:
            drawn += chance.sample(damages, min(len(damages), chance.choice([0, 1, 2])))
    return drawn


def _undisturbed(
    asked: argparse.Namespace, folder: Path, night: Night
) -> tuple[dict[str, list[object]], tuple[Path, ...]]:
    """Run both jobs with nothing killed; returns their flags, and the folders the songs lie in."""
    write_world(folder / "world", songs_per_dataset=asked.songs if asked.music is None else 30, seed=asked.seed)
    manifest, labelled = folder / "songs.parquet", folder / "labelled.parquet"
    songs = load_catalog(str(folder / "world" / "demo-gems.tsv"))
    storage.write_table(str(labelled), songs)
    if asked.music is not None:
        songs = load_catalog(str(asked.music)).slice(0, asked.songs)
    storage.write_table(str(manifest), songs)
    small: list[object] = ["--encoder", "descriptors", "--songs-per-part", 2]
    features, learnt = folder / "undisturbed-extract", folder / "learnt-from"
    extract: list[object] = ["--catalog", manifest, *small, "--songs-per-shard", asked.songs_per_shard, "--features"]
    model: list[object] = ["--model", folder / "model"]
    tag: list[object] = ["--features", features, *model, "--labels", "gems", "--output"]
    night.through("extract", [*extract, features], features, [])
    night.through("extract", ["--catalog", labelled, *small, "--features", learnt], learnt, [])
    lesson: list[object] = ["--train", labelled, "--features", learnt, "--epochs", 3, "--workers", 0]
    night.through("train", [*lesson, *model], folder / "model", [])
    night.through("tag", [*tag, folder / "undisturbed-tag"], folder / "undisturbed-tag", [])
    return {"extract": extract, "tag": tag}, tuple({Path(uri).parent for uri in songs["uri"].to_pylist()})


if __name__ == "__main__":
    raise SystemExit(main())
