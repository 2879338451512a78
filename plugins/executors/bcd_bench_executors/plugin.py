"""Specs of this plugin; Ray and submitit are imported only where they are used."""

from __future__ import annotations

from bcd_bench import ExecutorSpec, hookimpl


@hookimpl
def bcd_bench_executors() -> list[ExecutorSpec]:
    return [
        ExecutorSpec(
            "ray",
            "Workers of a Ray cluster, or of a local one that is started for the command.",
            options=("timeout",),
            pool="bcd_bench_executors.ray_pool:RayPool",
            jobs="bcd_bench_executors.ray_cluster:default_jobs",
            config={"address": "", "cpus": 1.0, "gpus": -1.0, "wait": 600},
        ),
        ExecutorSpec(
            "slurm",
            "An array job of Slurm, with one shard per task.",
            options=("timeout",),
            shards="bcd_bench_executors.slurm_run:run_shards",
            train="bcd_bench_executors.slurm_train:train",
            jobs="bcd_bench_executors.slurm_run:needs_jobs",
            config={
                "partition": "",
                "time": "60",
                "gpus": 0,
                "cpus": 1,
                "memory": "",
                "account": "",
                "qos": "",
                "parallel": 256,
                "nodes": 1,
                "tasks": 1,
                "processes": 1,
                "resubmits": 20,
                "warn": 120,
                "setup": "",
                "follow": True,
                "cluster": "slurm",
                "sbatch": {},
            },
        ),
    ]
