"""Torn lines, file systems without locks or folder sync, full disks, links out of a folder, and modes of files."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bcd_bench.assets import store as assets
from bcd_bench.assets.hashing import sha256_file
from bcd_bench.assets.store import FileHashes
from bcd_bench.io.atomic import LINES_AT_ONCE, append_jsonl, atomic_path, fsync_path, read_jsonl, write_text_atomic
from bcd_bench.io.links import follows_links, leads_outside
from bcd_bench.training import save_tensors, save_torch, training_folder, truncate_log, writing_checkpoint
from bcd_bench.types.errors import UsageError
from bcd_bench.util.locking import locked

TORN = [b'{"step": 3, "loss": 2.6', b"\0\0\0\0", b'{"step": 3, "loss": \xff\xfe', b"[1, 2]", b'{"loss": 1}', b"3"]


@pytest.fixture
def umask_022() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Logs -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", TORN)
@pytest.mark.parametrize("where", ["last", "middle"])
def test_a_torn_line_of_a_training_log_is_left_out(tmp_path: Path, torn: bytes, where: str) -> None:
    log = tmp_path / "log.jsonl"
    first, second = b'{"step": 1, "loss": 3.0}\n', b'{"step": 2, "loss": 2.5}\n'
    log.write_bytes(first + second + torn if where == "last" else first + torn + b"\n" + second)
    truncate_log(log, 1)
    assert log.read_bytes() == first
    append_jsonl(log, [{"step": 2, "loss": 2.0}])
    assert [line["step"] for line in read_jsonl(log)] == [1, 2]


LINES = (
    b'{"a": 1}\n',
    b'{"b": [{"c": 2}], "d": "\xc3\xa4"}\n',
    b'{"e": {"f": 1}\n',
    b'{"g": 2}, {"h": 3}\n',
    b'{"i": [{}\n',
    b'{"j": 1}]}\n',
    b'{"k": "\xff"}\n',
    b'"l": 4}\n',
    b"[1]\n",
    b"{}{}\n",
    b"\n",
    b"\x00\x00\n",
)


@given(st.lists(st.sampled_from(LINES), max_size=12), st.sampled_from([b"", b'{"m": 1}', b'{"m": ']))
def test_lines_of_json_are_read_as_if_one_by_one(lines: list[bytes], last: bytes) -> None:
    def alone(line: bytes) -> list[Any]:
        try:
            record = json.loads(line.decode())
        except ValueError:
            return []
        return [record] if isinstance(record, dict) else []

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.jsonl")
        path.write_bytes(b"".join(lines) + last)
        assert read_jsonl(path) == [record for line in [*lines, last] for record in alone(line)]


def test_more_lines_than_are_parsed_at_once_are_all_read(tmp_path: Path) -> None:
    append_jsonl(tmp_path / "x.jsonl", [{"n": n} for n in range(2 * LINES_AT_ONCE + 1)])
    with (tmp_path / "x.jsonl").open("ab") as stream:
        stream.write(b'{"n": ' * 100_000 + b"}" * 100_000 + b"\n")  # nested too deeply to be parsed
    assert [record["n"] for record in read_jsonl(tmp_path / "x.jsonl")] == list(range(2 * LINES_AT_ONCE + 1))


def test_a_training_log_that_is_gone_begins_again(tmp_path: Path) -> None:
    truncate_log(tmp_path / "log.jsonl", 7)
    assert (tmp_path / "log.jsonl").read_bytes() == b""


# Locks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_without_locks_the_work_goes_on_with_a_warning(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path):
        pass
    assert "the file system has no locks" in capsys.readouterr().err
    with locked(tmp_path):
        pass
    assert capsys.readouterr().err == "", "once per folder"


def test_a_second_process_is_refused_and_the_next_one_is_not(tmp_path: Path) -> None:
    code = textwrap.dedent(
        f"""
        from pathlib import Path
        from bcd_bench.util.locking import locked
        with locked(Path({str(tmp_path)!r})):
            pass
        """
    )
    with locked(tmp_path):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "is being written by another process" in done.stderr
        with pytest.raises(UsageError, match="another process"), training_folder(tmp_path):
            pass
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_of_a_distributed_training_the_first_process_has_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with training_folder(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with training_folder(tmp_path):
            pass
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(UsageError, match="another process"), training_folder(tmp_path):
            pass


def test_a_training_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be written"), training_folder(tmp_path / "file" / "run"):
        pass


# Syncing, modes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF])
def test_a_folder_that_cannot_be_synced_is_no_error(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def refuse_folders(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    write_text_atomic(tmp_path / "a", "text")
    assert (tmp_path / "a").read_text() == "text"

    def refuse_all(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse_all)
    with pytest.raises(OSError, match=os.strerror(number)):
        fsync_path(tmp_path / "a")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
    with pytest.raises(OSError, match="I/O error"):
        fsync_path(tmp_path)


@pytest.mark.usefixtures("umask_022")
def test_files_follow_the_umask_whoever_writes_them(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "private") as temporary:
        handle = os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600)
        os.close(handle)
    assert mode(tmp_path / "private") == 0o644
    os.umask(0o007)
    write_text_atomic(tmp_path / "group", "text")
    assert mode(tmp_path / "group") == 0o660


@pytest.mark.usefixtures("umask_022")
def test_weights_and_checkpoints_can_be_read_by_others(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    tensors = {"a": torch.arange(3.0)}
    save_tensors(tmp_path / "a.safetensors", tensors, {"format": "toy"})
    save_torch(tmp_path / "a.pt", {"step": 3, **tensors})
    assert [mode(path) for path in sorted(tmp_path.iterdir())] == [0o644, 0o644]
    assert safetensors.load_file(tmp_path / "a.safetensors")["a"].tolist() == [0, 1, 2]
    assert torch.load(tmp_path / "a.pt", weights_only=True)["step"] == 3


@pytest.mark.usefixtures("umask_022")
def test_a_fetched_asset_can_be_read_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bcd_bench.assets.store import AssetStore
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.plugin.specs import AssetSpec

    def retrieve(url: str, *, known_hash: str, path: Path, fname: str) -> None:
        del url, known_hash
        handle = os.open(path / fname, os.O_CREAT | os.O_WRONLY, 0o600)  # pooch renames a private temporary file
        os.write(handle, b"weights!")
        os.close(handle)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BCD_BENCH_ASSETS", "")
    (tmp_path / "w").write_bytes(b"weights!")
    spec = AssetSpec("net", "net.bin", sha256_file(tmp_path / "w"), 8, "", "", urls=("https://example.org/net.bin",))
    assert mode(AssetStore(Registry(assets={"net": spec})).fetch("net")) == 0o644


# Full disks -----------------------------------------------------------------------------------------------------------

FULL = """
    import resource, signal, sys
    from pathlib import Path
    import torch
    from bcd_bench.training import save_tensors, save_torch, writing_checkpoint
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    write = {
        "torch": lambda tensor: save_torch(folder / "state", {"a": tensor}),
        "safetensors": lambda tensor: save_tensors(folder / "state", {"a": tensor}, {}),
    }[kind]
    write(torch.zeros(10))
    before = (folder / "state").read_bytes()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # larger files fail in the middle, as on a full disk
    try:
        with writing_checkpoint(folder, 7):
            write(torch.zeros(1_000_000))
    except Exception as error:
        print(type(error).__name__, "|", error, "|", error.hint)
    assert (folder / "state").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["state"]
