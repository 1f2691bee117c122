"""Windows to features: ours against a loop that keeps all hidden states, on a CPU and, where there is one, on a GPU.

python -m benchmarks.encode [--music DIR] [--windows 16] [--batch 8] [--device cpu|cuda] [--encoder random]

The loop is what one writes first: ``output_hidden_states=True``, all 13 states stacked, averaged over time, four
kept. Both encode the same windows of music in batches; features must agree, and the worst window's cosine is printed.
On a GPU each step of the way is a row: float32, bfloat16 weights, pooling inside the forward, 16 bits copied while the
last batch runs, compiled, convolutions as products; with its share of the card's own bf16 peak, as a large matrix
product reaches it in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.data import windows_of
from benchmarks.measure import Line, as_table, flags, take_turns
from benchmarks.processes import alone, high_water_mib
from mer_ray.encoders import load_encoder
from mer_ray.encoders._batching import Window, encode_tracks
from mer_ray.encoders._convolutions import as_products
from mer_ray.encoders._hubert import normalize
from mer_ray.pages import table

GFLOP_A_WINDOW = 229.0
"""Of MERT-v1-95M, counted."""
Samples = NDArray[np.float32]
Encode = Callable[[Samples], Tensor]


def main() -> None:
    """Print the lines as a table."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    asked = flags(__doc__, music=None, windows=16, batch=8, device=device, encoder="random")
    windows = windows_of(asked.music, asked.windows)
    if asked.device == "cpu":
        print(as_table({"encode": measure(windows, asked.batch, asked.encoder)}))
    else:
        print(gpu_table(windows, asked.batch, asked.encoder))


def loop(encoder: str, device: str = "cpu", dtype: str = "float32") -> Encode:
    """The baseline: every state kept, stacked and averaged."""
    ours: Any = load_encoder(encoder, device="cpu", dtype=dtype)
    model, layers = ours.encode.model, list(ours.settings["layers"])
    torch.nn.Module.to(model, device)

    def encode(windows_BS: Samples) -> Tensor:
        with torch.inference_mode():
            inputs = normalize(torch.from_numpy(windows_BS).to(device)).to(getattr(torch, dtype))
            states = model(inputs, output_hidden_states=True).hidden_states
            pooled = torch.stack(states, dim=1).float().mean(dim=2)
            return pooled[:, layers].flatten(1).cpu()

    return encode


