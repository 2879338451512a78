"""Specs of the video codecs and of the metric of coded sizes."""

from __future__ import annotations

from bcd_bench import CommandSpec, MethodSpec, MetricSpec

__all__ = ["COMMANDS", "METHODS", "METRICS"]

METHODS = tuple(
    MethodSpec(
        name=name,
        version="0.1.0",
        summary=f"The driving clip, coded and decoded by {title}: rate and distortion of a video codec",
        factory=f"bcd_bench_baselines.codecs.method:{factory}",
        config={"crf": crf, "preset": preset},
        metrics=("coded-size",),
        reference=True,
    )
    for name, title, factory, crf, preset in (
        ("x264", "x264 (H.264)", "X264", 51, "veryslow"),
        ("x265", "x265 (H.265)", "X265", 51, "slow"),
        ("svt-av1", "SVT-AV1", "SvtAv1", 63, "2"),
    )
)

METRICS = (
    MetricSpec(
        name="coded-size",
        version="1",
        summary="Bytes and rate of the files that codecs write, for methods that report them",
        factory="bcd_bench_baselines.codecs.metric:CodedSize",
        licence="Apache-2.0",
    ),
)

COMMANDS = (
    CommandSpec(
        name="compare-codecs",
        summary="Compare BCD's bitstream with video codecs.",
        factory="bcd_bench_baselines.codecs.comparison:command",
    ),
)
