#!/usr/bin/env bash
# Compiles a file that must be refused with the sentence that its first line names, "// expect: <sentence>".
# A file that expects "(compiles)" must be accepted.
#
# usage: expect_error.sh SOURCE COMPILER [FLAG...]
set -euo pipefail

if (($# < 2)); then
    echo "usage: ${0##*/} SOURCE COMPILER [FLAG...]" >&2
    exit 2
fi
source=$1
shift

IFS= read -r first <"$source" || true
sentence=${first#// expect: }
if [[ $sentence == "$first" || -z $sentence ]]; then
    echo "$source: the first line must be \"// expect: <sentence>\"" >&2
    exit 2
fi

status=0
output=$("$@" "$source" 2>&1) || status=$?

if [[ $sentence == "(compiles)" ]]; then
    [[ $status == 0 ]] && exit 0
    echo "$source must compile, but does not:"
elif [[ $status == 0 ]]; then
    echo "$source must not compile, but does."
elif [[ $output == *"$sentence"* ]]; then
    exit 0
else
    echo "$source is refused, as it should be, but nowhere with the sentence \"$sentence\":"
fi
printf '%s\n' "$output" | head -n 60
exit 1
