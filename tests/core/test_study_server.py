"""The server of a study: what it answers to raters, to forged and repeated requests, behind a proxy, and to admins."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bcd_bench.cli.app import main
from bcd_bench.study.design import DESIGN_NAME, MEDIA, Group, Item, Method, Study
from bcd_bench.study.store import DATABASE_NAME, Rater, Rating, Store

SCORES = {"identity": 1, "motion": 3, "quality": 5}
JSON = "application/json"
has_extra = pytest.importorskip  # skips, with the name of the package


def make_study(folder: Path) -> Study:
    """Two methods, two groups, one check, and files for all videos."""
    number = iter(range(1, 1000))

    def item(kind: Any, **more: Any) -> Item:
        names = {role: f"{next(number):020x}" for role in ("id", "content", "motion", "video")}
        return Item(kind=kind, **names, **more)

    study = Study(
        id=f"{0:020x}", title="Videos", consent="Yes?", seed=0, suite="toy@1", manifest_sha256="", bcd_bench="",
        methods=[Method(label=name, run_id=name, path="none") for name in ("zorblax", "wibble")],
        groups=[
            Group(pair=f"p{g}", subject="s", items=[item("rating") for _ in range(2)], outputs=["", ""])
            for g in range(2)
        ],
        practice=item("practice"),
        checks=[item("instructed", expected=SCORES)],
    )  # fmt: skip
    (folder / MEDIA).mkdir(parents=True)
    for name in study.media():
        (folder / MEDIA / f"{name}.mp4").write_bytes(name.encode() * 10)
    (folder / DESIGN_NAME).write_text(study.model_dump_json())
    return study


class Answer:
    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status, self.body = status, body
        self.headers = {name.decode(): value.decode() for name, value in headers}

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Sends requests to the app as a server does, and keeps one cookie."""

    def __init__(self, app: Any, address: str = "10.0.0.1", root_path: str = "", scheme: str = "http") -> None:
        self.app, self.address, self.root_path, self.scheme = app, address, root_path, scheme
        self.cookie = ""

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        sent: list[Any] = []
        sent_body: list[bool] = []
        lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        if self.cookie:
            lines.append((b"cookie", self.cookie.encode()))
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": self.scheme,
            "path": self.root_path + path, "raw_path": b"", "query_string": b"", "root_path": self.root_path,
            "headers": lines, "client": (self.address, 1), "server": ("host", 80),
        }  # fmt: skip

        async def receive() -> Any:
            if sent_body:
                await asyncio.Event().wait()  # the client stays connected
            sent_body.append(True)
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        content = b"".join(message.get("body", b"") for message in sent[1:])
        answer = Answer(sent[0]["status"], sent[0]["headers"], content)
        if "set-cookie" in answer.headers:
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, **headers)

    def post(self, path: str, content: Any, content_type: str = JSON) -> Answer:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.send("POST", path, body, content_type=content_type)

    def rate(self, item: str, scores: Any = SCORES, seconds: Any = 1.0) -> Answer:
        return self.post("/api/rating", {"item": item, "scores": scores, "seconds": seconds})


class Site:
    def __init__(self, folder: Path, rate: int = 1000) -> None:
        has_extra("starlette")
        has_extra("limits")
        from bcd_bench.study.server import build_app

        self.study = make_study(folder)
        self.store = Store(folder / DATABASE_NAME)
        self.app = build_app(self.study, self.store, folder, "sesame", rate=rate)

    def stored(self) -> int:
        return len(self.store.ratings())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_rater_goes_through_the_study_and_comes_back_at_any_time(site: Site) -> None:
    client = Client(site.app)
    assert client.get("/api/state").json() == {"started": False}
    state = client.post("/api/start", {}).json()
    seen = []
    while state["item"]:
        seen.append(state["item"]["id"])
        assert state["done"] == len(seen) - 1 == site.stored()
        assert client.get("/api/state").json() == state  # after a reload
        assert client.post("/api/start", {}).json() == state
        state = client.rate(state["item"]["id"]).json()
    assert seen == [item.id for item in site.study.order(0)]
    assert len(site.store.raters()) == 1
    assert state["code"] == site.store.raters()[0].id
    other = Client(site.app)
    assert other.post("/api/start", {}).json()["item"]["practice"]
    assert [rater.slot for rater in site.store.raters()] == [0, 1]


def test_nothing_that_a_rater_gets_names_a_method(site: Site) -> None:
    client = Client(site.app)
    state = client.post("/api/start", {}).json()
    texts = [client.get("/").body.decode()]
    while state["item"]:
        texts.append(json.dumps(state))
        state = client.rate(state["item"]["id"]).json()
    for word in ("zorblax", "wibble", 'rating"', "instructed", 'broken"', "p0", "bcd"):
        assert word not in "\n".join(texts[1:])
    assert not {"zorblax", "wibble", "bcd"} & set(texts[0].split())


