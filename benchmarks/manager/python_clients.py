"""`multihull manager` beside Python's own server and Redis, asked by Python's clients.

Each competitor serves on a unix socket. In each round each has one turn, in an order that turns too: so many client processes make calls of
one kind for a while, each over a connection of its own, and all calls that were answered are counted. Shown are medians of the rounds; the
ratios are medians of the rounds' own. What Python's client needs for a call by itself is in all of them; Redis is asked by a few lines of
Python that write its protocol.
"""

import argparse
import multiprocessing as mp
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing.managers import SyncManager

KEY = b"the key of a benchmark"
OURS = "multihull"
PYTHON = "Python"
REDIS = "Redis"


def wait_for(path, process):
    while not os.path.exists(path):
        if process.poll() is not None:
            sys.exit(f"{process.args[0]} has ended")
        time.sleep(0.01)


class Multihull:
    """The program's server and Python's client."""

    def __init__(self, folder, program):
        self.address = os.path.join(folder, OURS)
        key = os.path.join(folder, "key")
        with open(key, "wb") as file:
            file.write(KEY)
        port = os.path.join(folder, "port")
        self.process = subprocess.Popen(
            [program, "manager", "--address", self.address, "--authkey-file", key, "--port-file", port])
        wait_for(port, self.process)
        self.manager = SyncManager(self.address, authkey=KEY)
        self.manager.connect()

    def calls(self):
        shared = {"dict": self.manager.dict(key=1), "queue": self.manager.Queue(), "lock": self.manager.Lock()}
        d, q, lock = shared["dict"], shared["queue"], shared["lock"]

        def set_item():
            d["key"] = 2

        def put_and_get():
            q.put(1)
            q.get()

        def lock_and_unlock():
            lock.acquire()
            lock.release()
        return {"get": (lambda: d["key"], 1), "set": (set_item, 1), "put and get": (put_and_get, 2),
                "lock and unlock": (lock_and_unlock, 2)}

    def stop(self):
        del self.manager
        self.process.terminate()
        self.process.wait()


class Python(Multihull):
    """Python's server and client."""

    def __init__(self, folder, _program):
        self.manager = SyncManager(os.path.join(folder, PYTHON), authkey=KEY)
        self.manager.start()

    def stop(self):
        self.manager.shutdown()


class Redis:
    """redis-server, without anything on disk."""

    def __init__(self, folder, _program):
        self.path = os.path.join(folder, REDIS)
        self.process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", self.path, "--save", "", "--appendonly", "no", "--dir", folder],
            stdout=subprocess.DEVNULL)
        wait_for(self.path, self.process)

    def calls(self):
        connection = []

        def ask(*words):
            if not connection:
                connection.append(socket.socket(socket.AF_UNIX))
                connection[0].connect(self.path)
            request = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
            connection[0].sendall(request)
            answer = connection[0].recv(4096)
            while not answer.endswith(b"\r\n"):
                answer += connection[0].recv(4096)
            return answer

        def put_and_get():
            ask(b"LPUSH", b"queue", b"1")
            ask(b"RPOP", b"queue")
        return {"get": (lambda: ask(b"GET", b"key"), 1), "set": (lambda: ask(b"SET", b"key", b"2"), 1),
                "put and get": (put_and_get, 2)}

    def stop(self):
        self.process.terminate()
        self.process.wait()


def client(call, calls_each, barrier, seconds, results):
    call()
    barrier.wait()
    count = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(20):
            call()
        count += 20
    results.put(count * calls_each)


def rate(server, what, clients, seconds):
    """Calls that are answered in a second, of all clients; nothing where the competitor has no such call."""
    calls = server.calls()
    if what not in calls:
        return None
    context = mp.get_context("fork")
    barrier, results = context.Barrier(clients + 1), context.SimpleQueue()
    processes = [context.Process(target=client, args=(*calls[what], barrier, seconds, results)) for _ in range(clients)]
    for process in processes:
        process.start()
    barrier.wait()
    total = sum(results.get() for _ in processes)
    for process in processes:
        process.join()
    return total / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="the program multihull")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one turn")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4], help="processes that call at once")
    parser.add_argument("--only", help="calls whose names hold this")
    options = parser.parse_args()
    mp.current_process().authkey = KEY
    signal.alarm(3600)
    with tempfile.TemporaryDirectory(prefix="multihull-bench-") as folder:
        kinds = {OURS: Multihull, PYTHON: Python}
        if shutil.which("redis-server"):
            kinds[REDIS] = Redis
        servers = {name: kind(folder, options.program) for name, kind in kinds.items()}
        try:
            measure(servers, options)
        finally:
            for server in servers.values():
                server.stop()


def measure(servers, options):
    print(f"calls a second, median of {options.rounds} rounds of {options.seconds} s; {os.cpu_count()} processors")
    print(f"{'call':<16}{'clients':>8}" + "".join(f"{name:>12}" for name in servers) + f"{'of ' + PYTHON + chr(39) + 's':>14}")
    for what in ("get", "set", "put and get", "lock and unlock"):
        if options.only and options.only not in what:
            continue
        for clients in options.clients:
            rounds = []
            for turn in range(options.rounds):
                order = list(servers)[turn % len(servers):] + list(servers)[:turn % len(servers)]
                rounds.append({name: rate(servers[name], what, clients, options.seconds) for name in order})
            cells = ""
            for name in servers:
                values = [each[name] for each in rounds if each[name] is not None]
                cells += f"{statistics.median(values):>12,.0f}" if values else f"{'-':>12}"
            ratio = statistics.median(each[OURS] / each[PYTHON] for each in rounds)
            print(f"{what:<16}{clients:>8}{cells}{ratio:>13.2f}x", flush=True)


if __name__ == "__main__":
    main()
