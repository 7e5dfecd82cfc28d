"""Python's own pools at the works of `compare`, which starts this script once for each work.

usage: python_peer.py WORK WORKERS

The first line of the output names the competitors that know the work, separated by commas. Each line of the input that names
one is answered by a sample of it: nanoseconds per unit of the work.
"""

import concurrent.futures
import multiprocessing
import os
import signal
import statistics
import sys
import time

POOL = "py Pool"
EXECUTOR = "py executor"


def add_one(x):
    return x + 1


def square(x):
    return x * x


def crash(_):
    os.kill(os.getpid(), signal.SIGSEGV)


def nothing():
    pass


def timed(function):
    begin = time.perf_counter_ns()
    function()
    return time.perf_counter_ns() - begin


def median_of(count, function, idle=0.0):
    samples = []
    for _ in range(count):
        if idle:
            time.sleep(idle)
        samples.append(timed(function))
    return statistics.median(samples)


def round_trips(workers, count, idle):
    pool = multiprocessing.Pool(workers)
    executor = concurrent.futures.ProcessPoolExecutor(workers)
    executor.submit(add_one, 1).result()
    return {
        POOL: lambda: median_of(count, lambda: pool.apply(add_one, (1,)), idle),
        EXECUTOR: lambda: median_of(count, lambda: executor.submit(add_one, 1).result(), idle),
    }


def tiny_tasks(workers):
    # Fewer than the others do: what is answered is the price of one, and these take long.
    count = 2000
    pool = multiprocessing.Pool(workers)
    executor = concurrent.futures.ProcessPoolExecutor(workers)

    def with_pool():
        results = [pool.apply_async(add_one, (i,)) for i in range(count)]
        return sum(result.get() for result in results)

    def with_executor():
        futures = [executor.submit(add_one, i) for i in range(count)]
        return sum(future.result() for future in futures)

    return {POOL: lambda: timed(with_pool) / count, EXECUTOR: lambda: timed(with_executor) / count}


def map_ints(workers, inputs):
    pool = multiprocessing.Pool(workers)
    return {POOL: lambda: timed(lambda: pool.map(square, inputs))}


def pool_life(workers, count):
    def with_pool():
        with multiprocessing.Pool(workers) as pool:
            if count < 10:
                pool.map(square, range(count))
            else:
                for result in [pool.apply_async(square, (i,)) for i in range(count)]:
                    result.get()
            pool.close()
            pool.join()

    def with_executor():
        with concurrent.futures.ProcessPoolExecutor(workers) as executor:
            for future in [executor.submit(square, i) for i in range(count)]:
                future.result()

    return {POOL: lambda: timed(with_pool), EXECUTOR: lambda: timed(with_executor)}


def process_life(method, gigabyte=False):
    context = multiprocessing.get_context(method)
    memory = bytearray(b"\1") * (1 << 30) if gigabyte else None

    def once():
        process = context.Process(target=nothing)
        process.start()
        process.join()
        return memory is not None

    return {POOL: lambda: median_of(3, once)}


def crashes():
    # Pool never answers a task whose worker died, but starts a new one for the next; an executor is broken and made anew.
    pool = multiprocessing.Pool(1)

    def with_pool():
        pool.apply_async(crash, (0,))
        pool.apply(square, (3,))

    def with_executor():
        executor = concurrent.futures.ProcessPoolExecutor(1)
        executor.submit(square, 2).result()
        begin = time.perf_counter_ns()
        try:
            executor.submit(crash, 0).result()
        except concurrent.futures.process.BrokenProcessPool:
            executor.shutdown()
            executor = concurrent.futures.ProcessPoolExecutor(1)
            executor.submit(square, 3).result()
        took = time.perf_counter_ns() - begin
        executor.shutdown()
        return took

    return {POOL: lambda: timed(with_pool), EXECUTOR: with_executor}


def prepare(work, workers):
    works = {
        "round-trip": lambda: round_trips(workers, 300, 0),
        "round-trip-idle": lambda: round_trips(workers, 60, 0.001),
        "tiny-tasks": lambda: tiny_tasks(workers),
        "map-vector": lambda: map_ints(workers, list(range(1_000_000))),
        "map-iota": lambda: map_ints(workers, range(1_000_000)),
        "pool-5": lambda: pool_life(2, 5),
        "pool-999": lambda: pool_life(3, 999),
        "crash": crashes,
    }
    for method in ("fork", "forkserver", "spawn"):
        works["process-" + method] = lambda method=method: process_life(method)
        works["process-" + method + "-1g"] = lambda method=method: process_life(method, gigabyte=True)
    return works[work]() if work in works else {}


def main():
    competitors = prepare(sys.argv[1], int(sys.argv[2]))
    print(",".join(competitors), flush=True)
    for line in sys.stdin:
        print(float(competitors[line.strip()]()), flush=True)
    sys.stdout.flush()
    # A pool that lost a task would be waited for without end.
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(0)


if __name__ == "__main__":
    main()
