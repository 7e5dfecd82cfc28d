#!/usr/bin/env bash
# Has a model checked by spin: everything that its processes can do, in every order.
#
# usage: check.sh [--long] MODEL.pml [C_COMPILER]
#
# The model says itself what to check, in lines of its first comment:
#    check: OPTION...    must hold
#    long: OPTION...     must hold as well, and takes minutes; looked at with --long only
#    fault: OPTION...    must be found not to hold, so that the check is known to see something
set -euo pipefail

kinds="check|fault"
if [[ $1 == --long ]]; then
    kinds="check|fault|long"
    shift
fi
model=$(realpath "$1")
compiler=${2:-cc}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

# Prints what spin found, and fails where it found an error; exits where it could not look everywhere.
run() {
    rm -f pan pan.* ./*.trail
    # shellcheck disable=SC2086  # options, more than one word
    spin -a $1 "$model" >spin.log 2>&1 || { cat spin.log >&2; exit 2; }
    "$compiler" -O2 -w -DSAFETY -DCOLLAPSE -DNOFAIR -DVECTORSZ=2048 -DMEMLIM=4096 -o pan pan.c
    ./pan -m1000000 -w24 >pan.log
    if ! grep -q "errors: [0-9]" pan.log || grep -qE "too small|out of memory|reached -DMEMLIM" pan.log; then
        cat pan.log >&2
        exit 2
    fi
    grep -q "errors: 0" pan.log
}

count=0
while read -r kind options; do
    count=$((count + 1))
    start=$SECONDS
    if run "$options"; then found=false; else found=true; fi
    states=$(grep -oE "[0-9.e+]+ states, stored" pan.log)
    case $kind-$found in
        check-false | long-false) echo "holds: $options ($states, $((SECONDS - start)) s)" ;;
        fault-true) echo "found: $options ($(grep -m 1 -oE "assertion violated|invalid end state" pan.log))" ;;
        check-true | long-true)
            # shellcheck disable=SC2086
            spin -t -p -g -l $options -k "$(basename "$model").trail" "$model" | tail -n 80
            grep -m 1 "pan:1:" pan.log
            echo "$(basename "$model") does not hold with $options; above is how it comes to that"
            exit 1
            ;;
        fault-false)
            echo "$(basename "$model"): the fault planted by $options was not found"
            exit 1
            ;;
    esac
done < <(sed -nE "s/^ \* ($kinds): ?/\1 /p" "$model")

((count > 0)) || { echo "$(basename "$model") does not say what to check" >&2; exit 2; }
