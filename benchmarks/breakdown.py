"""Where an extract's time goes: the stages of a real run, and inside its decoder and its encoder.

python -m benchmarks.breakdown [--music DIR] [--songs 40] [--encoder random] [--dtype auto]

Three tables. The run: ``jobs/extract.py`` on the songs, its stages in percent of its wall time; they overlap. The
decoder: the same songs on one core of this process, by function (cProfile's own time). The encoder: some windows of
them on all cores, by kind of operation, each beside its arithmetic and beside what one large matrix product reaches
on the same cores in the same arithmetic: the rest is what is left to win there. On the CPU alone.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as torch_profile

from benchmarks.encode import music
from benchmarks.songs import songs_of
from mer_ray.audio.decoding import decode_windows
from mer_ray.encoders import Encoder, load_encoder
from mer_ray.pages import table

BATCH = 4
FUNCTIONS = 5
"""The decoder's functions that get a row."""

CONVOLVE = "convolve"
KINDS = {
    CONVOLVE: "convolutions, their GELU",
    "addmm": "linear layers",
    "attention": "attention",
    "gelu": "GELU",
    "convolution": "position convolution",
    "norm": "norms",
    "copy_": "copies",
}
"""Operations by what is in their names or in those that call them; all others are one row."""
OTHERS = "all other"


def main() -> None:
    """Run, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--music", type=Path, help="folder of songs; composed if not given")
    parser.add_argument("--songs", type=int, default=40)
    parser.add_argument("--encoder", default="random", help="as of extract (random: full size, untrained)")
    parser.add_argument("--dtype", default="auto", help="as of extract (auto)")
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="mer-ray-breakdown-") as name:
        folder = Path(name)
        paths = songs_of(asked.music, asked.songs, folder)
        print(_run(paths, folder, asked.encoder, asked.dtype), flush=True)
        print(_decoder(paths), flush=True)
    print(_encoder(load_encoder(asked.encoder, device="cpu", dtype=asked.dtype), asked.music))


def stages(run: dict[str, float], wall: float, title: str) -> str:
    """Where the wall time of an extract went, by what its summary says of this run; the stages overlap.

    Args:
        run: ``seconds``, ``startup_s``, ``work_seconds``, ``decode_s`` and ``encode_s``.
        wall: seconds of the whole process.
        title: of the table.
    """
    parts = {
        "Python, settings, Ray's start and end": wall - run["seconds"],
        "until the encoder is loaded": run["startup_s"],
        "work": run["work_seconds"] - run["startup_s"],
        "- decoders busy": run["decode_s"],
        "- encoders busy": run["encode_s"],
        "accounting": run["seconds"] - run["work_seconds"],
    }
    rows = [[what, f"{spent:.1f}", f"{spent / wall:.1%}"] for what, spent in parts.items()]
    return table([title, "s", "of its wall time"], rows)


def _run(paths: list[str], folder: Path, encoder: str, dtype: str) -> str:
    """The stages of the job itself."""
    (folder / "songs").mkdir()
    for number, path in enumerate(paths):
        (folder / "songs" / f"{number:06}-{Path(path).name}").symlink_to(path)
    features = folder / "features"
    flags = ["--catalog", folder / "songs", "--features", features, "--encoder", encoder, "--dtype", dtype, "--gpus", 0]
    begun = time.monotonic()
    subprocess.run([sys.executable, "jobs/extract.py", *map(str, flags)], check=True, stdout=sys.stderr)
    wall = time.monotonic() - begun
    run = json.loads((features / "_run" / "summary.json").read_text())["this_run"]
    return f"{stages(run, wall, f'an extract of {len(paths)} songs')}\n{run['bottleneck']}\n"


def _decoder(paths: list[str]) -> str:
    """Where a decoder's time goes, by function."""
    seen = cProfile.Profile()
    seconds = 0.0
    with seen:
        for path in paths:
            seconds += decode_windows(path).duration_s
    times: dict[Any, Any] = pstats.Stats(seen).stats  # type: ignore[attr-defined]
    own = sorted(((row[2], _where(file, name)) for (file, _, name), row in times.items()), reverse=True)
    whole = sum(spent for spent, _ in own)
    rows = [[where, f"{spent:.2f}", f"{spent / whole:.0%}"] for spent, where in own[:FUNCTIONS]]
    rest = whole - sum(spent for spent, _ in own[:FUNCTIONS])
    rows.append(["all other", f"{rest:.2f}", f"{rest / whole:.0%}"])
    return table([f"the decoder, {seconds / 60:.0f} min of audio, one core", "s", "of its time"], rows)


