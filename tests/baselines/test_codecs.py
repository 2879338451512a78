"""Video codecs as methods, coded sizes, BD-rates, and the table and picture of a comparison."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bcd_bench.io.encode import encode_av1
from bcd_bench.plugin.protocols import Scored
from bcd_bench.types.clip import Clip, ClipRef
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench_baselines.codecs.bd_rate import bd_rate
from bcd_bench_baselines.codecs.comparison import POINTS, draw, markdown, row_of
from bcd_bench_baselines.codecs.encoders import CODECS, without_messages
from bcd_bench_baselines.codecs.method import X264, X265, SvtAv1
from bcd_bench_baselines.codecs.metric import BYTES_KEY, CodedSize


def moving_disc(frames: int = 8, size: int = 64) -> np.ndarray[Any, Any]:
    y, x = np.mgrid[:size, :size]
    red, green = 128 + 60 * np.sin(x / 9), 128 + 60 * np.cos(y / 7)
    blue = [np.where(np.hypot(x - 20 - 3 * t, y - 30) < 12, 220, 40) for t in range(frames)]
    clips = [np.stack([red, green, disc], -1) for disc in blue]
    return np.stack(clips).astype(np.uint8)


def psnr(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float(10 * np.log10(255**2 / ((one.astype(float) - other) ** 2).mean()))


@pytest.mark.parametrize("name", sorted(CODECS))
def test_quality_and_size_fall_with_the_crf(name: str) -> None:
    codec, frames = CODECS[name], moving_disc()
    preset = "8" if name == "svt-av1" else "medium"
    sizes, qualities = [], []
    for crf in reversed(POINTS[name]):
        data = codec.encode(frames, 25.0, crf, preset)
        decoded = codec.decode(data)
        assert decoded.shape == frames.shape
        sizes.append(len(data))
        qualities.append(psnr(decoded, frames))
    assert sizes == sorted(sizes, reverse=True)
    assert qualities == sorted(qualities, reverse=True)
    assert qualities[0] > 24
    assert qualities[-1] > 12


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="not Linux")
@pytest.mark.parametrize("name", CODECS)
def test_encoders_leave_the_priority_of_the_process_alone(name: str) -> None:
    """SVT-AV1 gives itself real-time priority when it runs as root."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    CODECS[name].encode(moving_disc(3), 25.0, 40, "8" if name == "svt-av1" else "medium")
    encode_av1(moving_disc(3), 40)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_messages_are_removed_and_no_frame_is() -> None:
    units = [b"\0\0\1\x67abc", b"\0\0\1\x06settings", b"\0\0\1\x65def"]
    assert without_messages(b"\0" + b"\0".join(units)) == b"\0" + units[0] + b"\0" + units[2]
    data = CODECS["x264"].encode(moving_disc(), 25.0, 40, "medium")
    assert b"x264 - core" not in data
    assert len(CODECS["x264"].decode(data)) == 8


def pair(frames: np.ndarray[Any, Any]) -> Pair:
    class Source:
        def load(self) -> Clip:
            return Clip(frames, 25.0)

        def describe(self) -> dict[str, Any]:
            return {}

    return Pair("a", ClipRef("c", Source()), ClipRef("m", Source()))


def test_methods_report_their_bytes_and_odd_sizes_fail() -> None:
    for kind, config in (
        (X264, {"preset": "medium"}),
        (X265, {"preset": "medium"}),
        (SvtAv1, {"crf": 63, "preset": "8"}),
    ):
        [clip] = list(kind(config).transfer([pair(moving_disc())], seed=0))
        assert isinstance(clip, Clip)
        assert clip.frames.shape == (8, 64, 64, 3)
        assert 50 < clip.info[BYTES_KEY] < 5000
    [failed] = list(X264({}).transfer([pair(moving_disc(size=63))], seed=0))
    assert isinstance(failed, Failed)
    assert "even sides" in failed.reason
    with pytest.raises(UsageError, match="must be 0 to 51"):
        list(X264({"crf": 52}).transfer([pair(moving_disc())], seed=0))
    with pytest.raises(UsageError, match="cannot encode"):
        list(X264({"preset": "no-such-preset"}).transfer([pair(moving_disc())], seed=0))
    with pytest.raises(UsageError, match="x264"):
        X264({"crff": 1})


def test_coded_size_is_that_of_the_whole_file() -> None:
    clip = Clip(moving_disc(), 25.0)
    given = pair(clip.frames)
    rows = CodedSize().score([Scored(given, clip, {}, {BYTES_KEY: 100}), Scored(given, clip)])
    assert rows[0] == {"coded-bytes": 100, "coded-kbps": 8 * 100 * 25 / 8 / 1000, "coded-bits-per-frame": 100}
    assert isinstance(rows[1], Failed)


CURVE = [(10.0, 20.0), (20.0, 25.0), (40.0, 29.0), (80.0, 32.0)]


