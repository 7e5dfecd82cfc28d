#!/usr/bin/env bash
# Four ranks that have nothing in common but a network: each in a network namespace of its own, so that all they say travels over TCP, and
# at last in a namespace of processes, too, so that nobody sees another rank's process.
#
# usage: network.sh MPIEXEC PROGRAM
#
# Exits with 77, skipped, where that can't be tried: it needs root, Open MPI, and a kernel that lets it.
set -euo pipefail

mpiexec=$1 program=$2
name=mh$$
hosts=10.213.0.1,10.213.0.2,10.213.0.3,10.213.0.4
folder=$(mktemp -d "${TMPDIR:-/tmp}/multihull-test-XXXXXX")

cleanup() {
    for i in 1 2 3 4; do ip netns del "$name-$i" 2>/dev/null || true; done
    rm -rf "$folder"
}
skip() {
    echo "skipped: $*"
    exit 77
}
fail() {
    echo "FAILED: $*"
    cat "$folder/output"
    exit 1
}
trap cleanup EXIT

command -v ip >/dev/null || skip "there is no ip (iproute2)"
"$mpiexec" --version | grep -q "Open MPI\|OpenRTE" || skip "its options are Open MPI's"

# A bridge in the first namespace joins them.
for i in 1 2 3 4; do
    { ip netns add "$name-$i" && ip netns exec "$name-$i" ip link set lo up; } 2>"$folder/why" || skip "$(cat "$folder/why")"
done
ip -n "$name-1" link add hub type bridge || skip "no bridges here"
ip -n "$name-1" address add 10.213.0.1/24 dev hub
ip -n "$name-1" link set hub up
for i in 2 3 4; do
    ip -n "$name-1" link add "to-$i" type veth peer name net netns "$name-$i" || skip "no veth here"
    ip -n "$name-1" link set "to-$i" master hub up
    ip -n "$name-$i" address add "10.213.0.$i/24" dev net
    ip -n "$name-$i" link set net up
done

# What Open MPI calls in place of ssh: -x HOST COMMAND... A machine has temporary files of its own; Open MPI names them by process ids.
cat >"$folder/ssh" <<'END'
#!/bin/sh
number=${2##*.}
shift 2
export TMPDIR="$TMPDIR/$number"
mkdir -p "$TMPDIR"
if [ "$MH_APART" = yes ]; then
    exec ip netns exec "$MH_NAME-$number" unshare --pid --fork --kill-child --mount-proc --uts \
        sh -c "echo host-$number >/proc/sys/kernel/hostname; $*"
fi
exec ip netns exec "$MH_NAME-$number" sh -c "$*"
END
chmod +x "$folder/ssh"
export MH_NAME=$name MH_APART=no
export OMPI_MCA_plm_rsh_agent=$folder/ssh OMPI_MCA_btl=tcp,self OMPI_MCA_pml=ob1
export OMPI_MCA_btl_tcp_if_include=10.213.0.0/24 OMPI_MCA_oob_tcp_if_include=10.213.0.0/24
export TMPDIR=$folder
export MULTIHULL_TEST_FAR=1    # they see one another's processes as on one machine

on_all() { timeout --kill-after=30 120 ip netns exec "$name-1" "$mpiexec" --host "$hosts" -n 4 "$program" "$@" >"$folder/output" 2>&1; }
bytes_of() { ip netns exec "$name-$1" cat /sys/class/net/net/statistics/rx_bytes; }

on_all --gtest_filter='Ranks.*' || fail "the tests of ranks, over TCP"
grep -o "[0-9]* tests from .* ran.*" "$folder/output"
for i in 2 3 4; do
    (($(bytes_of "$i") > 1000000)) || fail "rank $((i - 1)) received $(bytes_of "$i") bytes only: it was not TCP"
done

# Elsewhere: neither seen as a process nor by its machine's name.
export MH_APART=yes
if ! ip netns exec "$name-2" unshare --pid --fork --kill-child --mount-proc --uts true; then
    echo "no namespaces of processes here: the rest is left out"
    exit 0
fi
on_all --victim alone || fail "ranks that see no processes of others"
grep -qx 42 "$folder/output" || fail "no answer from ranks that see no processes of others"
if on_all --victim lose; then fail "a rank was lost elsewhere, and the run went on"; fi
echo "a rank that is lost elsewhere ends the run: $(grep -c . "$folder/output") lines"
