"""Windows to features: ours against a loop that keeps all hidden states, on a CPU and, where there is one, on a GPU.

python -m benchmarks.encode [--windows 16] [--batch 8] [--device cpu|cuda] [--encoder random]

The loop is what one writes first: ``output_hidden_states=True``, all 13 states stacked, averaged over time, four
kept. Both encode the same windows of music in batches; features must agree, and the worst window's cosine is printed.
On a GPU each step of the way is a row: float32, bfloat16 weights, pooling inside the forward, 16 bits copied while the
last batch runs, compiled, convolutions as products; with its share of the card's own bf16 peak, as a large matrix
product reaches it in the same run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.measure import Line, Pair, as_table, take_turns
from benchmarks.memory import high_water_mib
from benchmarks.songs import songs_of
from mer_ray.audio.decoding import decode_windows
from mer_ray.encoders import Encoder, load_encoder
from mer_ray.encoders._batching import Window, encode_tracks
from mer_ray.encoders._convolutions import as_products
from mer_ray.encoders._hubert import normalize
from mer_ray.pages import table

GFLOP_A_WINDOW = 229.0
"""Of MERT-v1-95M, counted."""
COMMAND = "python -m benchmarks.encode"
Encode = Callable[[NDArray[np.float32]], Tensor]


def main() -> None:
    """Print the lines as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--music", type=Path, help="folder of songs; composed if not given")
    parser.add_argument("--windows", type=int, default=16, help="to encode (16)")
    parser.add_argument("--batch", type=int, default=8, help="windows in one forward pass (8)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--encoder", default="random", help="as of extract (random: full size, untrained)")
    parser.add_argument("--peak", choices=["ours", "loop"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peak:
        return _print_peak(asked.peak, asked.encoder, asked.batch)
    windows = music(asked.music, asked.windows)
    if asked.device == "cpu":
        print(as_table(measure(windows, asked.batch, asked.encoder)))
    else:
        print(gpu_table(windows, asked.batch, asked.encoder))
    return None


def music(folder: Path | None, count: int) -> NDArray[np.float32]:
    """So many windows of songs, [count, samples]."""
    with TemporaryDirectory(prefix="mer-ray-encode-") as scratch:
        pieces = [decode_windows(path).windows for path in songs_of(folder, 8, Path(scratch))]
    full = np.concatenate([piece for piece in pieces if piece.shape[1] == pieces[0].shape[1]])
    return np.resize(full, (count, full.shape[1]))


def loop(encoder: str, device: str = "cpu", dtype: str = "float32") -> Encode:
    """The baseline: every state kept, stacked and averaged."""
    ours: Any = load_encoder(encoder, device="cpu", dtype=dtype)
    model, layers = ours.encode.model, list(ours.settings["layers"])
    torch.nn.Module.to(model, device)

    def encode(windows_BS: NDArray[np.float32]) -> Tensor:
        with torch.inference_mode():
            inputs = normalize(torch.from_numpy(windows_BS).to(device)).to(getattr(torch, dtype))
            states = model(inputs, output_hidden_states=True).hidden_states
            pooled = torch.stack(states, dim=1).float().mean(dim=2)
            return pooled[:, layers].flatten(1).cpu()

    return encode


def measure(windows: NDArray[np.float32], batch: int = 8, encoder: str = "random") -> list[Line]:
    """The lines of a CPU."""
    ours, baseline = load_encoder(encoder, device="cpu"), loop(encoder)
    worst = worst_cosine(_in_batches(ours, windows, batch), _in_batches(baseline, windows, batch))
    assert worst >= 0.9999, f"features differ: cosine {worst:.6f}"
    pair = take_turns(
        lambda: _in_batches(baseline, windows, batch), lambda: _in_batches(ours, windows, batch), rounds=3
    )
    peaks = [_peak_mb(which, encoder, batch) for which in ("loop", "ours")]
    return [
        Line("encode on a CPU, all states kept", *_speeds(len(windows), pair), pair.ratio, "≥ 1", COMMAND),
        Line(
            "memory of an encoder on a CPU, all states kept (less is better)",
            f"{peaks[0]:,.0f} MiB",
            f"{peaks[1]:,.0f} MiB",
            peaks[1] / peaks[0],
            "≤ 0.5",
            COMMAND,
        ),
        Line("cosine of features, all states kept, worst window", "1", f"{worst:.7f}", worst, "≥ 0.9999", COMMAND),
        *_halves(ours, windows[: -(-len(windows) // 2)], batch, encoder),
    ]


def _halves(ours: Encoder, windows: NDArray[np.float32], batch: int, encoder: str) -> list[Line]:
    """The same encoder in bfloat16, which pays where the CPU multiplies its matrices in hardware."""
    half = load_encoder(encoder, device="cpu", dtype="bfloat16")
    worst = worst_cosine(_in_batches(half, windows, batch), _in_batches(ours, windows, batch))
    pair = take_turns(lambda: _in_batches(ours, windows, batch), lambda: _in_batches(half, windows, batch), rounds=3)
    amx = "with AMX" if torch.cpu._is_amx_tile_supported() else "without AMX"
    return [
        Line(f"`--dtype bfloat16` on a CPU {amx}, float32", *_speeds(len(windows), pair), pair.ratio, "", COMMAND),
        Line("cosine of features, bfloat16, float32, worst window", "1", f"{worst:.7f}", worst, "≥ 0.9999", COMMAND),
    ]


def _speeds(windows: int, pair: Pair) -> tuple[str, str]:
    return f"{windows / pair.baseline_s:.2f} windows/s a core", f"{windows / pair.ours_s:.2f} windows/s a core"


def worst_cosine(ours: Tensor, others: Tensor) -> float:
    """The cosine of the two features of the window where they differ most."""
    return float(torch.nn.functional.cosine_similarity(ours.double(), others.double(), dim=1).min())


def gpu_table(windows: NDArray[np.float32], batch: int, encoder: str) -> str:
    """Each step's speed, gain and cosine to float32, as Markdown; the card's name and peak above it."""
    peak = _peak_tflops()
    exact = _in_batches(load_encoder(encoder, device="cuda", dtype="float32"), windows, batch)
    rows: list[list[str]] = []
    first = 0.0
    for name, run in _steps(encoder, windows, batch):
        cosine = worst_cosine(run(), exact)  # also warms up
        speed = len(windows) / _gpu_seconds(run)
        first = first or speed
        share = speed * GFLOP_A_WINDOW / 1000 / peak
        rows.append([name, f"{speed:,.0f}", f"{speed / first:.2f}", f"{share:.0%}", f"{cosine:.6f}"])
    header = ["step", "windows/s", "times the first", "of the bf16 peak", "worst cosine to float32"]
    return f"{torch.cuda.get_device_name()}, bf16 peak {peak:,.0f} TFLOP/s\n\n{table(header, rows)}"


def _steps(encoder: str, windows: NDArray[np.float32], batch: int) -> list[tuple[str, Callable[[], Tensor]]]:
    """From what one writes first to what extract does, and that compiled; each encodes all windows."""
    ours, compiled, products = (load_encoder(encoder, device="cuda", dtype="bfloat16") for _ in range(3))
    states: Any = compiled.encode
    for part in (states.model.feature_extractor, states.model.feature_projection, states.model.encoder):
        part.compile()
    states = products.encode
    states.convolve = as_products(states.model.feature_extractor)
    scale = np.abs(windows).max() / 32767
    packed = [Window(samples, scale) for samples in np.rint(windows / scale).astype(np.int16)]
    plain: list[tuple[str, Encode]] = [
        ("all states kept, float32", loop(encoder, "cuda")),
        ("all states kept, bfloat16 weights", loop(encoder, "cuda", "bfloat16")),
        ("pooled inside the forward, bfloat16", ours),
    ]
    ahead: list[tuple[str, Encoder]] = [
        ("16 bits to the GPU, a batch ahead (what extract does)", ours),
        ("the same, compiled", compiled),
        ("not compiled; convolutions as on a CPU, group norm folded", products),
    ]
    return [
        *((name, partial(_in_batches, one, windows, batch)) for name, one in plain),
        *((name, partial(_as_extract_does, one, packed, batch)) for name, one in ahead),
    ]


def _as_extract_does(encoder: Encoder, windows: list[Window], batch: int) -> Tensor:
    return torch.from_numpy(encode_tracks(encoder, [windows], batch)[0])


def _in_batches(encode: Encode, windows: NDArray[np.float32], batch: int) -> Tensor:
    return torch.cat([encode(windows[at : at + batch]) for at in range(0, len(windows), batch)])


def _gpu_seconds(run: Callable[[], object]) -> float:
    seconds = []
    for _ in range(5):
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def _peak_tflops(size: int = 8192, rounds: int = 20) -> float:
    """What a large bf16 matrix product reaches."""
    left, right = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))

    def products() -> None:
        for _ in range(rounds):
            left @ right

    return 2 * size**3 * rounds / _gpu_seconds(products) / 1e12


def _peak_mb(which: str, encoder: str, batch: int) -> float:
    command = [sys.executable, "-m", "benchmarks.encode", "--peak", which, "--encoder", encoder, "--batch", str(batch)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _print_peak(which: str, encoder: str, batch: int) -> None:
    """What one batch adds to the memory of a process that holds the encoder, in MiB."""
    encode: Any = load_encoder(encoder, device="cpu") if which == "ours" else loop(encoder)
    noise = np.random.default_rng(0).standard_normal((batch, 240_000), np.float32)
    before = high_water_mib()
    encode(noise)
    print(high_water_mib() - before)


if __name__ == "__main__":
    main()
