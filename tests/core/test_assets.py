"""Assets and weights: found by name on the search path, verified file by file, refused where a byte differs."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bcd_bench import AssetSpec, MethodSpec, TrainableSpec, Weights, hookimpl
from bcd_bench.assets import store as assets
from bcd_bench.assets.hashing import sha256_path
from bcd_bench.assets.store import AssetStore, cache_folder, format_size, search_path
from bcd_bench.assets.weights import default_note, resolve_weights
from bcd_bench.plugin.registry import Registry, load_registry
from bcd_bench.types.errors import MissingAssetError, UsageError
from bcd_bench.util.locking import locked

GIVEN = os.environ.get("BCD_BENCH_ASSETS")
"""The real assets, where the caller of the tests has them; every test here has a search path of its own."""
PICTURES = {f"body/{i}.png": f"picture {i}".encode() for i in range(6)}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def spec(name: str = "net", data: bytes = b"weights!", **more: object) -> AssetSpec:
    return AssetSpec(name, f"{name}.bin", sha256(data), len(data), "MIT", "ask the authors", **more)  # type: ignore[arg-type]


def art(**more: object) -> AssetSpec:
    files = {name: sha256(data) for name, data in PICTURES.items()}
    return AssetSpec("art", "art", "", 60, "CC-BY-SA-3.0", "copy it", directory=True, files=files, **more)  # type: ignore[arg-type]


def store_of(*specs: AssetSpec) -> AssetStore:
    class Plugin:
        @hookimpl
        def bcd_bench_assets(self) -> list[AssetSpec]:
            return list(specs)

    return AssetStore(Registry.from_modules([Plugin()]))


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two folders of the search path; the cache lies in `home`."""
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    monkeypatch.setenv("BCD_BENCH_ASSETS", f"{first}{os.pathsep}{os.pathsep}{second}")
    return first, second


def paint(folder: Path) -> Path:
    for name, data in PICTURES.items():
        (folder / "art" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "art" / name).write_bytes(data)
    return folder / "art"


