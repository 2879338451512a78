"""Plugins load behind a guard: a broken one is listed and takes nothing down, and a name has one owner."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
import toy_plugin

from bcd_bench.plugin import registry as plugins
from bcd_bench.plugin.loading import load_factory
from bcd_bench.plugin.registry import Registry, load_registry, nearest
from bcd_bench.plugin.specs import AssetSpec, MethodSpec
from bcd_bench.types.errors import UsageError


@dataclass(frozen=True)
class FakeDist:
    name: str
    version: str = "2.0"


@dataclass(frozen=True)
class FakeEntryPoint:
    name: str
    value: str
    dist: FakeDist

    @property
    def module(self) -> str:
        return self.value

    def load(self) -> object:
        __import__(self.value)
        return sys.modules[self.value]


METHOD = """
from bcd_bench import MethodSpec, hookimpl
@hookimpl
def bcd_bench_methods():
    return [MethodSpec("{name}", "1", "A method.", "nowhere:Nothing")]
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install modules as plugins: `install(("plugin", "dist", "source"), ...)`; the core is there in any case."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("BCD_BENCH_PLUGINS", raising=False)
    made: list[str] = []

    def install(*sources: tuple[str, str, str]) -> None:
        found = [FakeEntryPoint("core", "bcd_bench.plugin.builtin", FakeDist("bcd-bench"))]
        for index, (name, dist, source) in enumerate(sources):
            module = f"fake_{tmp_path.name.replace('-', '_')}_{index}"
            (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
            made.append(module)
            found.insert(0, FakeEntryPoint(name, module, FakeDist(dist)))
        monkeypatch.setattr(plugins, "entry_points", lambda group: [*found, found[0]])

    yield install
    for module in made:
        sys.modules.pop(module, None)


def test_the_core_hands_in_its_own_specs(install) -> None:
    install()
    registry = load_registry()
    assert {"copy-content", "copy-motion", "oracle"} == set(registry.methods)
    assert all(spec.reference for spec in registry.methods.values())
    assert set(registry.report_formats) == {"markdown", "latex", "latex-table", "csv", "json", "html"}
    assert [(p.name, p.dist, p.version, p.status) for p in registry.plugins] == [("core", "bcd-bench", "2.0", "ok")]


def test_every_factory_of_the_core_exists() -> None:
    registry = Registry.from_modules([])
    for specs in (registry.methods, registry.report_formats, registry.executors):
        for spec in specs.values():
            assert callable(load_factory(spec.factory)), spec.name


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def (:", "SyntaxError"),
        ("from bcd_bench import hookimpl\n@hookimpl\ndef bcd_bench_methods(): return 1 / 0", "ZeroDivisionError"),
        (
            "from bcd_bench import hookimpl\n@hookimpl\ndef bcd_bench_methods(): return ['x']",
            "returned str, not MethodSpec",
        ),
        ("from bcd_bench import hookimpl\n@hookimpl\ndef bcd_bench_methods(): return 5", "TypeError"),
        ("from bcd_bench import hookimpl\n@hookimpl\ndef bcd_bench_motheds(): return []", "bcd_bench_motheds"),
        (METHOD.format(name="a/b"), "'a/b' is not a valid name"),
        (METHOD.format(name=".."), "'..' is not a valid name"),
        (METHOD.format(name="a\\nb"), "is not a valid name"),
        (METHOD.format(name="a "), "'a ' is not a valid name"),
        (METHOD.format(name=""), "'' is not a valid name"),
        (
            "raise RuntimeError('\\udc80 \\x1b[31m')",
            "RuntimeError: \ufffd \ufffd[31m",
        ),
    ],
)
def test_a_broken_plugin_is_listed_and_takes_nothing_down(install, source: str, error: str) -> None:
    install(("bad", "bad-dist", source), ("good", "good-dist", METHOD.format(name="fine")))
    registry = load_registry()
    status = {plugin.name: plugin for plugin in registry.plugins}
    assert {name: plugin.status for name, plugin in status.items()} == {"core": "ok", "bad": "BROKEN", "good": "ok"}
    assert error in (status["bad"].error or "")
    assert "\n" not in (status["bad"].error or "")
    assert "fine" in registry.methods
    with pytest.raises(UsageError) as caught:
        registry.method("of-the-bad-one")
    assert caught.value.hint == "plugin bad is BROKEN; see: bcd-bench doctor"


def test_one_name_from_two_distributions_names_both_and_the_rest_works(install) -> None:
    install(
        ("a", "dist-a", METHOD.format(name="same")),
        ("b", "dist-b", METHOD.format(name="same")),
        ("c", "dist-c", METHOD.format(name="same")),
        ("d", "dist-d", METHOD.format(name="fine")),
    )
    registry = load_registry()
    assert "same" not in registry.methods
    assert registry.method("fine").name == "fine"
    with pytest.raises(UsageError, match=r"'same' under methods is claimed by dist-a .* and dist-b .* and dist-c"):
        registry.method("same")