def _where(file: str, name: str) -> str:
    """A function as a reader knows it: library and name."""
    path = Path(file)
    library = path.stem if path.parent.name in ("site-packages", "mer_ray") else path.parent.name
    return f"{library} `{name}`".strip()


def _encoder(encoder: Encoder, folder: Path | None) -> str:
    """Where an encoder's time goes, by kind of operation."""
    windows = torch.from_numpy(music(folder, BATCH))
    work = _gflop_a_window(encoder, windows[:1])
    states: Any = encoder.encode
    convolve = states.convolve

    def named(windows_BS: Tensor) -> Tensor:
        with record_function(CONVOLVE):
            return convolve(windows_BS)

    states.convolve = named
    encoder(windows[:1])
    with torch_profile(activities=[ProfilerActivity.CPU]) as seen:
        encoder(windows)
    spent: Counter[str] = Counter()
    for event in seen.events():
        spent[_kind(event)] += event.self_cpu_time_total / 1e6 / BATCH
    peak = _peak_gflops(encoder.dtype)
    whole, least = sum(spent.values()), sum(work.values()) / peak
    rows = []
    for kind in [*KINDS.values(), OTHERS]:
        share = work[kind] / spent[kind] / peak if kind in work else None
        figures = [f"{work[kind]:.0f}", f"{share:.0%}"] if share else ["–", "–"]
        rows.append([kind, f"{spent[kind]:.3f}", f"{spent[kind] / whole:.0%}", *figures])
    header = ["the encoder, a window", "s", "of its time", "GFLOP", "of a matrix product's rate"]
    return (
        f"{table(header, rows)}\n{encoder.dtype}: {whole:.2f} s a window; its {sum(work.values()):.0f} GFLOP "
        f"at the {peak:,.0f} GFLOP/s of one large matrix product would take {least:.2f} s ({least / whole:.0%})."
    )


def _kind(event: Any) -> str:
    """The row of an operation: that of the convolutions if it is part of them, else by its own name."""
    above = event
    while above is not None:
        if above.name == CONVOLVE:
            return KINDS[CONVOLVE]
        above = above.cpu_parent
    return next((kind for part, kind in KINDS.items() if part in event.name), OTHERS)


def _gflop_a_window(encoder: Encoder, window: Tensor) -> dict[str, float]:
    """Multiplications and additions of the rows that have most of them, counted in the library's own model."""
    work: defaultdict[str, float] = defaultdict(float)
    states: Any = encoder.encode
    model = states.model
    inside = {id(module) for module in model.feature_extractor.modules()}

    def count(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        name = CONVOLVE if id(module) in inside else "convolution" if isinstance(module, nn.Conv1d) else "addmm"
        work[KINDS[name]] += 2e-9 * output.numel() * module.weight[0].numel()  # type: ignore[index]

    def count_attention(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        work[KINDS["attention"]] += 4e-9 * output.shape[1] ** 2 * model.config.hidden_size

    counted = [one for one in model.modules() if isinstance(one, (nn.Conv1d, nn.Linear))]
    handles = [
        *(one.register_forward_hook(count) for one in counted),
        *(layer.register_forward_hook(count_attention) for layer in model.encoder.layers),
    ]
    with torch.inference_mode():
        model(window.to(model.dtype))
    for handle in handles:
        handle.remove()
    return work


def _peak_gflops(dtype: str, size: int = 3072, rounds: int = 7) -> float:
    """What a large matrix product reaches on all cores."""
    left, right = (torch.randn(size, size).to(getattr(torch, dtype)) for _ in range(2))
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - started)
    return 2e-9 * size**3 / median(seconds)


if __name__ == "__main__":
    torch.set_num_threads(os.cpu_count() or 1)
    main()
