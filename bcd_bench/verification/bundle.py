"""Bundles: a run's record, values of pairs, plan and environment as one zip file that others can check.

A bundle holds the files in `MEMBERS` and `bundle.json`, which has the sha256 of each. The same run gives the same
bytes: members are stored without compression, in a fixed order, without dates.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from bcd_bench.io.atomic import write_bytes_atomic
from bcd_bench.results.schema import RECORD_NAME, VALUES_NAME, load_record
from bcd_bench.run.folder import RunFolder
from bcd_bench.types.errors import UsageError
from bcd_bench.verification.files import first_failure

__all__ = ["BUNDLE_FORMAT", "MEMBERS", "is_bundle", "opened", "write_bundle"]

BUNDLE_FORMAT = 1
INDEX = "bundle.json"
MEMBERS = (RECORD_NAME, VALUES_NAME, "plan.json", "pairs.jsonl", "env.json")
REQUIRED = (RECORD_NAME, "plan.json", "pairs.jsonl")
LARGEST = 64 * 2**20
"""Bytes of one member that are accepted; a run of 100,000 pairs has less than half of that in each."""


def is_bundle(path: Path) -> bool:
    """Whether `path` is a zip file."""
    return path.is_file() and zipfile.is_zipfile(path)


def write_bundle(run: Path, output: Path) -> None:
    """Write the bundle of a finished run folder, without its outputs and without the paths of `--data`.

    Raises `UsageError` if the folder has no record, if the record contradicts the other files, or if the file cannot be
    written.
    """
    folder = RunFolder(run)
    if not folder.record_path.exists():
        raise UsageError(f"{run} has no record yet", hint=f"bcd-bench score {run}")
    record = load_record(folder.record_path)
    if reason := first_failure(record, run):
        raise UsageError(f"{run} fails its checks: {reason}", hint=f"bcd-bench verify {run}")
    for name in REQUIRED:
        if not (run / name).is_file():
            raise UsageError(f"{run} has no {name}, so nobody could check a bundle of it")
    contents = {name: (run / name).read_bytes() for name in MEMBERS if (run / name).is_file()}
    plan = folder.plan
    portable = plan.model_copy(update={"suite": plan.suite.model_copy(update={"data": {}, "notes": ()})})
    contents["plan.json"] = (portable.model_dump_json(indent=1) + "\n").encode()
    index = {
        "format": BUNDLE_FORMAT,
        "suite": f"{record.suite.name}@{record.suite.version}",
        "method": record.method.name,
        "run_id": record.run_id,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    contents[INDEX] = (json.dumps(index, indent=1) + "\n").encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(contents.items()):
            member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            member.create_system, member.external_attr = 3, 0o100644 << 16
            archive.writestr(member, content)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(output, packed.getvalue())
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}") from error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Path]:
    """A temporary folder with the files of a bundle; only known names are written, and never outside the folder.

    Raises `UsageError` if the file is not a bundle, has other members, or its members are not those of its index.
    """
    contents = _contents(path)
    with tempfile.TemporaryDirectory(prefix="bcd-bench-bundle-") as temporary:
        folder = Path(temporary)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        yield folder


def _contents(path: Path) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename
                if name not in (*MEMBERS, INDEX):
                    raise UsageError(f"{path}: contains {name!r}, which is not a file of a bundle")
                if name in contents:
                    raise UsageError(f"{path}: contains {name} twice")
                if member.file_size > LARGEST:
                    raise UsageError(f"{path}: {name} has {member.file_size} bytes; at most {LARGEST} are accepted")
                with archive.open(member) as stream:
                    contents[name] = stream.read(LARGEST + 1)
                if len(contents[name]) > LARGEST:
                    raise UsageError(f"{path}: {name} has more than {LARGEST} bytes")
    except (OSError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        # encryption and unknown compression are RuntimeErrors, a name that is not UTF-8 a ValueError
        raise UsageError(f"{path}: cannot be read as a bundle ({error})") from None
    _check_index(path, contents)
    return {name: content for name, content in contents.items() if name != INDEX}


def _check_index(path: Path, contents: dict[str, bytes]) -> None:
    try:
        index = json.loads(contents.get(INDEX, b""))
        version, files = index["format"], dict(index["files"])
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{path}: is not a bundle: {INDEX} is missing or damaged") from None
    if version != BUNDLE_FORMAT:
        raise UsageError(f"{path}: is a bundle of format {version}; this version reads {BUNDLE_FORMAT}")
    for name in dict.fromkeys((*REQUIRED, *files)):
        if name not in contents:
            raise UsageError(f"{path}: {name} is missing")
    for name, content in contents.items():
        if name != INDEX and files.get(name) != hashlib.sha256(content).hexdigest():
            raise UsageError(f"{path}: {name} is not the file of {INDEX}: its sha256 differs")