def test_a_repeated_rating_is_stored_once_and_a_changed_one_refused(site: Site) -> None:
    client = Client(site.app)
    item = client.post("/api/start", {}).json()["item"]["id"]
    first = client.rate(item)
    assert client.rate(item).json() == first.json()
    changed = client.rate(item, {**SCORES, "quality": 4})
    assert (changed.status, changed.json()) == (409, {"error": "this item was rated already, with other scores"})
    assert site.stored() == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"scores": {**SCORES, "quality": 6}}, 422),
        ({"scores": {**SCORES, "quality": 0}}, 422),
        ({"scores": {**SCORES, "quality": 2.0}}, 422),
        ({"scores": {**SCORES, "quality": True}}, 422),
        ({"scores": {**SCORES, "quality": "3"}}, 422),
        ({"scores": {**SCORES, "quality": None}}, 422),
        ({"scores": {"identity": 1, "motion": 1}}, 422),
        ({"scores": {**SCORES, "more": 1}}, 422),
        ({"scores": [1, 2, 3]}, 422),
        ({"item": "f" * 20}, 422),
        ({"item": "' OR 1=1 --"}, 422),
        ({"item": ["x"]}, 422),
        ({"seconds": -1}, 422),
        ({"seconds": "1"}, 422),
        ({"seconds": float("nan")}, 422),
        ({"seconds": float("inf")}, 422),
        ({"rater": "someone"}, 422),
    ],
)
def test_forged_ratings_are_refused(site: Site, body: dict[str, Any], status: int) -> None:
    client = Client(site.app)
    item = client.post("/api/start", {}).json()["item"]["id"]
    answer = client.post("/api/rating", {"item": item, "scores": SCORES, "seconds": 1.0, **body})
    assert answer.status == status
    assert list(answer.json()) == ["error"]
    assert site.stored() == 0
    assert client.rate(item).status == 200


def test_other_requests_are_refused(site: Site) -> None:
    client = Client(site.app)
    item = client.post("/api/start", {}).json()["item"]["id"]
    order = [one.id for one in site.study.order(0)]
    assert client.rate(order[3]).status == 409  # not the next one
    assert client.post("/api/rating", b"x" * 2001).status == 413
    assert client.post("/api/rating", b"{").status == 400
    assert client.post("/api/rating", b"[" * 1900).status == 400
    assert client.post("/api/rating", [1]).status == 400
    good = {"item": item, "scores": SCORES, "seconds": 1}
    assert client.post("/api/rating", good, "text/plain").status == 415  # what a form elsewhere could send
    assert client.get("/api/rating").status == 405
    assert client.get(f"/{MEDIA}/{'f' * 20}.mp4").status == 404
    assert client.get(f"/{MEDIA}/../{DESIGN_NAME}").status == 404
    assert client.get(f"/{MEDIA}/..%2f{DESIGN_NAME}").status == 404
    assert client.get(f"/{DESIGN_NAME}").status == 404
    stranger = Client(site.app)
    assert stranger.rate(item).status == 401
    stranger.cookie = f"rater-{site.study.id}=guess"
    assert stranger.rate(item).status == 401
    assert site.stored() == 0


def test_videos_come_whole_and_in_ranges(site: Site) -> None:
    name = site.study.practice.video
    answer = Client(site.app).get(f"/{MEDIA}/{name}.mp4")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, name.encode() * 10, "video/mp4")
    part = Client(site.app).get(f"/{MEDIA}/{name}.mp4", range="bytes=20-39")
    assert (part.status, part.body) == (206, name.encode())
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors" in answer.headers["content-security-policy"]


def test_behind_a_proxy_the_cookie_is_of_its_path_and_secure(site: Site) -> None:
    client = Client(site.app, root_path="/lab/study", scheme="https")
    answer = client.post("/api/start", {})
    parts = answer.headers["set-cookie"].split("; ")
    assert {"Path=/lab/study/", "Secure", "HttpOnly", "SameSite=strict"} <= set(parts)
    assert client.rate(answer.json()["item"]["id"]).status == 200
    plain = Client(site.app).post("/api/start", {}).headers["set-cookie"].split("; ")
    assert "Path=/" in plain
    assert "Secure" not in plain
    page = client.get("/").body.decode()
    assert 'src="/' not in page
    assert '"/api' not in page


def test_the_export_needs_the_token_and_has_no_secret(site: Site) -> None:
    client = Client(site.app)
    client.rate(client.post("/api/start", {}).json()["item"]["id"])
    assert client.get("/admin/ratings.csv").status == 401
    assert client.get("/admin/ratings.csv", authorization="Bearer sesam").status == 401
    answer = client.get("/admin/ratings.csv", authorization="Bearer sesame")
    assert answer.status == 200
    lines = answer.body.decode().splitlines()
    assert len(lines) == 2
    assert lines[1].split(",")[4:] == ["1", "3", "5", "1.0"]
    assert client.cookie.partition("=")[2] not in answer.body.decode()


