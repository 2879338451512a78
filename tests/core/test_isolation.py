"""What plugin code sets globally holds for that plugin and nobody else, and what it raises costs it alone."""

from __future__ import annotations

import asyncio
import decimal
import gc
import json
import locale
import logging
import multiprocessing
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scoring_toy as toy

from bcd_bench import Clip, Column, ExtractorSpec, Failed, MethodSpec, MetricSpec, Pair, Scored, hookimpl
from bcd_bench.plugin.isolation import PluginScope, harness_umask, raised_by_plugin
from bcd_bench.plugin.loading import plugin_code
from bcd_bench.plugin.registry import Registry
from bcd_bench.plugin.suites import load_suite
from bcd_bench.run.folder import RunFolder
from bcd_bench.run.generate import generate
from bcd_bench.run.plan import make_plan
from bcd_bench.scoring.features import FeatureStore
from bcd_bench.scoring.score import score_run
from bcd_bench.types.clip import ClipRef, Generated
from bcd_bench.types.suite import Suite
from bcd_bench.util.interrupts import stopping


def ignore_filters() -> None:
    warnings.simplefilter("ignore")


SETTINGS: Mapping[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "folder": (os.getcwd, lambda: os.chdir("/")),
    "umask": (lambda: (mask := os.umask(0), os.umask(mask))[0], lambda: os.umask(0o077)),
    "environment": (lambda: dict(os.environ), lambda: os.environ.update(TOY_PLUGIN_WAS_HERE="1")),
    "locale": (lambda: locale.setlocale(locale.LC_NUMERIC), lambda: locale.setlocale(locale.LC_NUMERIC, "C.UTF-8")),
    "warnings": (lambda: list(warnings.filters), ignore_filters),
    "path": (lambda: list(sys.path), lambda: sys.path.insert(0, "/somewhere/else")),
    "recursion": (sys.getrecursionlimit, lambda: sys.setrecursionlimit(5000)),
    "collecting": (gc.isenabled, gc.disable),
    "random": (random.getstate, lambda: random.seed(5)),
    "start method": (
        lambda: multiprocessing.get_start_method(allow_none=True),
        lambda: multiprocessing.set_start_method("spawn", force=True),
    ),
    "logging disabled": (lambda: logging.root.manager.disable, lambda: logging.disable(logging.CRITICAL)),
    "logging level": (lambda: logging.root.level, lambda: logging.root.setLevel(1)),
    "logging handlers": (lambda: list(logging.root.handlers), lambda: logging.root.addHandler(logging.NullHandler())),
    "decimal precision": (lambda: decimal.getcontext().prec, lambda: setattr(decimal.getcontext(), "prec", 5)),
    "numpy printing": (np.get_printoptions, lambda: np.set_printoptions(precision=2)),
    "socket timeout": (socket.getdefaulttimeout, lambda: socket.setdefaulttimeout(3.0)),
    "numpy errors": (np.geterr, lambda: np.seterr(all="raise")),
    "numpy random": (lambda: np.random.get_state()[1].tobytes(), lambda: np.random.seed(5)),  # type: ignore[union-attr, index]
}


@pytest.mark.parametrize("name", SETTINGS)
def test_what_a_plugin_sets_holds_for_it_alone(name: str) -> None:
    read, change = SETTINGS[name]
    before = read()
    one, other = PluginScope(), PluginScope()
    with one:
        assert read() == before
        change()
        changed = read()
        assert changed != before
    assert read() == before
    with other:
        assert read() == before
    with one:
        assert read() == changed
        with other:  # an extractor that a metric asks for
            assert read() == before
        assert read() == changed
    assert read() == before


