#!/usr/bin/env python3
"""Runs the sides of script/bench --mpi in turn, and prints the medians of each beside one another."""
import argparse
import importlib.util
import os
import statistics
import subprocess
import sys

LABELS = {
    "single": ("one task there and back", 1e6, "us"),
    "cubes": ("map of 999 cubes", 1e3, "ms"),
    "tiny": ("a tiny task, of many", 1e6, "us"),
    "lent": ("a task with 1 MiB of arguments, one buffer, lent", 1e6, "us"),
    "lent_many": ("the same of 200 buffers, lent", 1e6, "us"),
    "given": ("the same of 200 buffers, given away", 1e6, "us"),
    "kept": ("the same of one buffer, copied by submit()", 1e6, "us"),
    "long": ("100 tasks of 10 ms", 1e3, "ms"),
}


def run(command):
    environment = dict(
        os.environ,
        OMPI_ALLOW_RUN_AS_ROOT="1",
        OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
        OMPI_MCA_rmaps_base_oversubscribe="1",
        OMPI_MCA_hwloc_base_binding_policy="none",
        OMPI_MCA_mpi_yield_when_idle="1",
    )
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", required=True, help="folder of mpi_multihull and mpi_plain")
    parser.add_argument("--mpiexec", default="mpiexec")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ranks", type=int, nargs="*", default=[2, 4, 8, 16], help="to count the messages of")
    arguments = parser.parse_args()
    start = [arguments.mpiexec, "-n", "3"]
    sides = {
        "Multihull": start + [os.path.join(arguments.programs, "mpi_multihull")],
        "plain MPI": start + [os.path.join(arguments.programs, "mpi_plain")],
    }
    if importlib.util.find_spec("mpi4py"):
        peer = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mpi4py_peer.py")
        sides["mpi4py"] = start + [sys.executable, "-m", "mpi4py.futures", peer]
    times = {side: {} for side in sides}
    for _ in range(arguments.rounds):
        for side, command in sides.items():
            for line in run(command).splitlines():
                name, seconds = line.split()
                times[side].setdefault(name, []).append(float(seconds))
    print("| work, at 2 workers | " + " | ".join(sides) + " |")
    print("|---" * (len(sides) + 1) + "|")
    for name, (label, factor, unit) in LABELS.items():
        cells = [
            f"{statistics.median(times[side][name]) * factor:.4g} {unit}" if name in times[side] else ""
            for side in sides
        ]
        print(f"| {label} | " + " | ".join(cells) + " |")
    print()
    print("| ranks | a task | rank 0's caller | rank 0's other threads | messages out | back | bytes out | back |")
    print("|---" * 8 + "|")
    for ranks in arguments.ranks:
        command = [arguments.mpiexec, "-n", str(ranks), os.path.join(arguments.programs, "mpi_multihull"), "traffic"]
        print(run(command).strip())


if __name__ == "__main__":
    main()