"""


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_a_checkpoint_that_does_not_fit_is_one_line_and_the_one_before_stays(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("torch")
    command = [sys.executable, "-c", textwrap.dedent(FULL), str(tmp_path), kind]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        f"UsageError | {tmp_path}: the checkpoint of step 7 cannot be written (File too large)"
    )
    assert "free disk space, then rerun the same command with --resume" in done.stdout


def test_other_errors_of_a_checkpoint_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(Exception, match=r"pickle|lambda"), writing_checkpoint(tmp_path, 1):
        save_torch(tmp_path / "state", {"a": torch.zeros(2), "b": lambda: None})
    assert list(tmp_path.iterdir()) == []


# Links ----------------------------------------------------------------------------------------------------------------


def test_links_out_of_a_folder_are_followed_only_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "snapshot"
    root.mkdir()
    (tmp_path / "blob").write_text("x")
    (root / "out").symlink_to("../blob")
    (root / "in").symlink_to("file")
    (root / "file").write_text("y")
    (root / "loop").symlink_to("loop")
    assert [leads_outside(root / name, root) for name in ("out", "in", "file")] == [True, False, False]
    assert not follows_links()
    monkeypatch.setenv("BCD_BENCH_FOLLOW_LINKS", "1")
    assert follows_links()
    monkeypatch.setenv("BCD_BENCH_FOLLOW_LINKS", "maybe")
    with pytest.raises(UsageError, match="must be 0 or 1"):
        follows_links()


# Hashes that are remembered -------------------------------------------------------------------------------------------


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are old enough for their hashes to be remembered."""
    monkeypatch.setattr(assets, "RACY_NS", -(10**18))


def rewrite(path: Path) -> None:
    path.write_bytes(b"black")


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"black")
    other.replace(path)


def map_into(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"black")


@pytest.mark.parametrize("change", [rewrite, replace, map_into])
@pytest.mark.usefixtures("settled")
def test_other_bytes_under_the_same_size_and_time_are_other_bytes(tmp_path: Path, change: object) -> None:
    path = tmp_path / "video"
    path.write_bytes(b"white")
    os.utime(path, (1_600_000_000,) * 2)
    hashes = FileHashes(tmp_path / "memo")
    white = hashes.of(path)
    hashes.save()
    assert list(json.loads((tmp_path / "memo" / "verified.json").read_text()).values()) == [white]
    change(path)  # type: ignore[operator]
    os.utime(path, (1_600_000_000,) * 2)
    for again in (hashes, FileHashes(tmp_path / "memo")):
        assert again.of(path) == sha256_file(path) != white


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "video"
    path.write_bytes(b"white")
    hashes = FileHashes(tmp_path / "memo")
    hashes.of(path)
    assert hashes.memo == {}


@pytest.mark.usefixtures("settled")
def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "video"
    path.write_bytes(b"white")
    real = assets.sha256_file

    def slowly(path: Path) -> str:
        found = real(path)
        path.write_bytes(b"black")
        return found

    monkeypatch.setattr(assets, "sha256_file", slowly)
    hashes = FileHashes(tmp_path / "memo")
    hashes.of(path)
    assert hashes.memo == {}