def test_torch_is_kept_apart_too() -> None:
    torch = pytest.importorskip("torch")

    def state() -> list[object]:
        return [
            torch.get_default_dtype(),
            torch.get_float32_matmul_precision(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_rng_state().sum().item(),
            torch.is_anomaly_enabled(),
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.backends.mkldnn.enabled,
            torch.backends.cuda.flash_sdp_enabled(),
            str(torch.get_default_device()),
            (torch.tensor(1e-39, dtype=torch.float32, device="cpu") * 1).item() == 0,
        ]

    before = state()
    scope = PluginScope()
    with scope:
        torch.set_default_dtype(torch.float64)
        torch.set_float32_matmul_precision("medium")
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(True)
        torch.manual_seed(12345)
        torch.autograd.set_detect_anomaly(True)
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.deterministic = True
        torch.backends.mkldnn.enabled = False
        torch.backends.cuda.enable_flash_sdp(False)
        torch.set_default_device("meta")
        torch.set_flush_denormal(True)
        changed = state()
    assert [place for place, one in enumerate(before) if one == changed[place]] == []
    assert state() == before
    with scope:
        assert state() == changed
    assert state() == before


def test_torch_that_a_plugin_imports_first_is_left_as_it_came() -> None:
    pytest.importorskip("torch")
    code = """
        import sys
        from bcd_bench.plugin.isolation import PluginScope
        assert "torch" not in sys.modules
        scope = PluginScope()
        with scope:
            import importlib.util
            assert importlib.util.find_spec("torch") is not None  # as transformers looks whether it is there
            import torch
            threads = torch.get_num_threads()
            torch.set_num_threads(threads + 3)
            torch.set_default_dtype(torch.float64)
            torch.manual_seed(7)
        print(torch.get_num_threads() - threads, torch.get_default_dtype(), torch.initial_seed() != 7)
        print(type(torch.__spec__.loader).__name__, type(torch.__loader__).__name__, len([f for f in sys.meta_path
              if type(f).__name__ == "_TorchWatcher"]))
        with scope:
            again = torch.get_num_threads() - threads, torch.get_default_dtype()
        print(*again)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "0 torch.float32 True",
        "SourceFileLoader SourceFileLoader 0",
        "3 torch.float64",
    ]


def test_what_a_plugin_imports_first_is_left_as_it_came() -> None:
    code = """
        import sys
        from bcd_bench.plugin.isolation import PluginScope
        late = {"multiprocessing", "socket", "decimal", "logging", "numpy"} & set(sys.modules)
        with PluginScope():
            import decimal, logging, multiprocessing, socket
            multiprocessing.set_start_method("spawn")
            socket.setdefaulttimeout(5)
            decimal.getcontext().prec = 4
            logging.disable(50)
            logging.basicConfig(level=10)
            import numpy as np
            np.seterr(all="raise")
        assert np.geterr()["divide"] == np.geterr()["invalid"] == "warn"
        print(len(late), multiprocessing.get_start_method(allow_none=True), socket.getdefaulttimeout(),
              decimal.getcontext().prec, logging.root.manager.disable, logging.root.level, logging.root.handlers)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout == "0 None None 28 0 30 []\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_handlers_come_back_and_are_not_the_plugins_at_the_next_call(number: signal.Signals) -> None:
    scope, before = PluginScope(), signal.getsignal(number)
    with scope:
        signal.signal(number, signal.SIG_IGN)
    assert signal.getsignal(number) == before
    with scope:
        assert signal.getsignal(number) == before


def test_what_plugins_print_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with PluginScope():
        print("loading")
        sys.stdout.write("done\n")
        sys.stdout.close()
    print("result")
    out, err = capfd.readouterr()
    assert (out, err) == ("result\n", "loading\ndone\n")


def test_a_scope_ends_well_after_an_exception_and_for_other_threads() -> None:
    before = os.getcwd()  # noqa: PTH109

    def fail() -> None:
        with PluginScope():
            os.chdir("/")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert os.getcwd() == before  # noqa: PTH109
    seen: list[bool] = []
    with PluginScope():
        inside = sys.stdout

        def other() -> None:
            with PluginScope():  # its thread may not touch the state that the first one looks after
                seen.append(sys.stdout is inside)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert sys.stdout is inside
    assert seen == [True]
    assert sys.stdout is not inside


def test_files_get_the_mode_of_the_harness(tmp_path: Path) -> None:
    from bcd_bench.io.atomic import write_text_atomic

    before = os.umask(0o022)
    try:
        with PluginScope():
            os.umask(0o077)
            assert harness_umask() == 0o022
            write_text_atomic(tmp_path / "out", "text")
        assert (tmp_path / "out").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


# Exceptions of foreign runtimes ---------------------------------------------------------------------------------------


class Panic(BaseException):
    """As pyo3's PanicException: no Exception."""


FOREIGN = [Panic("index out of bounds"), asyncio.CancelledError("cancelled"), SystemExit(3), GeneratorExit()]
_raised: list[BaseException] = []


class Raising:
    def __init__(self, config: Mapping[str, Any]) -> None:
        del config

    def load(self, weights: Path | None, device: str) -> None:
        del weights, device

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip]:
        del seed
        for pair in pairs:
            if pair.id == "p03":
                raise _raised[0]
            yield pair.motion.load()