def test_bd_rate() -> None:
    assert bd_rate(CURVE, CURVE) == pytest.approx(0)
    assert bd_rate(CURVE, [(rate / 2, quality) for rate, quality in CURVE]) == pytest.approx(-50)
    assert bd_rate(CURVE, [(rate * 3, quality) for rate, quality in reversed(CURVE)]) == pytest.approx(200)
    # over the common range alone: a straight line through two points has the mean of its ends' logarithms
    assert bd_rate([(1, 0), (100, 2)], [(10, 1), (1000, 3)]) == pytest.approx(0)
    assert bd_rate([(1, 0), (100, 2)], [(100, 1), (10000, 3)]) == pytest.approx(900)
    assert bd_rate(CURVE, [(1.0, 40.0), (2.0, 50.0)]) is None
    assert bd_rate(CURVE, [(10.0, 20.0)]) is None
    assert bd_rate(CURVE, [(10.0, 20.0), (20.0, 20.0)]) is None
    assert bd_rate([*CURVE, (30.0, 22.0)], CURVE) == pytest.approx(0)  # worse than a cheaper point


def rows() -> list[dict[str, Any]]:
    made = []
    for method, factor in (("bcd-bitstream", 0.5), ("x264", 1.0), ("x265", 0.5)):
        for index, (rate, quality) in enumerate(CURVE):
            values = {
                "coded-bytes": [100 * rate, 0.0, 0.0],
                "coded-kbps": [rate * factor, 0.0, 0.0],
                "target-psnr": [quality, quality - 1, quality + 1],
                "motion-error": [40 - quality, 39 - quality, 41 - quality],
            }
            made.append({"method": method, "point": f"crf {index}", "pairs": 7, "values": values})
    return made


def test_table_and_picture_of_a_comparison(tmp_path: Path) -> None:
    text = markdown("some-suite", rows())
    assert "`some-suite`, 7 clips" in text
    assert "| x264 | crf 0 | 1000 | 10.00 | 20.0 [19.0, 21.0] | 20.0 [19.0, 21.0] |" in text
    assert "| BD-rate against x264 | target-psnr | motion-error |" in text
    assert "| x265 | -50 % | -50 % |" in text
    pytest.importorskip("matplotlib")
    draw("some-suite", rows(), tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 5000


def test_values_of_some_of_the_clips_are_marked_and_not_compared(tmp_path: Path) -> None:
    made = rows()
    cheap = next(row for row in made if row["method"] == "x265")
    cheap["values"]["motion-error"], cheap["scored"] = [1000.0, None, None], {"motion-error": 1}
    text = markdown("some-suite", made)
    assert "| 20.0 [19.0, 21.0] | 1000.0 (n = 1) |" in text
    assert "| x265 | -50 % | -50 % |" in text  # over the clips of all points
    some = [{**row, "scored": {"motion-error": 1}} if row["method"] == "x265" else row for row in made]
    assert "| x265 | -50 % | too few points |" in markdown("some-suite", some)
    far = {**made[0], "point": "exact content", "values": {**made[0]["values"], "coded-kbps": [1e6, 0.0, 0.0]}}
    matplotlib = pytest.importorskip("matplotlib.figure")
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matplotlib.Figure, "savefig", lambda figure, path: shown.append(figure))
        draw("some-suite", [*made, far], tmp_path / "x.png")
    assert "beyond the axis: bcd-bitstream, exact content: 1000000 kbit/s" in shown[0].get_suptitle()
    limits = [panel.dataLim for panel in shown[0].axes]
    assert all(limit.x1 < 1000 for limit in limits)
    assert limits[1].y1 < 100  # not the value of a single clip


def test_few_clips_without_intervals_and_points_without_any_value(tmp_path: Path) -> None:
    def value(mean: float | None, n: int) -> SimpleNamespace:
        return SimpleNamespace(value=mean, ci_low=None, ci_high=None, n=n)

    columns = {"coded-bytes": value(500.0, 2), "coded-kbps": value(4.0, 2), "target-psnr": value(20.0, 2)}
    blurred = {**columns, "csim": value(None, 0), "motion-error": value(60.0, 1)}
    sharp = {**columns, "coded-kbps": value(8.0, 2), "csim": value(0.5, 2), "motion-error": value(3.0, 2)}
    points = [("bcd-bitstream", blurred), ("bcd-bitstream", sharp), ("x264", blurred), ("x264", sharp)]
    made = [row_of(SimpleNamespace(values=values), method, "crf 1") for method, values in points]
    assert made[0]["scored"] == {"motion-error": 1}
    text = markdown("some-suite", made)
    assert "| x264 | crf 1 | 500 | 4.00 | 20.0 | – | 60.0 (n = 1) |" in text
    assert "–: no clip could be scored." in text
    assert "Brackets" not in text
    assert "| bcd-bitstream | no overlap | too few points | too few points |" in text
    pytest.importorskip("matplotlib")
    draw("some-suite", made, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 5000
