"""Python's Queue, Lock and Value at the works of `compare_shared`, which starts this script once for each sample.

usage: python_shared_peer.py WORK COUNT

Prints nanoseconds per unit of the work.
"""

import multiprocessing
import sys
import time


def put_all(queue, count):
    message = b"x" * 64
    for _ in range(count):
        queue.put(message)


def take_all(queue, count):
    for _ in range(count):
        queue.get()


def echo(there, back, count):
    for _ in range(count):
        back.put(there.get())


def increment(value, lock, count):
    for _ in range(count):
        with lock:
            value.value += 1


def run(processes):
    begin = time.perf_counter_ns()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return time.perf_counter_ns() - begin


def stream(putters, takers, count):
    queue = multiprocessing.Queue()
    processes = [multiprocessing.Process(target=take_all, args=(queue, count // takers)) for _ in range(takers)]
    processes += [multiprocessing.Process(target=put_all, args=(queue, count // putters)) for _ in range(putters)]
    return run(processes) / count


def round_trip(count):
    there, back = multiprocessing.SimpleQueue(), multiprocessing.SimpleQueue()
    process = multiprocessing.Process(target=echo, args=(there, back, count))
    process.start()
    message = b"x" * 64
    begin = time.perf_counter_ns()
    for _ in range(count):
        there.put(message)
        back.get()
    elapsed = time.perf_counter_ns() - begin
    process.join()
    return elapsed / count


def echo_bytes(connection, count):
    for _ in range(count):
        connection.send_bytes(connection.recv_bytes())


def pipe(count):
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=echo_bytes, args=(there, count))
    process.start()
    message = b"x" * 64
    begin = time.perf_counter_ns()
    for _ in range(count):
        here.send_bytes(message)
        here.recv_bytes()
    elapsed = time.perf_counter_ns() - begin
    process.join()
    return elapsed / count


def contended(count):
    value, lock = multiprocessing.Value("l", 0, lock=False), multiprocessing.Lock()
    return run([multiprocessing.Process(target=increment, args=(value, lock, count // 4)) for _ in range(4)]) / count


WORKS = {
    "small": lambda count: stream(1, 1, count),
    "many": lambda count: stream(20, 20, count),
    "round-trip": round_trip,
    "pipe": pipe,
    "contended": contended,
}

if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    print(WORKS[sys.argv[1]](int(sys.argv[2])))
