"""Changed files for one reader: `python -m tests.storms.fuzz READER --seed-file FILE --tries 1000 --out FOLDER`.

With atheris, changes are guided by the lines of the project that they reach; without it, they are random. The corpus
(files that reached something new) and files that did damage are kept in `--out`; `found.json` describes the damage.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
from pathlib import Path
from typing import Any

TIME_LIMIT = 20
"""Seconds after which a reader hangs."""
INTERESTING = (
    b"\x00",
    b"\xff",
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"-1",
    b"1e999",
    b"null",
    b"{}",
    b"[]",
    b"../",
    b"\n",
)


class _HangError(BaseException):
    """A reader takes too long."""


def _hang(number: int, frame: Any) -> None:
    raise _HangError


def changed(data: bytes, rng: random.Random) -> bytes:
    """A copy with one to eight bytes, pieces or ends changed."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(out) + 1)
        action = rng.randrange(5)
        if action == 0 and place < len(out):
            out[place] ^= 1 << rng.randrange(8)
        elif action == 1:
            out[place:place] = rng.choice(INTERESTING)
        elif action == 2:
            del out[place : place + rng.randint(1, 16)]
        elif action == 3:
            out[place : place + 4] = rng.choice(INTERESTING)
        else:
            source = rng.randrange(len(out) + 1)
            out[place:place] = out[source : source + rng.randint(1, 64)]
    if rng.random() < 0.1:
        del out[rng.randrange(len(out) + 1) :]
    return bytes(out)


class Trial:
    """Reads one changed file after the other, and notes what went wrong."""

    def __init__(self, name: str, out: Path) -> None:
        from bcd_bench.types.errors import BcdBenchError
        from tests.storms.readers import READERS

        self.reader, self.out = READERS[name], out
        self.allowed = (BcdBenchError, *self.reader.errors)
        self.path = out / f"changed{self.reader.suffix}"
        self.tries, self.found = 0, []  # type: int, list[dict[str, str]]
        signal.signal(signal.SIGALRM, _hang)

    def __call__(self, data: bytes) -> None:
        self.tries += 1
        self.path.write_bytes(data)
        signal.alarm(TIME_LIMIT)
        try:
            self.reader.read(self.path)
        except self.allowed as error:
            if not str(error).strip():
                self._note(data, "unclear", "an error without a message")
        except _HangError:
            self._note(data, "hangs", f"no result after {TIME_LIMIT} s")
        except Exception as error:  # noqa: BLE001 (any other exception is what is looked for)
            self._note(data, "unclear", f"{type(error).__name__}: {error}")
        finally:
            signal.alarm(0)

    def _note(self, data: bytes, kind: str, line: str) -> None:
        kept = self.out / f"found-{len(self.found)}{self.reader.suffix}"
        if len(self.found) < 50:
            kept.write_bytes(data)
        self.found.append({"kind": kind, "line": line, "file": kept.name})

    def save(self) -> None:
        (self.out / "found.json").write_text(json.dumps({"tries": self.tries, "found": self.found}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader")
    parser.add_argument("--seed-file", type=Path, required=True)
    parser.add_argument("--tries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--random", action="store_true", help="Do not use atheris.")
    given = parser.parse_args()
    corpus = given.out / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    data = given.seed_file.read_bytes()
    try:
        import atheris
    except ModuleNotFoundError:
        atheris = None
    if atheris is None or given.random:
        trial, rng = Trial(given.reader, given.out), random.Random(given.seed)
        for _ in range(given.tries):
            trial(changed(data, rng))
        trial.save()
        return 0
    with atheris.instrument_imports(include=["bcd_bench", "bcd_bench_bcd"]):
        trial = Trial(given.reader, given.out)
        trial(data)  # imports what it needs
    (corpus / "seed").write_bytes(data)

    def one(changed: bytes) -> None:
        trial(changed)
        trial.save()  # the fuzzer ends the process itself

    length = max(4096, 2 * len(data))
    options = [f"-runs={given.tries}", f"-seed={given.seed + 1}", f"-max_len={length}", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={given.out}/", str(corpus)], one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
