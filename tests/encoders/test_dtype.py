"""The arithmetic that ``auto`` stands for: what the machine is fast in, unless a store was begun otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mer_ray import storage
from mer_ray.cluster.extract import _settled
from mer_ray.encoders import _settings, descriptors
from mer_ray.encoders._settings import Settings, multiplies_bfloat16
from mer_ray.settings import Part

Says = Callable[[str], None]


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    """Lets the kernel say what flags the CPU has."""

    def says(flags: str) -> None:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : fpu {flags} sse\n")
        monkeypatch.setattr(_settings, "Path", lambda _: tmp_path / "cpuinfo")
        monkeypatch.setattr(_settings, "multiplies_bfloat16", multiplies_bfloat16)
        multiplies_bfloat16.cache_clear()

    yield says  # type: ignore[misc]
    monkeypatch.undo()
    multiplies_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [("avx2", "float32"), ("amx_tile", "float32"), ("avx512_bf16", "bfloat16"), ("amx_bf16 amx_tile", "bfloat16")],
)
def test_a_cpu_takes_bfloat16_where_it_has_instructions_for_it(cpuinfo: Says, flags: str, dtype: str) -> None:
    cpuinfo(flags)
    assert Settings().on("cpu").dtype == dtype
    assert Settings().on("cuda").dtype == "bfloat16"
    assert Settings(dtype="float16").on("cpu").dtype == "float16"


def test_where_the_kernel_says_nothing_a_cpu_takes_float32(cpuinfo: Says, tmp_path: Path) -> None:
    cpuinfo("amx_bf16")
    (tmp_path / "cpuinfo").unlink()
    assert Settings().on("cpu").dtype == "float32"


@pytest.mark.parametrize("begun", ["float32", "bfloat16"])
def test_a_store_goes_on_in_the_arithmetic_it_was_begun_in(cpuinfo: Says, tmp_path: Path, begun: str) -> None:
    settings = {"fingerprint": {"dtype": begun}}
    storage.write_bytes(str(tmp_path / "store" / "_run" / "settings.json"), storage.as_json(settings))
    for flags in ("avx2", "amx_bf16"):
        cpuinfo(flags)
        assert _settled(Settings(), "cpu", str(tmp_path / "store")).dtype == begun  # type: ignore[attr-defined]
        asked = _settled(Settings(dtype="float16"), "cpu", str(tmp_path / "store"))
        assert asked.dtype == "float16"  # type: ignore[attr-defined]


def test_a_new_store_leaves_it_to_the_machine_and_other_encoders_have_no_say(cpuinfo: Says, tmp_path: Path) -> None:
    cpuinfo("amx_bf16")
    assert _settled(Settings(), "cpu", str(tmp_path / "new")).dtype == "bfloat16"  # type: ignore[attr-defined]
    assert descriptors.load("", _settled(Part(), "cpu", str(tmp_path / "new")), "cpu").dtype == "float32"
