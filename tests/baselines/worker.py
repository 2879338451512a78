"""A worker for tests that copies the driver's frames, and goes wrong as the id of the pair says."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

PIDS = Path(sys.argv[1])


def note(pid: int) -> None:
    with PIDS.open("a") as file:
        file.write(f"{pid}\n")


note(os.getpid())
print("Loading the model…")
if len(sys.argv) > 2:
    sys.exit(f"ImportError: {sys.argv[2]}")
for line in sys.stdin:
    request = json.loads(line)
    fault = request["pair"].partition("-")[0]
    answer = {"pair": request["pair"]}
    output = Path(request["output"])
    shutil.copytree(request["motion"], output, dirs_exist_ok=True)
    print("progress 100 %")
    if fault == "crash":
        print('  File "/somewhere/deep/model.py", line 3\nValueError: boom', file=sys.stderr)
        os._exit(3)
    elif fault == "killed":
        os.kill(os.getpid(), 9)
    elif fault == "hang":
        note(subprocess.Popen(["sleep", "600"]).pid)
        print("thinking", file=sys.stderr)
        time.sleep(600)
    elif fault == "short":
        (output / "000000.png").unlink()
    elif fault == "small":
        shutil.rmtree(output)
        shutil.copytree(request["content"], output)
        for frame in sorted(output.iterdir())[request["frames"] :]:
            frame.unlink()
    elif fault == "garbage":
        (output / "000001.png").write_bytes(b"no picture")
    elif fault == "other":
        answer = {"pair": "another"}
    elif fault == "endless":
        sys.stdout.write("x" * (1 << 21))
    elif fault == "sorry":
        answer["error"] = "no face\nfound"
    elif fault == "told":
        answer["info"] = {"seed": request["seed"], "device": request["device"]}
    elif fault == "list":
        answer["info"] = [1]
    print(json.dumps(answer))