class RaisingMetric:
    columns = (Column("shade", "", True, ""),)

    def load(self, device: str) -> None:
        del device

    def score(self, items: Sequence[Scored]) -> list[dict[str, float]]:
        for item in items:
            if item.pair.id == "p05":
                raise _raised[0]
        return [{"shade": 1.0} for _ in items]

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        del rows
        return {}


def _giving(specs: Sequence[object]) -> Callable[[], Sequence[object]]:
    return lambda: specs


def module(**specs: Sequence[object]) -> types.SimpleNamespace:
    hooks = {
        f"bcd_bench_{kind}": hookimpl(specname=f"bcd_bench_{kind}")(lambda of=of: of) for kind, of in specs.items()
    }
    return types.SimpleNamespace(__name__="test_isolation", **hooks)


def registry_of(**specs: Sequence[object]) -> Registry:
    return Registry.from_modules([toy, module(**specs)])


def run(registry: Registry, out: Path, method: str) -> RunFolder:
    suite = load_suite(registry, "toy")
    return generate(registry, make_plan(registry, method, suite), suite, out)[0]


@pytest.mark.parametrize("error", FOREIGN, ids=lambda error: type(error).__name__)
def test_what_a_foreign_runtime_raises_costs_its_pair_alone(tmp_path: Path, error: BaseException) -> None:
    _raised[:] = [error]
    registry = registry_of(
        methods=[MethodSpec("raising", "1", "", "test_isolation:Raising", batch_size=4)],
        metrics=[MetricSpec("raising", "1", "", "test_isolation:RaisingMetric")],
    )
    folder = run(registry, tmp_path, "raising")
    assert {pair for pair, result in folder.pairs().items() if result.status == "failed"} == {"p03"}
    assert type(error).__name__ in str(folder.pairs()["p03"].error)
    result = score_run(registry, folder, ["raising"])["raising"]
    assert (result.values["shade"].n, result.values["shade"].n_failed) == (10, 2)
    assert [reason.partition(":")[0] for reason in result.info.failures] == [type(error).__name__]


def test_an_interrupt_is_the_users_unless_nobody_asked() -> None:
    assert not raised_by_plugin(KeyboardInterrupt())
    with stopping() as stop:
        assert raised_by_plugin(KeyboardInterrupt())
        signal.raise_signal(signal.SIGINT)
        assert stop()
        assert not raised_by_plugin(KeyboardInterrupt())


def test_an_interrupt_that_the_plugins_own_handler_takes_still_counts() -> None:
    def wait() -> None:
        with PluginScope():
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.raise_signal(signal.SIGINT)

    with stopping() as stop:
        with pytest.raises(KeyboardInterrupt):
            wait()
        assert stop()


def test_code_that_is_loaded_is_guarded_as_well() -> None:
    from bcd_bench.types.errors import UsageError

    with (
        pytest.raises(UsageError, match=r"suite 's' cannot be built: Panic: out of bounds"),
        plugin_code("suite 's'", "cannot be built"),
    ):
        raise Panic("out of bounds")


# Arrays ---------------------------------------------------------------------------------------------------------------


class Inverting(RaisingMetric):
    def score(self, items: Sequence[Scored]) -> list[dict[str, float]]:
        for item in items:
            np.subtract(255, item.output.frames, out=item.output.frames)
        return [{"shade": 1.0} for _ in items]


