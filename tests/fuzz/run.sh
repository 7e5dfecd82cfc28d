#!/usr/bin/env bash
# Runs a fuzzer for a bounded time over its corpus, and fails with the input that broke it.
#
# usage: run.sh PROGRAM CORPUS SECONDS RUNS [FOLDER]
#
# Stops after SECONDS, or after RUNS inputs (-1: no limit), whichever comes first. New inputs that are worth keeping, and the one
# that broke it, go to FOLDER, or to a folder that is thrown away.
set -euo pipefail

program=$1 corpus=$2 seconds=$3 runs=$4 folder=${5:-}
if [[ -z $folder ]]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi
mkdir -p "$folder/new"

# No input of 4 KiB is worth 256 MiB of memory, nor 10 seconds.
if ! "$program" -max_total_time="$seconds" -runs="$runs" -max_len=4096 -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 \
    -print_final_stats=1 -artifact_prefix="$folder/" "$folder/new" "$corpus" >"$folder/log" 2>&1; then
    tail -n 60 "$folder/log"
    for input in "$folder"/{crash,timeout,oom,leak,slow-unit}-*; do
        [[ -e $input ]] || continue
        echo "The input, in base64 (base64 -d >file; $program file):"
        base64 "$input"
    done
    exit 1
fi
grep -E "stat::(number_of_executed_units|peak_rss_mb)|^#.*(INITED|DONE)" "$folder/log"