def test_the_search_path_is_the_variable_then_the_cache(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert search_path() == [*places, tmp_path / "home" / "assets"]
    monkeypatch.delenv("BCD_BENCH_ASSETS")
    monkeypatch.delenv("BCD_BENCH_HOME")
    assert search_path() == [cache_folder() / "assets"]
    assert cache_folder().is_absolute()


def test_a_missing_asset_says_what_how_large_and_how_to_get_it() -> None:
    store = store_of(spec(), spec("big", urls=("https://example.org/big.bin",)))
    with pytest.raises(MissingAssetError) as caught:
        store.find("net")
    text = str(caught.value)
    assert text == f"asset 'net': not found (net.bin, sha256 {sha256(b'weights!')}, 8 B, licence MIT)"
    assert caught.value.hint == "bcd-bench assets add net PATH   (ask the authors)"
    assert caught.value.exit_code == 3
    with pytest.raises(MissingAssetError) as caught:
        store.find("big")
    assert caught.value.hint == "bcd-bench assets fetch big"
    with pytest.raises(UsageError, match=r"unknown asset 'nett'; did you mean net\?"):
        store.find("nett")


def test_the_first_good_copy_wins_and_a_bad_one_is_passed_over(places: tuple[Path, Path]) -> None:
    store = store_of(spec())
    (places[1] / "net.bin").write_bytes(b"weights!")
    assert store.find("net") == places[1] / "net.bin"
    (places[0] / "net.bin").write_bytes(b"weights?")
    assert store.find("net") == places[1] / "net.bin"
    (places[1] / "net.bin").unlink()
    with pytest.raises(MissingAssetError, match=r"net\.bin was modified \(sha256 \w{12}…, expected"):
        store.find("net")
    (places[0] / "net.bin").write_bytes(b"weig")
    with pytest.raises(MissingAssetError, match=r"net\.bin is truncated \(4 of 8 bytes\)"):
        store.find("net")
    (places[0] / "net.bin").unlink()
    (places[0] / "net.bin").mkdir()
    with pytest.raises(MissingAssetError, match="is a folder, not a file"):
        store.find("net")


def test_every_file_of_a_folder_is_checked_and_named(places: tuple[Path, Path]) -> None:
    store, folder = store_of(art()), paint(places[0])
    assert store.find("art") == folder
    (folder / "body" / "3.png").unlink()
    with pytest.raises(MissingAssetError, match=r"body/3\.png is missing \(art, 6 files, 60 B, licence CC-BY-SA"):
        store.find("art")
    (folder / "body" / "3.png").write_bytes(b"another")
    with pytest.raises(MissingAssetError, match=r"body/3\.png was modified"):
        store.find("art")
    for i in range(5):
        (folder / "body" / f"{i}.png").write_bytes(b"")
    with pytest.raises(MissingAssetError, match=r"body/0\.png .*; body/1\.png .*; body/2\.png .*; and 2 more \("):
        store.find("art")


def test_files_are_hashed_once_until_they_change(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    real = assets.sha256_file
    monkeypatch.setattr(assets, "sha256_file", lambda path: hashed.append(path.name) or real(path))
    path = places[0] / "net.bin"
    path.write_bytes(b"weights!")
    assert store_of(spec()).find("net") == path
    assert not (tmp_path / "home" / "verified.json").exists(), "a file this new may change under the same times"
    monkeypatch.setattr(assets, "RACY_NS", -(10**18))
    hashed.clear()
    for _ in range(3):
        assert store_of(spec()).find("net") == path
    assert hashed == ["net.bin"], "remembered between processes too"
    memo = tmp_path / "home" / "verified.json"
    assert list(json.loads(memo.read_text()).values()) == [sha256(b"weights!")]
    path.write_bytes(b"weights?")
    os.utime(path, ns=(1, 1))
    with pytest.raises(MissingAssetError):
        store_of(spec()).find("net")
    memo.write_text("not json")
    path.write_bytes(b"weights!")
    assert store_of(spec()).find("net") == path
    assert [status.state for status in store_of(spec()).verify()] == ["ok"]
    assert hashed == ["net.bin"] * 4, "verify always reads the file"


def test_an_unwritable_cache_only_costs_time(places: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file in the way")
    (places[0] / "net.bin").write_bytes(b"weights!")
    assert store_of(spec()).find("net") == places[0] / "net.bin"


def test_status_tells_ok_missing_and_altered(places: tuple[Path, Path]) -> None:
    (places[0] / "a.bin").write_bytes(b"weights!")
    (places[0] / "b.bin").write_bytes(b"weights?")
    found = {s.spec.name: (s.state, s.path) for s in store_of(spec("a"), spec("b"), spec("c")).status()}
    assert found == {"a": ("ok", places[0] / "a.bin"), "b": ("altered", places[0] / "b.bin"), "c": ("missing", None)}


def test_add_copies_the_right_file_and_refuses_another(tmp_path: Path) -> None:
    store, mine = store_of(spec(), art()), tmp_path / "mine.dat"
    with pytest.raises(UsageError, match="no such file"):
        store.add("net", mine)
    mine.write_bytes(b"something else")
    with pytest.raises(MissingAssetError, match=r"mine\.dat was modified"):
        store.add("net", mine)
    mine.write_bytes(b"weights!")
    assert store.add("net", mine) == tmp_path / "home" / "assets" / "net.bin"
    folder = paint(tmp_path / "elsewhere")
    (folder / "notes.txt").write_text("not part of it")
    for _ in range(2):
        added = store.add("art", folder)
    assert added == tmp_path / "home" / "assets" / "art"
    assert sorted(p.relative_to(added).as_posix() for p in added.rglob("*.*")) == sorted(PICTURES)
    assert sorted(path.name for path in (tmp_path / "home" / "assets").iterdir()) == ["art", "net.bin"]


def only_even(path: Path) -> None:
    """What an asset may name as its check."""
    if path.stat().st_size % 2:
        raise UsageError(f"{path.name} has an odd number of bytes")


def test_what_cannot_do_its_work_is_refused_though_any_file_will_do(places: tuple[Path, Path], tmp_path: Path) -> None:
    kind = AssetSpec("net", "net.bin", "", 0, "MIT", "bring one", check=f"{__name__}:only_even")
    store, mine = store_of(kind), tmp_path / "net.bin"
    mine.write_bytes(b"odd")
    with pytest.raises(UsageError, match=r"^net\.bin has an odd number of bytes$"):
        store.add("net", mine)
    assert store.status_of("net").state == "missing"
    mine.write_bytes(b"even")
    kept = store.add("net", mine)
    assert [status.state for status in store.verify()] == ["ok"]
    kept.write_bytes(b"odd")
    assert [(s.state, s.problem) for s in store.verify()] == [("altered", "net.bin has an odd number of bytes")]
    assert store.status_of("net").state == "ok"  # whoever loads it has to check it


def test_fetch_verifies_what_it_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    asked: list[str] = []

    def retrieve(url: str, known_hash: str, path: Path, fname: str) -> str:
        asked.append(url)
        if "broken" in url:
            raise ValueError("SHA256 hash of downloaded file does not match the known hash")
        name = url.partition("art/")[2]
        data = PICTURES[name] if name else b"weights!"
        assert known_hash == f"sha256:{sha256(data)}"
        (path / fname).write_bytes(data)
        return str(path / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    urls = ("https://example.org/broken", "https://example.org/net.bin")
    store = store_of(spec(urls=urls), art(urls=("https://example.org/art/",)), spec("bad", urls=urls[:1]), spec("hand"))
    assert store.fetch("net") == tmp_path / "home" / "assets" / "net.bin"
    assert asked == list(urls)
    assert store.fetch("net") == tmp_path / "home" / "assets" / "net.bin"
    assert len(asked) == 2, "what is there is not fetched again"
    assert sorted(p.name for p in (store.fetch("art") / "body").iterdir()) == [f"{i}.png" for i in range(6)]
    assert sorted(p.name for p in (tmp_path / "home" / "assets").iterdir()) == ["art", "net.bin"]
    with pytest.raises(MissingAssetError, match=r"'bad' could not be downloaded: https://example\.org/broken: SHA256"):
        store.fetch("bad")
    with pytest.raises(UsageError, match="'hand' has no download source: ask the authors"):
        store.fetch("hand")


def test_what_a_killed_download_left_is_deleted_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pooch

    def retrieve(url: str, known_hash: str, path: Path, fname: str) -> None:
        assert [left.name for left in path.iterdir()] == [".lock"]
        (path / "tmp123").write_bytes(b"torn")
        if "killed" in url:
            raise KeyboardInterrupt
        (path / fname).write_bytes(b"weights!")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    folder = tmp_path / "home" / "assets"
    with pytest.raises(KeyboardInterrupt):
        store_of(spec(urls=("https://example.org/killed",))).fetch("net")
    assert not list(folder.iterdir())
    scratch = folder / ".net.bin.download.part"
    scratch.mkdir()
    (scratch / "tmpabc").write_bytes(b"wei")  # after kill -9
    store = store_of(spec(urls=("https://example.org/net.bin",)))
    with locked(scratch), pytest.raises(UsageError, match="is being written by another process"):
        store.fetch("net")
    assert store.fetch("net").read_bytes() == b"weights!"
    assert [path.name for path in folder.iterdir()] == ["net.bin"]


def test_a_folder_that_is_fetched_in_part_is_missing_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pooch

    asked: list[str] = []
    online = 3

    def retrieve(url: str, known_hash: str, path: Path, fname: str) -> None:
        asked.append(fname)
        if len(asked) > online:
            raise OSError("no route to host")
        (path / fname).write_bytes(PICTURES[url.partition("art/")[2]])

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    store = store_of(art(urls=("https://example.org/art/",)))
    with pytest.raises(MissingAssetError, match="no route to host"):
        store.fetch("art")
    assert store.status_of("art").state == "missing"
    online, before = 99, len(asked)
    assert store.fetch("art") == tmp_path / "home" / "assets" / "art"
    assert asked[before:] == ["3.png", "4.png", "5.png"], "what was fetched before is not fetched again"
    assert [path.name for path in (tmp_path / "home" / "assets").iterdir()] == ["art"]


def test_a_file_that_cannot_be_read_is_a_problem_of_that_asset(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sha256_file(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    paint(places[0])
    monkeypatch.setattr(assets, "sha256_file", sha256_file)
    status = store_of(art()).status_of("art")
    assert (status.state, status.problem[:50]) == ("altered", "body/0.png cannot be read (Permission denied); bod")


def test_the_real_art_is_the_art_the_plugin_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = load_registry()
    if GIVEN is None or "sprites-art" not in registry.assets:
        pytest.skip("BCD_BENCH_ASSETS is not set, or the plugin sprites is not installed")
    monkeypatch.setenv("BCD_BENCH_ASSETS", GIVEN)
    status = AssetStore(registry).status_of("sprites-art")
    if status.state == "missing":
        pytest.skip("sprites-art is not among the assets of BCD_BENCH_ASSETS")
    assert (status.state, status.problem) == ("ok", "")


def test_sizes_for_people() -> None:
    assert [format_size(n) for n in (0, 812, 4_200_000, 5_300_000_000)] == ["0 B", "812 B", "4.2 MB", "5.3 GB"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An importable package that ships weights."""
    folder = tmp_path / "site" / "shipping"
    (folder / "weights").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "weights" / "toy.safetensors").write_bytes(b"good bytes")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield folder
    sys.modules.pop("shipping", None)


def method(*weights: Weights) -> MethodSpec:
    return MethodSpec("m", "1", "", "nowhere:M", weights=weights)


def shipped(name: str, *suites: str, good: bool = True) -> Weights:
    return Weights(name, suites, "shipping", "weights/toy.safetensors", sha256=sha256(b"good bytes" if good else b"x"))


def test_default_weights_follow_the_suite(package: Path) -> None:
    spec_ = method(shipped("a", "sprites"), shipped("any", "*"), shipped("b", "faces"))
    chosen = {suite: resolve_weights(spec_, suite, None) for suite in ("sprites", "faces", "other")}
    assert {suite: found.name for suite, found in chosen.items() if found} == {
        "sprites": "a",
        "faces": "b",
        "other": "any",
    }
    assert chosen["sprites"] is not None
    assert chosen["sprites"].path == package / "weights" / "toy.safetensors"
    assert chosen["sprites"].sha256 == sha256(b"good bytes")
    assert resolve_weights(method(), "sprites", None) is None
    with pytest.raises(UsageError, match="no default weights for suite 'faces'; available: a") as caught:
        resolve_weights(method(shipped("a", "sprites")), "faces", None)
    assert caught.value.hint == "--weights NAME or --weights PATH"
    store = AssetStore(Registry.from_modules([]))
    store.registry.trainables["m"] = TrainableSpec("m", "1", "", "nowhere:train", {"tiny": ""}, "tiny")
    with pytest.raises(UsageError) as caught:
        resolve_weights(method(shipped("a", "sprites")), "faces", None, store)
    assert caught.value.hint == "--weights NAME or --weights PATH; bcd-bench train m creates some"


@pytest.mark.parametrize("damage", [b"good byte", b"evil bytes"])
def test_truncated_or_tampered_weights_are_refused(package: Path, damage: bytes) -> None:
    (package / "weights" / "toy.safetensors").write_bytes(damage)
    with pytest.raises(MissingAssetError, match=r"weights 'a' at .* are truncated or modified and were rejected"):
        resolve_weights(method(shipped("a", "sprites")), "sprites", None)


def test_weights_that_are_not_shipped_after_all_are_missing(package: Path) -> None:
    (package / "weights" / "toy.safetensors").unlink()
    with pytest.raises(MissingAssetError, match="shipped weights 'a' are missing at") as caught:
        resolve_weights(method(shipped("a", "sprites")), "sprites", "a")
    assert caught.value.hint == "pip install --force-reinstall shipping"
    for nowhere in ("shipping.absent.deep", "absent.deep"):
        with pytest.raises(MissingAssetError, match="which is not installed"):
            resolve_weights(method(Weights("a", ("*",), nowhere, "a.safetensors")), "sprites", "a")


def test_weights_may_be_a_name_a_file_or_a_folder(package: Path, tmp_path: Path) -> None:
    spec_ = method(shipped("a", "sprites"), shipped("b"))
    named = resolve_weights(spec_, "sprites", "b")
    assert named is not None
    assert named.name == "b"
    mine = tmp_path / "checkpoint"
    mine.mkdir()
    (mine / "model.safetensors").write_bytes(b"mine")
    found = resolve_weights(spec_, "sprites", str(mine))
    assert found is not None
    assert (found.name, found.path, found.sha256) == ("checkpoint", mine, sha256_path(mine))
    with pytest.raises(UsageError, match=r"--weights 'bb': no such file, and no weights of 'm'; did you mean b\?"):
        resolve_weights(spec_, "sprites", "bb")
    with pytest.raises(UsageError, match="--weights '': no such file"):
        resolve_weights(spec_, "sprites", "")
    oracle = Registry.from_modules([]).get("methods", "oracle")
    with pytest.raises(UsageError, match="method 'oracle' does not accept weights"):
        resolve_weights(oracle, "sprites", str(mine))


def test_weights_may_be_an_asset(places: tuple[Path, Path]) -> None:
    store = store_of(spec())
    spec_ = method(Weights("net", ("*",), asset="net"))
    with pytest.raises(MissingAssetError, match="asset 'net': not found"):
        resolve_weights(spec_, "sprites", None, store)
    (places[0] / "net.bin").write_bytes(b"weights!")
    found = resolve_weights(spec_, "sprites", None, store)
    assert found is not None
    assert (found.path, found.sha256) == (places[0] / "net.bin", sha256(b"weights!"))


def test_default_weights_have_their_assets(package: Path, places: tuple[Path, Path]) -> None:
    store = store_of(spec())
    plain = shipped("plain", "faces")
    better = replace(shipped("better", "faces"), assets=("net",))
    spec_ = method(better, plain)
    note = "m uses the weights plain: better are preferred for faces, but need the asset net (bcd-bench assets list)"
    for given in (store, None):
        found = resolve_weights(spec_, "faces", None, given)
        assert found is not None
        assert found.name == "plain"
    assert default_note(spec_, "faces", store) == note
    with pytest.raises(MissingAssetError, match="weights 'better' need an asset: asset 'net': not found"):
        resolve_weights(spec_, "faces", "better", store)
    with pytest.raises(MissingAssetError, match="weights 'better' need an asset"):
        resolve_weights(method(better), "faces", None, store)
    (places[0] / "net.bin").write_bytes(b"weights!")
    found = resolve_weights(spec_, "faces", None, store)
    assert found is not None
    assert found.name == "better"
    assert default_note(spec_, "faces", store) == default_note(method(better), "faces", store) == ""


def chosen() -> AssetSpec:
    return AssetSpec("face", "a.onnx", "", 0, "MIT", "train one", also=("b.onnx",), variable="TOY_FACE")


def test_an_asset_may_be_any_file_under_its_names_or_where_a_variable_says(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(chosen())
    monkeypatch.delenv("TOY_FACE", raising=False)
    with pytest.raises(MissingAssetError, match=r"not found \(a\.onnx or b\.onnx, any such file, licence MIT\)"):
        store.find("face")
    (places[0] / "b.onnx").write_bytes(b"b")
    assert store.find("face") == places[0] / "b.onnx"
    assert store.status_of("face").sha256 == sha256(b"b")
    (places[1] / "a.onnx").write_bytes(b"a")  # the first name goes before the first folder
    assert store.find("face") == places[1] / "a.onnx"
    mine = tmp_path / "mine.onnx"
    monkeypatch.setenv("TOY_FACE", str(mine))
    with pytest.raises(MissingAssetError, match=r"TOY_FACE=.*mine\.onnx does not exist"):
        store.find("face")
    mine.write_bytes(b"")
    with pytest.raises(MissingAssetError, match="is empty"):
        store.find("face")
    mine.write_bytes(b"mine")
    assert store.status_of("face").sha256 == sha256(b"mine")


def test_a_file_of_ones_choice_is_added_under_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOY_FACE", raising=False)
    store = store_of(chosen())
    for name in ("other.onnx", "b.onnx"):
        (tmp_path / name).write_bytes(b"b")
    with pytest.raises(UsageError, match=r"must be named a\.onnx or b\.onnx, not other\.onnx") as caught:
        store.add("face", tmp_path / "other.onnx")
    assert caught.value.hint == f"export TOY_FACE={tmp_path / 'other.onnx'}"
    assert store.add("face", tmp_path / "b.onnx") == tmp_path / "home" / "assets" / "b.onnx"
