"""Runs in the Python of a HyperReenact checkout, from its folder: processes pairs by calling its command line.

Requires only the standard library and OpenCV, which the checkout needs too, and runs on Python 3.7.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2


def transfer(script, request):
    """Write the frames produced by the original for a pair, in the size of the driving clip."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, script, "--source_path", str(Path(request["content"]) / "000000.png")]
        command += ["--target_path", request["motion"], "--output_path", folder, "--save_video"]
        process = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
        if process.returncode:
            raise RuntimeError(f"{script} ended with exit code {process.returncode}")
        path = Path(folder) / "reenacted_video.mp4"
        if not path.is_file():
            raise RuntimeError(f"{script} did not write {path.name}")
        video, size = cv2.VideoCapture(str(path)), (request["width"], request["height"])
        count = 0
        while True:
            success, frame = video.read()
            if not success:
                break
            if (frame.shape[1], frame.shape[0]) != size:
                smaller = frame.shape[0] > request["height"]
                frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
            cv2.imwrite(str(Path(request["output"]) / f"{count:06d}.png"), frame)
            count += 1
        video.release()


def main():
    """Answer requests until the input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        answer = {"pair": request["pair"]}
        try:
            transfer(sys.argv[1], request)
        except Exception as error:  # noqa: BLE001 - any error fails the pair and the worker continues
            answer["error"] = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
