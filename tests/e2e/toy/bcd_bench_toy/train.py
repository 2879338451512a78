"""A trainer that writes down what it was asked, and a verb."""

import json

from bcd_bench import TrainRequest
from bcd_bench.types.errors import UsageError


def train(request: TrainRequest) -> None:
    if "steps" in request.overrides and not isinstance(request.overrides["steps"], int):
        raise UsageError("steps must be a number", hint="--set steps=5")
    asked = {"preset": request.preset, "overrides": dict(request.overrides), "resume": request.resume}
    asked |= {"max_steps": request.max_steps, "device": request.device, "seed": request.seed}
    if request.plan_only:
        print(json.dumps(asked))
        return
    request.out.mkdir(parents=True, exist_ok=True)
    (request.out / "asked.json").write_text(json.dumps(asked))


def hello(name: str = "world") -> None:
    """Greets."""
    print(f"hello {name}")
