"""What a catalogue costs: bytes, cores, GPU hours, store and dollars, from rates of your own.

python -m benchmarks.cost [--songs 55000 1000000 100000000] [--decode 500] [--gpu-tflops 121] [--night 14] …

    windows      = songs × seconds / 10
    decode       = songs × seconds / decode rate                          core hours
    encode       = windows × 229 GFLOP / (peak × utilization)             GPU hours
    read         = songs × megabytes                                      from object storage, once
    store        = windows × D × 2 bytes                                  features, float16
    projections  = windows × 384 × 2 bytes + songs × 384 × 4 bytes        for each model
    for a night  = hours above / hours of the night                       cores, GPUs, bytes a second

Nothing here is measured: the rates are. Defaults: decoding as ``benchmarks.decode`` measured it, less a third for a
worker's other chores; an L4's dense bf16 peak at 40 %, on paper (no GPU has run this yet); list prices of late 2025,
on demand, us-west-2. Put in your own.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from mer_ray.pages import table

WINDOW_SECONDS = 10.0
GFLOP_A_WINDOW = 229.0
"""Of MERT-v1-95M, counted."""


@dataclass(frozen=True)
class Rates:
    """What a machine does and what it costs.

    Attributes:
        seconds: of a song (MTG-Jamendo's mean).
        megabytes: of a song (MTG-Jamendo at 320 kbit/s).
        decode: seconds of audio that one core decodes in a second.
        gpu_tflops: dense bf16 peak of a GPU.
        utilization: share of it that the encoder reaches.
        dim: D, features of a window.
        night: hours a run may take.
        core_hour, gpu_hour, gigabyte_month, thousand_reads: dollars.
        node_megabytes: that one node of 16 cores reads from object storage in a second.
    """

    seconds: float = 219.0
    megabytes: float = 9.1
    decode: float = 500.0
    gpu_tflops: float = 121.0
    utilization: float = 0.40
    dim: int = 3072
    night: float = 14.0
    core_hour: float = 0.045
    gpu_hour: float = 0.80
    gigabyte_month: float = 0.023
    thousand_reads: float = 0.0004
    node_megabytes: float = 500.0


@dataclass(frozen=True)
class Cost:
    """What one catalogue takes; hours are of one core and of one GPU."""

    songs: int
    windows: float
    core_hours: float
    gpu_hours: float
    read_gb: float
    store_gb: float
    projections_gb: float
    cores: float
    gpus: float
    gigabytes_a_second: float
    dollars: float
    store_dollars_a_month: float
    binds: str


def cost(songs: int, rates: Rates) -> Cost:
    """The formulas above."""
    windows = songs * rates.seconds / WINDOW_SECONDS
    core_hours = songs * rates.seconds / rates.decode / 3600
    gpu_hours = windows * GFLOP_A_WINDOW / (rates.gpu_tflops * 1000 * rates.utilization) / 3600
    read_gb = songs * rates.megabytes / 1000
    store_gb = windows * rates.dim * 2 / 1e9
    projections_gb = (windows * 384 * 2 + songs * 384 * 4) / 1e9
    dollars = core_hours * rates.core_hour + gpu_hours * rates.gpu_hour + songs / 1000 * rates.thousand_reads
    cores, gpus = core_hours / rates.night, gpu_hours / rates.night
    flow = read_gb / (rates.night * 3600)
    reading_nodes = flow * 1000 / rates.node_megabytes
    nodes = {"decoding (cores)": cores / 16, "encoding (GPUs)": gpus, "reading (network)": reading_nodes}
    binds = max(nodes, key=lambda name: nodes[name])
    return Cost(
        songs,
        windows,
        core_hours,
        gpu_hours,
        read_gb,
        store_gb,
        projections_gb,
        cores,
        gpus,
        flow,
        dollars,
        store_gb * rates.gigabyte_month,
        binds,
    )


def cores_a_gpu(rates: Rates) -> float:
    """Cores that decode as fast as one GPU encodes."""
    return rates.gpu_tflops * 1000 * rates.utilization / GFLOP_A_WINDOW * WINDOW_SECONDS / rates.decode


def report(sizes: list[int], rates: Rates) -> str:
    """A Markdown table, one column a size."""
    costs = [cost(songs, rates) for songs in sizes]
    rows = [
        ["windows", *(f"{one.windows:,.0f}" for one in costs)],
        ["read once", *(_bytes(one.read_gb) for one in costs)],
        ["decode, core hours", *(f"{one.core_hours:,.1f}" for one in costs)],
        ["encode, GPU hours", *(f"{one.gpu_hours:,.1f}" for one in costs)],
        [f"in {rates.night:g} hours: cores", *(f"{one.cores:,.1f}" for one in costs)],
        [f"in {rates.night:g} hours: GPUs", *(f"{one.gpus:,.1f}" for one in costs)],
        [f"in {rates.night:g} hours: read", *(f"{one.gigabytes_a_second:,.2f} GB/s" for one in costs)],
        ["feature store", *(_bytes(one.store_gb) for one in costs)],
        ["projections, each model", *(_bytes(one.projections_gb) for one in costs)],
        ["dollars, once", *(f"{one.dollars:,.2f}" for one in costs)],
        ["dollars a month for the store", *(f"{one.store_dollars_a_month:,.2f}" for one in costs)],
        ["takes the most nodes", *(one.binds for one in costs)],
    ]
    header = ["songs", *(f"{songs:,}" for songs in sizes)]
    return f"{table(header, rows)}\n\nOne GPU of these keeps {cores_a_gpu(rates):.1f} cores busy decoding."


def _bytes(gigabytes: float) -> str:
    return f"{gigabytes / 1000:,.1f} TB" if gigabytes >= 1000 else f"{gigabytes:,.1f} GB"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--songs", type=int, nargs="+", default=[55_000, 1_000_000, 100_000_000])
    for name, value in vars(Rates()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"({value:g})")
    asked = vars(parser.parse_args())
    print(report(asked.pop("songs"), Rates(**asked)))


if __name__ == "__main__":
    main()