def measure(windows: Samples, batch: int = 8, encoder: str = "random") -> list[Line]:
    """The lines of a CPU; bfloat16 pays where the CPU multiplies its matrices in hardware."""
    ours, half = (load_encoder(encoder, device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16"))
    peaks = [alone(_peak_mib, which, encoder, batch) for which in (True, False)]
    amx = "with AMX" if torch.cpu._is_amx_tile_supported() else "without AMX"
    memory = "memory of an encoder on a CPU, all states kept (less is better)"
    some, faster = windows[: -(-len(windows) // 2)], f"`--dtype bfloat16` on a CPU {amx},"
    speed, cosine = _compared("encode on a CPU,", "all states kept", windows, batch, loop(encoder), ours, "≥ 1")
    assert cosine.ratio >= 0.9999, f"features differ: cosine {cosine.ratio:.6f}"
    return [
        speed,
        Line(memory, [f"{peak:,.0f} MiB" for peak in peaks], peaks[1] / peaks[0], "≤ 0.5"),
        cosine,
        *_compared(faster, "float32", some, batch, ours, half, ""),
        _described(some, batch, ours),
    ]


def _described(windows: Samples, batch: int, mert: Encode) -> Line:
    """Classical descriptors beside MERT's size."""
    described = load_encoder("descriptors", device="cpu")
    runs = [partial(_in_batches, encode, windows, batch) for encode in (mert, described)]
    pair = take_turns(runs[0], runs[1], rounds=3)
    return pair.line(
        "`--encoder descriptors`, MERT's size,", len(windows), "windows/s a core", "≥ 16.7 a core", digits=2
    )


def _compared(
    what: str, other: str, windows: Samples, batch: int, baseline: Encode, ours: Encode, asked: str
) -> tuple[Line, Line]:
    """Speed and the worst window's cosine."""
    runs = [partial(_in_batches, encode, windows, batch) for encode in (baseline, ours)]
    worst = worst_cosine(runs[1](), runs[0]())
    pair = take_turns(runs[0], runs[1], rounds=3)
    halves = "bfloat16, " if other == "float32" else ""
    return (
        pair.line(f"{what} {other}", len(windows), "windows/s a core", asked, digits=2),
        Line(f"cosine of features, {halves}{other}, worst window", ["1", f"{worst:.7f}"], worst, "≥ 0.9999"),
    )


def worst_cosine(ours: Tensor, others: Tensor) -> float:
    """The cosine of the two features of the window where they differ most."""
    return float(torch.nn.functional.cosine_similarity(ours.double(), others.double(), dim=1).min())


def gpu_table(windows: Samples, batch: int, encoder: str) -> str:
    """Each step's speed, gain and cosine to float32, as Markdown; the card's name and peak above it."""
    peak = peak_gflops("bfloat16", "cuda", size=8192) / 1e3
    exact = _in_batches(load_encoder(encoder, device="cuda", dtype="float32"), windows, batch)
    rows: list[list[str]] = []
    first = 0.0
    for name, run in _steps(encoder, windows, batch):
        cosine = worst_cosine(run(), exact)  # also warms up
        speed = len(windows) / median_seconds(run, "cuda")
        first = first or speed
        share = speed * GFLOP_A_WINDOW / 1000 / peak
        rows.append([name, f"{speed:,.0f}", f"{speed / first:.2f}", f"{share:.0%}", f"{cosine:.6f}"])
    header = ["step", "windows/s", "times the first", "of the bf16 peak", "worst cosine to float32"]
    return f"{torch.cuda.get_device_name()}, bf16 peak {peak:,.0f} TFLOP/s\n\n{table(header, rows)}"


def _steps(encoder: str, windows: Samples, batch: int) -> list[tuple[str, Callable[[], Tensor]]]:
    """From what one writes first to what extract does, and that compiled; each encodes all windows."""
    ours, compiled, products = (load_encoder(encoder, device="cuda", dtype="bfloat16") for _ in range(3))
    states: Any = compiled.encode
    for part in (states.model.feature_extractor, states.model.feature_projection, states.model.encoder):
        part.compile()
    states = products.encode
    states.convolve = as_products(states.model.feature_extractor)
    scale = np.abs(windows).max() / 32767
    packed = [Window(samples, scale) for samples in np.rint(windows / scale).astype(np.int16)]
    plain: dict[str, Encode] = {
        "all states kept, float32": loop(encoder, "cuda"),
        "all states kept, bfloat16 weights": loop(encoder, "cuda", "bfloat16"),
        "pooled inside the forward, bfloat16": ours,
    }
    ahead = {
        "16 bits to the GPU, a batch ahead (what extract does)": ours,
        "the same, compiled": compiled,
        "not compiled; convolutions as on a CPU, group norm folded": products,
    }
    return [
        *((name, partial(_in_batches, one, windows, batch)) for name, one in plain.items()),
        *(
            (name, lambda one=one: torch.from_numpy(encode_tracks(one, [packed], batch)[0]))
            for name, one in ahead.items()
        ),
    ]


def _in_batches(encode: Encode, windows: Samples, batch: int) -> Tensor:
    return torch.cat([encode(windows[at : at + batch]) for at in range(0, len(windows), batch)])


def median_seconds(run: Callable[[], object], device: str, rounds: int = 5) -> float:
    """Of several rounds, each to the end of what a GPU has to do."""
    wait = torch.cuda.synchronize if device == "cuda" else int
    seconds = []
    for _ in range(rounds):
        wait()
        started = time.perf_counter()
        run()
        wait()
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def peak_gflops(dtype: str, device: str, size: int) -> float:
    """What large matrix products reach on a GPU or on all cores."""
    left, right = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    products = 20 if device == "cuda" else 1
    return 2e-9 * size**3 * products / median_seconds(lambda: [left @ right for _ in range(products)], device)


def _peak_mib(baseline: bool, encoder: str, batch: int) -> float:
    """What one batch adds to the memory of a process that holds the encoder."""
    encode = loop(encoder) if baseline else load_encoder(encoder, device="cpu")
    noise = np.random.default_rng(0).standard_normal((batch, 240_000), np.float32)
    before = high_water_mib()
    encode(noise)
    return high_water_mib() - before


if __name__ == "__main__":
    main()
