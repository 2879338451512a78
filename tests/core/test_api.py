"""The Python API: inputs of every kind, objects as methods and metrics, results, and errors that say what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import bcd_bench as bb
from bcd_bench.api import score, transfer
from bcd_bench.assets.store import AssetStore
from bcd_bench.io.image_sequence import encode_png
from bcd_bench.plugin.registry import load_registry
from bcd_bench.testing import practice_pairs
from bcd_bench.types.errors import TransferError, UsageError

Frames = npt.NDArray[np.uint8]


def frames(seed: int = 0, count: int = 4, size: tuple[int, int] = (16, 16)) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)


class Hold(bb.Method):
    """The first frame of the content, as often as the driving clip is long."""

    name = "hold"

    def __init__(self, shift: int = 0) -> None:
        super().__init__({})
        self.shift = shift

    def transfer(self, pairs, *, seed):
        for pair in pairs:
            content, motion = pair.content.load(), pair.motion.load()
            still = np.repeat(content.frames[:1], len(motion), 0)
            yield bb.Clip(np.clip(still.astype(int) + self.shift, 0, 255).astype(np.uint8), motion.fps, pair.id)


class Brightness(bb.PairMetric):
    """Mean of all values."""

    columns = (bb.Column("brightness", "grey levels", None, "Mean of all values of the output."),)

    def score(self, items):
        return [{"brightness": float(item.output.frames.mean())} for item in items]


@pytest.fixture
def suite() -> bb.Suite:
    return bb.Suite("practice", "1", practice_pairs(8), (64, 64), 10.0)


@pytest.fixture(autouse=True)
def home(bcd_bench_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def copy_motion(content: bb.Clip, motion: bb.Clip) -> Frames:
    return motion.frames


def test_names_are_listed() -> None:
    assert {"oracle", "copy-content", "copy-motion"} <= set(bb.list_methods())
    assert bb.list_suites() == sorted(bb.list_suites())
    assert bb.list_metrics() == sorted(load_registry().metrics)


def test_transfer_takes_arrays_clips_videos_photos_and_folders(tmp_path: Path) -> None:
    content, motion = frames(1), frames(2, 6)
    expected = np.repeat(content[:1], 6, 0)
    (tmp_path / "photo.png").write_bytes(encode_png(content[0]))
    bb.save_video(bb.Clip(content, 25.0), tmp_path / "content.mkv")
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, frame in enumerate(content):
        (folder / f"{index}.png").write_bytes(encode_png(frame))
    sources = [
        content,
        content[0],
        bb.Clip(content, 5.0),
        tmp_path / "photo.png",
        str(tmp_path / "content.mkv"),
        folder,
    ]
    for source in sources:
        clip = transfer(Hold(), content=source, motion=bb.Clip(motion, 12.0))
        np.testing.assert_array_equal(clip.frames, expected)
        assert clip.fps == 12.0


def test_inputs_are_cropped_around_their_centre_to_the_size_of_the_driving_clip() -> None:
    wide = np.zeros((1, 20, 60, 3), np.uint8)
    wide[:, :, 20:40] = 200  # the centre
    clip = transfer(Hold(), content=wide, motion=frames(count=2, size=(10, 10)))
    assert clip.frames.shape == (2, 10, 10, 3)
    assert clip.frames.min() == 200
    assert transfer(Hold(), content=wide, motion=wide, size=(8, 12)).frames.shape == (1, 8, 12, 3)


def test_a_method_may_state_its_frame_size() -> None:
    class Small(Hold):
        @property
        def frame_size(self) -> tuple[int, int]:
            return 8, 12

    with bb.load_method(Small()) as method:
        assert method.frame_size == (8, 12)
        assert transfer(method, content=frames(), motion=frames()).frames.shape == (4, 8, 12, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((4, 4)), "frames must be a uint8 array"),
        (3, "content is int, not a path, an array or a Clip"),
        ("absent.mp4", "absent.mp4"),
        ("absent.jpg", "absent.jpg does not exist"),
    ],
)
def test_inputs_that_are_no_clips_are_one_line(content: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        transfer(Hold(), content=content, motion=frames())


def test_a_method_that_fails_raises_with_its_reason() -> None:
    def broken(content: bb.Clip, motion: bb.Clip) -> bb.Failed:
        return bb.Failed("no face in the content clip")

    with pytest.raises(TransferError, match="broken: no face in the content clip"):
        transfer(broken, content=frames(), motion=frames())
    with pytest.raises(TransferError, match="oracle: the pair has no ground-truth target"):
        transfer("oracle", content=frames(), motion=frames())


def test_unknown_names_and_settings() -> None:
    with pytest.raises(UsageError, match=r"unknown method 'oracel'; did you mean oracle\?"):
        bb.load_method("oracel")
    with pytest.raises(UsageError, match="method 'oracle' has no setting 'steps'"):
        bb.load_method("oracle", settings={"steps": 3})
    with pytest.raises(UsageError, match="is not a method"):
        bb.load_method(3)


def test_default_weights_are_those_for_any_clip() -> None:
    landmarker = AssetStore(load_registry()).status_of("face-landmarker").state
    with bb.load_method("bcd") as method:
        assert method.tags(0)["weights"] == ("faces-landmarks" if landmarker == "ok" else "heads-landmarks")
        assert any("faces-landmarks are preferred" in note for note in method.notes) == (landmarker != "ok")
    with pytest.raises(UsageError, match="method 'cdsvae' has several sets of weights: cdsvae-sprites"):
        bb.load_method("cdsvae")


def test_evaluate_runs_names_objects_classes_and_functions(suite: bb.Suite) -> None:
    results = bb.evaluate(["oracle", copy_motion, Hold], suite, metrics=[Brightness], progress=False)
    assert {record.method.name for record in results} == {"oracle", "copy_motion", "hold"}
    frame = results.to_dataframe()
    values = frame[frame.column == "brightness"].set_index("method").value
    motion = np.mean([pair.motion.load().frames.mean() for pair in suite.pairs])
    assert values["copy_motion"] == pytest.approx(motion)
    assert len(results.pairs()) == 3 * 8
    assert "| hold " in results.table()
    assert "hold" in results._repr_markdown_()
    [comparison] = results.compare("hold", "copy_motion")
    assert comparison.difference == pytest.approx(values["hold"] - values["copy_motion"])
    assert "| brightness" in str(results.compare("hold", "copy_motion"))
    assert results.compare("hold", "copy_motion").to_dataframe().column.tolist() == ["brightness"]


def test_results_load_again_and_name_their_runs(suite: bb.Suite, tmp_path: Path) -> None:
    bb.evaluate(Hold(), suite, metrics=[Brightness()], out=tmp_path / "all", progress=False)
    results = bb.load_results(tmp_path / "all")
    assert len(results) == 1
    with pytest.raises(UsageError, match="no run is called 'other'; there are: hold"):
        results.compare("hold", "other")
    bb.evaluate(Hold(7), suite, metrics=[Brightness()], out=tmp_path / "all", progress=False)
    with pytest.raises(UsageError, match="several runs are called 'hold'"):
        bb.load_results(tmp_path / "all").compare("hold", "hold")


def test_an_object_is_identified_by_its_source_and_state(suite: bb.Suite) -> None:
    def run_id(method: object) -> str:
        [record] = bb.evaluate(method, suite, metrics=[Brightness()], progress=False)
        assert not record.unhashed
        return record.run_id

    assert run_id(Hold(1)) == run_id(Hold(1))
    assert run_id(Hold(1)) != run_id(Hold(2))


def test_an_object_that_cannot_be_hashed_is_shown_and_never_ranked(suite: bb.Suite) -> None:
    class Stateful(Hold):
        name = "stateful"

    method = Stateful()
    method.source = iter([])  # type: ignore[attr-defined]
    results = bb.evaluate([method, copy_motion], suite, metrics=[Brightness()], progress=False)
    [record] = [record for record in results if record.method.name == "stateful"]
    assert record.unhashed
    assert "stateful (no fingerprint)" in results.table()
    assert "could not be hashed: stateful" in results.table()
    again = bb.evaluate(method, suite, metrics=[Brightness()], progress=False)
    assert again.records[0].run_id != record.run_id, "nobody knows whether it is the same method"


def test_objects_run_in_this_process_alone(suite: bb.Suite) -> None:
    with pytest.raises(UsageError, match="unknown executor 'pool'"):
        bb.evaluate(Hold(), suite, executor="pool", progress=False)
    code = "import bcd_bench.plugin.objects as objects; objects.object_1234"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "cannot run in another process" in done.stderr


def test_a_name_that_is_taken_is_refused(suite: bb.Suite) -> None:
    def oracle(content: bb.Clip, motion: bb.Clip) -> Frames:
        return motion.frames

    with pytest.raises(UsageError, match=r"the name 'oracle' of .* is already used"):
        bb.evaluate(oracle, suite, progress=False)


def test_one_method_that_fails_raises_and_several_are_collected(suite: bb.Suite, monkeypatch) -> None:
    class Broken(Hold):
        name = "broken"

        def load(self, weights, device):
            raise ValueError("no luck")

    with pytest.raises(UsageError, match="no luck"):
        bb.evaluate(Broken(), suite, metrics=[Brightness()], progress=False)
    results = bb.evaluate([Broken(), Hold()], suite, metrics=[Brightness()], progress=False)
    assert set(results.errors) == {"broken"}
    assert [record.method.name for record in results] == ["hold"]
    assert "broken: " in str(results)


def test_score_compares_clips_without_a_suite() -> None:
    outputs = [frames(seed) for seed in range(8)]
    values = score(outputs, outputs, metrics=["target-psnr", Brightness], subjects=["a", "b"] * 4)
    assert values["target-psnr"].value == 60.0
    assert values["target-psnr"].n == 8
    assert values["brightness"].value == pytest.approx(np.mean([one.mean() for one in outputs]))
    assert values["brightness"].n_clusters == 2


def test_score_says_which_clips_a_metric_needs() -> None:
    class NeedsContent(bb.PairMetric):
        columns = (bb.Column("x", "", None, "x."),)

        def score(self, items):
            return [{"x": float(item.pair.content.load().frames.mean())} for item in items]

    with pytest.raises(UsageError, match="the metric needs the clips of the role 'content'"):
        score([frames()], metrics=[NeedsContent])
    assert score([frames()], metrics=[NeedsContent], contents=[frames(3)])["x"].value == pytest.approx(frames(3).mean())
    with pytest.raises(UsageError, match="1 outputs, but 2 clips with the role 'target'"):
        score([frames()], [frames(), frames()], metrics=[Brightness])
    with pytest.raises(UsageError, match="no output"):
        score([], metrics=[Brightness])


def test_save_video(tmp_path: Path) -> None:
    clip = bb.Clip(frames(), 10.0)
    bb.save_video(clip, tmp_path / "a.mkv")
    np.testing.assert_array_equal(bb.read_clip(tmp_path / "a.mkv", "a").frames, clip.frames)
    bb.save_video(clip, tmp_path / "a.mp4")
    assert bb.read_clip(tmp_path / "a.mp4", "a").frames.shape == clip.frames.shape
    with pytest.raises(UsageError, match=r"has to end in \.mp4"):
        bb.save_video(clip, tmp_path / "a.gif")
    with pytest.raises(UsageError, match="does not exist"):
        bb.save_video(clip, tmp_path / "absent" / "a.mp4")


def test_importing_the_package_and_its_light_names_imports_nothing_slow() -> None:
    code = "import sys, json, bcd_bench as bb; bb.hookimpl, bb.Method, bb.PairMetric, bb.MethodSpec; "
    code += "print(json.dumps(sorted({'numpy', 'torch', 'pandas', 'av', 'scipy', 'pydantic'} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