def test_too_many_requests_from_one_address_are_refused(tmp_path: Path) -> None:
    site = Site(tmp_path, rate=5)
    client = Client(site.app)
    item = client.post("/api/start", {}).json()["item"]["id"]
    assert [client.rate(item).status for _ in range(6)] == [200] * 5 + [429]
    assert Client(site.app).post("/api/start", {}).headers["retry-after"] == "60"
    other = Client(site.app, "10.0.0.2")
    assert other.rate(other.post("/api/start", {}).json()["item"]["id"]).status == 200
    tries = [client.get("/admin/ratings.csv", authorization=f"Bearer {n}").status for n in range(11)]
    assert tries == [401] * 10 + [429]
    assert site.stored() == 2


def test_the_admin_token_is_kept_and_private(tmp_path: Path) -> None:
    from bcd_bench.study.server import ADMIN_NAME, admin_token

    token = admin_token(tmp_path)
    assert len(token) > 30
    assert admin_token(tmp_path) == token
    assert (tmp_path / ADMIN_NAME).stat().st_mode & 0o077 == 0
    (tmp_path / ADMIN_NAME).write_text("")
    assert len(admin_token(tmp_path)) > 30


def test_a_rater_is_deleted_without_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = make_study(tmp_path / "s")
    kept, gone = Rater("a1" * 8, 0), Rater("b2" * 8, 1)
    with Store(tmp_path / "s" / DATABASE_NAME) as store:
        for rater in (kept, gone):
            store.add_all([Rating(rater, item.id, SCORES) for item in study.groups[0].items])
        with pytest.raises(SystemExit) as done:
            main(["study", "delete", str(tmp_path / "s"), gone.id])  # while another process has the file open
        assert done.value.code == 0
        assert capsys.readouterr().out == f"2 ratings of {gone.id} deleted\n"
        assert store.raters() == [kept]
        assert {one.rater for one in store.ratings()} == {kept}
    files = [path.read_bytes() for path in (tmp_path / "s").iterdir() if path.is_file()]
    assert any(kept.id.encode() in content for content in files)
    assert not any(gone.id.encode() in content for content in files)
    with pytest.raises(SystemExit) as stop:
        main(["study", "delete", str(tmp_path / "s"), gone.id])
    assert stop.value.code == 2
    assert f"no rater has the code '{gone.id}'" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_server_ends_with_one_line(tmp_path: Path, number: signal.Signals) -> None:
    for name in ("starlette", "uvicorn", "limits"):
        has_extra(name)
    make_study(tmp_path / "s")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, "-c", "from bcd_bench.cli import main; main()", "study", "serve", str(tmp_path / "s")]
    process = subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(f"http://127.0.0.1:{port}/")
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            if client.recv(20).startswith(b"HTTP/1.1 200"):
                break
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err.splitlines()[1:] == [f"stopped; the ratings of 0 raters are in {tmp_path / 's' / DATABASE_NAME}"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["report", "nowhere"], 2, "error: nowhere: not a study"),
        (["serve", "nowhere"], 2, "error: nowhere: not a study"),
        (["report", "s", "--format", "pdf"], 2, "error: --format pdf: must be markdown, "),
        (["report", "damaged"], 2, "error: damaged/study.json: not a study of this version"),
        (["export", "s", "--out", "."], 2, "error: --out .: exists and is not an export of a study"),
        (["import", "s", "none.csv"], 2, "error: none.csv: cannot be read"),
        (["build", "s", "--out", "new"], 2, "error: s: no run folder found"),
    ],
)
def test_bad_input_gives_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    make_study(tmp_path / "s")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / DESIGN_NAME).write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["study", *words])
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == code
    assert lines[0].startswith(message)
    assert len(lines) <= 2
    assert not (tmp_path / "new").exists()


def test_a_report_without_ratings_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    has_extra("krippendorff")
    study = make_study(tmp_path / "s")
    for expected in (
        "has no ratings yet\nhint: bcd-bench study serve",
        "1 started, 0 failed attention checks, 1 stopped",
    ):
        with pytest.raises(SystemExit):
            main(["study", "report", str(tmp_path / "s")])
        assert expected in capsys.readouterr().err
        with Store(tmp_path / "s" / DATABASE_NAME) as store:
            store.add_all([Rating(Rater("0" * 16, 0), study.groups[0].items[0].id, SCORES)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        main(["study", "report", str(tmp_path / "s")])
    assert stop.value.code == 3
    assert 'hint: pip install "bcd-bench[study]"' in capsys.readouterr().err
