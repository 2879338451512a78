"""Training, preparing data and downloading, killed."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

from tests.storms.kit import Damage, Lab, Storm, judged, kill_at_random

TRAIN = (
    "train", "bcd", "--preset", "sprites-procedural-tiny", "--out", "weights", "--set", "train.steps=24",
    "--set", "train.batch=2", "--set", "train.warmup=0", "--set", "train.log_every=1",
    "--set", "train.checkpoint_every=3", "--set", "train.grid_every=100",
)  # fmt: skip
PREPARE = (
    "prepare", "bcd", "--preset", "lrs3-tiny", "--out", "latents", "--limit", "320",
    "--set", "train.suite=sprites-procedural", "--set", 'model.latent.vae="sd2-vae"', "--set", "model.channels=4",
    "--set", "model.frame_size=[64,64]", "--set", "model.decoder.patch=2",
)  # fmt: skip
PARCEL = hashlib.shake_256(b"parcel").digest(3 * 2**20)
"""The bytes of an asset that is downloaded."""
DOWNLOAD_SECONDS = 1.0


def with_bcd(lab: Lab) -> dict[str, str]:
    """The variable that loads BCD and its suite beside the toy plugin."""
    return {"BCD_BENCH_PLUGINS": lab.env["BCD_BENCH_PLUGINS"] + ",bcd,sprites"}


def differences(found: Path, wanted: Path) -> Damage:
    """Files of `found` that are not, byte for byte, those of `wanted`."""
    damage = Damage()
    for path in sorted(wanted.rglob("*")):
        if path.is_file():
            other = found / path.relative_to(wanted)
            damage.note("lost", str(path.relative_to(wanted)), int(not other.is_file()))
            if other.is_file() and other.read_bytes() != path.read_bytes():
                damage.note("different", str(path.relative_to(wanted)))
    return damage


def kill_train(lab: Lab, folder: Path, rng: random.Random) -> Damage:
    """A training that is resumed has the log, hence every loss, and the weights of one that nobody disturbed."""
    import torch
    from safetensors.torch import load_file

    env = with_bcd(lab)
    template = lab.template("train")
    seconds = lab.timed("train", *TRAIN, cwd=template, **env)
    kill_at_random(lab, folder, rng, *TRAIN, seconds=seconds, again="--resume", **env)
    ended = lab.finish(*TRAIN, "--resume", cwd=folder, **env)
    if ended.code == 2 and "no checkpoint to resume" in ended.err:
        ended = lab.finish(*TRAIN, cwd=folder, **env)
    damage = judged(ended)
    if not damage.none:
        return damage
    new, old = folder / "weights", template / "weights"
    if (new / "log.jsonl").read_bytes() != (old / "log.jsonl").read_bytes():
        damage.note("different", "log.jsonl")
    states = [load_file(path / "model.safetensors") for path in (new, old)]  # the card beside them has the hours
    damage.note("lost", "parameters", len(states[1].keys() - states[0].keys()))
    different = [name for name, value in states[1].items() if not torch.equal(value, states[0].get(name, value))]
    damage.note("different", f"parameters {different[:3]}", len(different))
    return damage


def kill_prepare(lab: Lab, folder: Path, rng: random.Random) -> Damage:
    def small_vae(path: Path) -> None:
        from bcd_bench_bcd.latents.autoencoders import random_autoencoder

        random_autoencoder(4, width=8, layers=1, groups=4).network.save_pretrained(path)

    env = with_bcd(lab) | {"BCD_BENCH_VAE": str(lab.template("vae", small_vae))}
    template = lab.template("prepare")
    seconds = lab.timed("prepare", *PREPARE, cwd=template, **env)
    jobs = ("--jobs", str(rng.randint(1, 2)))
    kill_at_random(lab, folder, rng, *PREPARE, *jobs, seconds=seconds, **env)
    damage = judged(lab.finish(*PREPARE, *jobs, cwd=folder, **env))
    damage.add(differences(folder / "latents", template / "latents"))
    return damage


class SlowServer(BaseHTTPRequestHandler):
    """Sends the parcel in pieces, within `DOWNLOAD_SECONDS`."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(PARCEL)))
        self.end_headers()
        piece = len(PARCEL) // 20
        for start in range(0, len(PARCEL), piece):
            try:
                self.wfile.write(PARCEL[start : start + piece])
            except OSError:
                return  # the client was killed
            time.sleep(DOWNLOAD_SECONDS / 20)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@contextmanager
def serving() -> Iterator[str]:
    """The address of a server with the parcel."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowServer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/parcel.bin"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def kill_fetch(lab: Lab, folder: Path, rng: random.Random) -> Damage:
    """The file is whole or absent at any time; in the end it is alone in its folder."""
    damage = Damage()
    home = folder / "home"
    with serving() as address:
        parcel = {"RUDE_PARCEL": f"{hashlib.sha256(PARCEL).hexdigest()} {address}"}
        env, fetch = parcel | {"BCD_BENCH_HOME": str(home)}, ("assets", "fetch", "parcel")
        seconds = lab.timed("fetch", *fetch, cwd=folder, **parcel)
        kill_at_random(lab, folder, rng, *fetch, seconds=seconds, **env)
        path = home / "assets" / "parcel.bin"
        if path.exists() and path.read_bytes() != PARCEL:
            damage.note("different", "parcel.bin after kill -9")
        damage.add(judged(lab.finish(*fetch, cwd=folder, **env)))
    if not path.is_file():
        damage.note("lost", "parcel.bin")
    elif path.read_bytes() != PARCEL:
        damage.note("different", "parcel.bin")
    extra = {other.name for other in path.parent.glob("*")} - {path.name, "verified.json"}
    damage.note("different", f"left behind: {sorted(extra)}", len(extra))
    return damage


def needs_bcd() -> str:
    return "" if find_spec("bcd_bench_bcd") else "bcd-bench-bcd is not installed"


STORMS = [
    Storm("kill -9 of train", kill_train, 100, needs_bcd),
    Storm("kill -9 of prepare", kill_prepare, 100, needs_bcd),
    Storm("kill -9 of assets fetch", kill_fetch, 100),
]
