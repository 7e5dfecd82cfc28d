#!/usr/bin/env bash
# Runs a program and compares what it prints with the comment that its source ends in.
#
# usage: expect_output.sh SOURCE PROGRAM [ARGUMENT...]
#
# The comment's lines stand for themselves, without their "// ". A first line "(any order)" says that the lines may come in
# any order; "(any order, the last line last)" that all but the last one may.
set -euo pipefail

if (($# < 2)); then
    echo "usage: ${0##*/} SOURCE PROGRAM [ARGUMENT...]" >&2
    exit 2
fi
source=$1
shift

# An x keeps the newlines that $(...) would drop from the end.
expected=$(awk '/^\/\// { comment = comment substr($0, 4) "\n"; next } { comment = "" } END { printf "%s", comment }' "$source"; echo x)
expected=${expected%x}
if [[ -z $expected ]]; then
    echo "$source does not end in a comment that says what it prints" >&2
    exit 2
fi

order=fixed
case $expected in
    "(any order)"$'\n'*) order=any ;;
    "(any order, the last line last)"$'\n'*) order=last ;;
esac
[[ $order == fixed ]] || expected=${expected#*$'\n'}

in_order() {
    case $order in
        fixed) cat ;;
        any) LC_ALL=C sort ;;
        last) awk 'NR > 1 { print previous | "LC_ALL=C sort" } { previous = $0 } END { close("LC_ALL=C sort"); print previous }' ;;
    esac
}

status=0
actual=$("$@" && echo x || echo "x$?") || true
status=${actual##*x}
actual=${actual%x*}

failed=0
if ! diff -u --label expected --label actual <(printf '%s' "$expected" | in_order) <(printf '%s' "$actual" | in_order); then
    failed=1
fi
if [[ -n $status ]]; then
    echo "$1 exited with $status"
    failed=1
fi
exit "$failed"