class Spoiling(RaisingMetric):
    """Tries to change whatever it is given."""

    def score(self, items: Sequence[Scored]) -> list[dict[str, float]]:
        for item in items:
            for change in (
                lambda item=item: item.features["toy-mean"]["output"].__setitem__("mean", 0),
                lambda item=item: item.features["toy-mean"]["output"]["mean"].fill(0),
                lambda item=item: item.pair.motion.load().frames.fill(0),
                lambda item=item: item.info.__setitem__("code", 0),
                lambda item=item: item.pair.labels.__setitem__("subject", "same"),
                lambda item=item: item.pair.content.labels.update(subject="same"),
            ):
                with pytest.raises((TypeError, ValueError)):
                    change()
        assert pickle.loads(pickle.dumps(items[0].features["toy-mean"]["output"])).keys() == {"mean"}
        return [{"shade": float(item.features["toy-mean"]["output"]["mean"].mean())} for item in items]


class Mean:
    """Yields one buffer again and again."""

    identity: Mapping[str, Any] = {}

    def load(self, device: str) -> None:
        del device

    def extract(self, clips: Sequence[Clip]) -> Iterator[dict[str, Any]]:
        buffer = np.zeros(1)
        for clip in clips:
            buffer[0] = clip.frames.mean()
            yield {"mean": buffer}


class OneBuffer(Raising):
    """Fills one array for every pair of a batch, and overwrites it afterwards."""

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip]:
        del seed
        buffer = np.zeros((2, *toy.SIZE, 3), np.uint8)
        for pair in pairs:
            buffer[:] = pair.motion.load().frames
            yield Clip(buffer, 10.0)
        buffer[:] = 0


class Popping(Raising):
    """Empties the list that it is given, from the end."""

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip]:
        del seed
        outputs = []
        while pairs:
            outputs.append(pairs.pop().motion.load())  # type: ignore[attr-defined]
        return iter(outputs[::-1])


SPOILED = [
    MetricSpec("inverting", "1", "", "test_isolation:Inverting"),
    MetricSpec("spoiling", "1", "", "test_isolation:Spoiling", extractors=("toy-mean",)),
]
METHODS = [
    MethodSpec("one-buffer", "1", "", "test_isolation:OneBuffer", batch_size=5),
    MethodSpec("popping", "1", "", "test_isolation:Popping", batch_size=5),
]
EXTRACTORS = [ExtractorSpec("toy-mean", "1", "", "test_isolation:Mean")]


@pytest.mark.parametrize("method", ["one-buffer", "popping"])
def test_a_method_may_fill_one_array_for_every_pair_and_empty_its_list(tmp_path: Path, method: str) -> None:
    folder = run(registry_of(methods=METHODS), tmp_path, method)
    shades = [int(folder.read_output(result).frames[0, 0, 0, 0]) for result in folder.pairs().values()]
    assert shades == [5 * i + 1 for i in range(toy.N_PAIRS)]


def test_a_metric_that_writes_into_its_input_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    registry = registry_of(methods=METHODS, metrics=SPOILED, extractors=EXTRACTORS)
    folder = run(registry, tmp_path, "one-buffer")
    alone = score_run(registry, run(registry, tmp_path / "alone", "one-buffer"), ["shade"])["shade"]
    results = score_run(registry, folder, ["inverting", "spoiling", "shade"])
    assert "read-only" in str(results["inverting"].info.error)
    assert "work on a copy" in str(results["inverting"].info.error)
    assert results["shade"].values == alone.values
    assert results["spoiling"].info.error is None
    spoiled = results["spoiling"].pair_values
    assert spoiled is not None
    assert spoiled.columns["shade"] == [5 * i + 1 for i in range(toy.N_PAIRS)]


def test_features_that_are_yielded_from_one_buffer_are_told_apart(tmp_path: Path) -> None:
    registry = registry_of(extractors=EXTRACTORS)
    clips = [toy.draw(shade, 2) for shade in (3, 5, 9)]
    for _ in range(2):  # extracted, then read from the cache
        found = FeatureStore(registry, device="cpu", root=tmp_path).get("toy-mean", clips)
        assert [float(one["mean"][0]) for one in found] == [3, 5, 9]  # type: ignore[index]