def test_two_plugins_of_one_name_are_both_broken_and_named(install) -> None:
    install(("twin", "dist-a", METHOD.format(name="x")), ("twin", "dist-b", METHOD.format(name="y")))
    registry = load_registry()
    twins = [plugin for plugin in registry.plugins if plugin.name == "twin"]
    assert [plugin.status for plugin in twins] == ["BROKEN", "BROKEN"]
    assert all("dist-a and dist-b" in (twin.error or "") or "dist-b and dist-a" in (twin.error or "") for twin in twins)
    assert "copy-content" in registry.methods


def test_a_plugin_that_calls_itself_core_breaks_itself_alone(install) -> None:
    install(("core", "bad-dist", METHOD.format(name="x")), ("good", "good-dist", METHOD.format(name="fine")))
    registry = load_registry()
    assert {(plugin.dist, plugin.status) for plugin in registry.plugins} == {
        ("bcd-bench", "ok"),
        ("bad-dist", "BROKEN"),
        ("good-dist", "ok"),
    }
    assert {"copy-content", "fine"} <= set(registry.methods)
    assert "x" not in registry.methods


def test_loading_can_be_limited_but_never_the_core(install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(("a", "dist-a", METHOD.format(name="x")), ("b", "dist-b", "raise RuntimeError"))
    assert [plugin.name for plugin in load_registry(only=["a"]).plugins] == ["core", "a"]
    monkeypatch.setenv("BCD_BENCH_PLUGINS", " a, core")
    assert [plugin.name for plugin in load_registry().plugins] == ["core", "a"]
    monkeypatch.setenv("BCD_BENCH_PLUGINS", "aa")
    with pytest.raises(UsageError, match=r"plugin 'aa' is not installed; did you mean a\?"):
        load_registry()


def test_unknown_names_come_with_the_nearest(install) -> None:
    registry = Registry.from_modules([toy_plugin])
    with pytest.raises(UsageError, match=r"unknown method 'copy-contents'; did you mean copy-content") as caught:
        registry.method("copy-contents")
    assert caught.value.hint == "bcd-bench list methods"
    with pytest.raises(UsageError, match=r"unknown report format 'pdf'; available: csv, html"):
        registry.report_format("pdf")
    with pytest.raises(UsageError, match=r"unknown metric 'x'; none are available"):
        registry.metric("x")


def test_nearest() -> None:
    assert nearest("spritse", ["sprites", "faces"]) == "did you mean sprites?"
    assert nearest("zzz", ["b", "a"]) == "available: a, b"


def test_owner_and_source_hash_follow_the_source(install, tmp_path: Path) -> None:
    install(("a", "dist-a", METHOD.format(name="x")))
    owner = load_registry().owner("methods", "x")
    assert (owner.name, owner.dist) == ("a", "dist-a")
    before = owner.source_sha256
    assert load_registry().owner("methods", "x").source_sha256 == before
    (tmp_path / f"{owner.module}.py").write_text(METHOD.format(name="x") + "\nchanged = True\n")
    assert load_registry().owner("methods", "x").source_sha256 != before


def test_the_hash_of_the_core_is_that_of_its_methods_alone() -> None:
    from bcd_bench.assets.hashing import sha256_sources

    folder = Path(plugins.__file__).parent
    expected = sha256_sources(folder, [folder / "builtin.py", folder / "reference_methods.py"])
    assert Registry.from_modules([]).owner("methods", "oracle").source_sha256 == expected


def test_hooks_after_a_run_are_called_and_their_errors_come_back(install, tmp_path: Path) -> None:
    hook = "from bcd_bench import hookimpl\n@hookimpl\ndef bcd_bench_run_finished(run_dir):\n    "
    install(("a", "dist-a", hook + "1 / 0"), ("b", "dist-b", hook + "(run_dir / 'told').touch()"))
    errors = load_registry().run_finished(tmp_path)
    assert [error.partition("(")[0].strip() for error in errors] == ["plugin a: ZeroDivisionError: division by zero"]
    assert (tmp_path / "told").exists()


def test_objects_can_be_plugins_of_a_test_registry() -> None:
    from bcd_bench import hookimpl

    class Plugin:
        @hookimpl
        def bcd_bench_assets(self) -> list[AssetSpec]:
            return [AssetSpec("a", "a.bin", "0" * 64, 1, "MIT", "ask")]

    registry = Registry.from_modules([Plugin()], core=False)
    assert (list(registry.assets), list(registry.methods)) == (["a"], [])
    assert isinstance(Registry.from_modules([Plugin()]).get("methods", "oracle"), MethodSpec)


def test_a_hook_may_take_fewer_arguments(install, tmp_path: Path) -> None:
    source = "from bcd_bench import hookimpl\nCALLS = []\n@hookimpl\ndef bcd_bench_run_finished(): CALLS.append(1)"
    install(("few", "few-dist", source))
    registry = load_registry()
    assert registry.run_finished(tmp_path) == []
    module = next(plugin.module for plugin in registry.plugins if plugin.name == "few")
    assert sys.modules[module].CALLS == [1]


def test_a_hook_with_an_argument_that_does_not_exist_breaks_its_plugin(install) -> None:
    source = "from bcd_bench import hookimpl\n@hookimpl\ndef bcd_bench_run_finished(folder): pass"
    install(("odd", "odd-dist", source), ("good", "good-dist", METHOD.format(name="fine")))
    registry = load_registry()
    assert {plugin.name: plugin.status for plugin in registry.plugins} == {"core": "ok", "odd": "BROKEN", "good": "ok"}
    assert "folder" in str(next(plugin.error for plugin in registry.plugins if plugin.name == "odd"))
    assert "fine" in registry.methods


WRAPPERS = {
    "wrapper=True": """
        from bcd_bench import MethodSpec, hookimpl
        @hookimpl(wrapper=True)
        def bcd_bench_methods():
            results = yield
            kept = [[spec for spec in specs if spec.name != "unwanted"] for specs in results]
            return [*kept, [MethodSpec("added", "1", "A method.", "nowhere:Nothing")]]
    """,
    "hookwrapper=True": """
        from bcd_bench import MethodSpec, hookimpl
        @hookimpl(hookwrapper=True)
        def bcd_bench_methods():
            outcome = yield
            kept = [[spec for spec in specs if spec.name != "unwanted"] for specs in outcome.get_result()]
            outcome.force_result([*kept, [MethodSpec("added", "1", "A method.", "nowhere:Nothing")]])
    """,
}


@pytest.mark.parametrize("source", WRAPPERS.values(), ids=WRAPPERS)
def test_wrappers_see_and_change_the_specs_of_all_plugins(install, source: str) -> None:
    install(("wraps", "wraps-dist", source), ("other", "other-dist", METHOD.format(name="unwanted")))
    registry = load_registry()
    assert [plugin.status for plugin in registry.plugins] == ["ok"] * 3
    assert "unwanted" not in registry.methods
    assert "oracle" in registry.methods
    assert registry.owner("methods", "added").name == "wraps"


@pytest.mark.parametrize(
    "body",
    ["1 / 0\n    yield", "yield\n    1 / 0", "yield\n    yield", "results = yield\n    return [['x']]"],
    ids=["before", "after", "two yields", "wrong type"],
)
def test_a_wrapper_that_fails_leaves_the_specs_of_others_alone(install, body: str) -> None:
    source = f"from bcd_bench import hookimpl\n@hookimpl(wrapper=True)\ndef bcd_bench_methods():\n    {body}"
    install(("wraps", "wraps-dist", source), ("other", "other-dist", METHOD.format(name="fine")))
    registry = load_registry()
    assert {plugin.name: plugin.status for plugin in registry.plugins}["wraps"] == "BROKEN"
    assert {"fine", "oracle"} <= registry.methods.keys()


def test_tryfirst_and_trylast_order_the_calls(install, tmp_path: Path) -> None:
    log = tmp_path / "log"
    source = (
        "from pathlib import Path\nfrom bcd_bench import hookimpl\n@hookimpl{options}\n"
        f"def bcd_bench_run_finished(run_dir):\n    with Path({str(log)!r}).open('a') as f: f.write('{{name}} ')"
    )
    install(
        ("a", "a-dist", source.format(name="first", options="(tryfirst=True)")),
        ("b", "b-dist", source.format(name="last", options="(trylast=True)")),
        ("c", "c-dist", source.format(name="between", options="")),
    )
    assert load_registry().run_finished(tmp_path) == []
    assert log.read_text().split() == ["first", "between", "last"]


def test_a_wrapper_around_the_end_of_a_run(install, tmp_path: Path) -> None:
    source = """
        from bcd_bench import hookimpl
        SEEN = []
        @hookimpl(wrapper=True)
        def bcd_bench_run_finished(run_dir):
            SEEN.append("before")
            result = yield
            SEEN.append("after")
            return result
    """
    failing = "from bcd_bench import hookimpl\n@hookimpl\ndef bcd_bench_run_finished(run_dir): 1 / 0"
    install(("wraps", "wraps-dist", source), ("fails", "fails-dist", failing))
    registry = load_registry()
    (line,) = registry.run_finished(tmp_path)
    assert line.startswith("plugin fails: ZeroDivisionError")
    assert sys.modules[next(p.module for p in registry.plugins if p.name == "wraps")].SEEN == ["before", "after"]
