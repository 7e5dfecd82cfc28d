#!/usr/bin/env bash
# Finds what a test run left behind: shared memory, files and sockets in the folder for temporary files, processes.
#
# usage: leftovers.sh list BUILD_DIR
#            Prints what there is now, one thing a line.
#        leftovers.sh check BUILD_DIR BEFORE_FILE
#            Fails, naming what is there now and was not in BEFORE_FILE, an earlier list.
#
# Seen are everything in /dev/shm, whatever is named multihull* in /tmp and $TMPDIR, and processes that run a program from
# BUILD_DIR.
set -euo pipefail

usage() {
    sed -n '4,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

list() {
    local folder entry pid executable
    for entry in /dev/shm/* /dev/shm/.[!.]*; do
        [[ -e $entry ]] && echo "shared memory: $entry"
    done
    for folder in /tmp "${TMPDIR:-/tmp}"; do
        for entry in "${folder%/}"/multihull* "${folder%/}"/.multihull*; do
            [[ -e $entry || -L $entry ]] && echo "file or socket: $entry"
        done
    done
    for entry in /proc/[0-9]*; do
        pid=${entry#/proc/}
        executable=$(readlink "$entry/exe" 2>/dev/null) || continue
        [[ $executable == "$build_dir"/* ]] || continue
        echo "process: $pid, $(tr '\0' ' ' 2>/dev/null <"$entry/cmdline" || true)"
    done
}

(($# >= 2)) || usage
build_dir=$(realpath "$2")

case $1 in
    list)
        list | sort -u
        ;;
    check)
        (($# == 3)) || usage
        # The last processes of a run may be on their way out.
        for ((try = 0; try < 50; ++try)); do
            left=$(comm -13 "$3" <(list | sort -u))
            [[ -z $left ]] && exit 0
            sleep 0.1
        done
        echo "The tests left behind:" >&2
        printf '    %s\n' "${left//$'\n'/$'\n'    }" >&2
        exit 1
        ;;
    *) usage ;;
esac