def test_a_method_cannot_change_its_settings_in_the_record(tmp_path: Path) -> None:
    registry = registry_of(
        methods=[MethodSpec("grabbing", "1", "", "test_isolation:Grabbing", config={"layers": [1, 2]})]
    )
    folder = run(registry, tmp_path, "grabbing")
    assert folder.plan.method.config == {"layers": [1, 2]}


class Grabbing(Raising):
    def __init__(self, config: Mapping[str, Any]) -> None:
        config["layers"].append(3)
        config["more"] = 1  # type: ignore[index]

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip]:
        del seed
        yield from (pair.motion.load() for pair in pairs)


# What fails because of the moment is not kept -------------------------------------------------------------------------


_gone: list[bool] = []


def sometimes(shade: int) -> Clip:
    if _gone and shade == 10:
        raise OSError("Stale file handle")
    return toy.draw(shade, 2)


def unsteady(data: Mapping[str, Path]) -> Suite:
    del data

    def ref(name: str, shade: int) -> ClipRef:
        return ClipRef(f"{name}{shade}", Generated("test_isolation:sometimes", {"shade": shade}), frames=2)

    pairs = [Pair(f"p{i}", ref("c", 10 * i), ref("m", 100 + i)) for i in range(4)]
    return Suite("toy", "1", pairs, toy.SIZE, 10.0)


class OfContent(RaisingMetric):
    def score(self, items: Sequence[Scored]) -> list[Any]:
        found = [item.features["toy-mean"]["content"] for item in items]
        return [Failed(f"content: {one.reason}") if isinstance(one, Failed) else {"shade": 1.0} for one in found]


def test_a_clip_that_could_not_be_read_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    registry = registry_of(
        methods=[MethodSpec("copying", "1", "", "test_isolation:Copying")],
        metrics=[MetricSpec("of-content", "1", "", "test_isolation:OfContent", extractors=("toy-mean",))],
        extractors=EXTRACTORS,
    )
    suite = unsteady({})
    folder = generate(registry, make_plan(registry, "copying", suite), suite, tmp_path)[0]
    _gone[:] = [True]
    try:
        value = score_run(registry, folder, ["of-content"], suite=suite)["of-content"].values["shade"]
        assert (value.n, value.n_failed) == (3, 1)
    finally:
        _gone.clear()
    value = score_run(registry, folder, ["of-content"], suite=suite)["of-content"].values["shade"]
    assert (value.n, value.n_failed) == (4, 0)


class Copying(Grabbing):
    def __init__(self, config: Mapping[str, Any]) -> None:
        del config


# Processes ------------------------------------------------------------------------------------------------------------

FORKING = """
    import json, multiprocessing, os, signal, sys, time
    from bcd_bench.util.interrupts import stopping, raise_on_terminate

    def double(x):
        return 2 * x

    raise_on_terminate()
    with stopping() as stop, stop.into():
        for _ in range(20):
            with multiprocessing.get_context("fork").Pool(2) as pool:  # leaves by Pool.terminate: SIGTERM
                assert pool.map(double, [1, 2, 3]) == [2, 4, 6]
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        os.kill(child, signal.SIGTERM)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), stop())
"""


def test_processes_that_a_plugin_forks_end_by_signals() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORKING)], capture_output=True, text=True, timeout=3600
    )
    assert (done.returncode, done.stdout.split()) == (0, [str(-signal.SIGTERM), "False"]), done.stderr


def test_a_child_that_outlives_the_run_does_not_keep_its_lock(tmp_path: Path) -> None:
    from bcd_bench.util.locking import locked

    child = 0
    try:
        with locked(tmp_path):
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
        with locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


PRINTING = """
    import os, subprocess, sys
    sys.argv = ["bcd-bench", "list", "methods", "--json"]
    from bcd_bench.plugin import registry as plugins
    real = plugins.load_registry
    def noisy(**given):
        os.write(1, b"from C code\\n")
        subprocess.run(["echo", "from a child process"])
        return real(**given)
    plugins.load_registry = noisy
    from bcd_bench.cli import main
    main()
"""


def test_what_libraries_and_children_write_does_not_reach_the_results() -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(PRINTING)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert any(method["name"] == "oracle" for method in json.loads(done.stdout))
    assert "from C code" in done.stderr
    assert "from a child process" in done.stderr
