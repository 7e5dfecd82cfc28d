"""mpi4py.futures' side of script/bench --mpi, run by `mpiexec -n 3 python3 -m mpi4py.futures`."""
import array
import statistics
import time

from mpi4py.futures import MPIPoolExecutor


def cube(x):
    return x * x * x


def total(values):
    return sum(memoryview(values)[:8])  # what counts here is the journey


def busy(milliseconds):
    end = time.thread_time_ns() + milliseconds * 1_000_000
    while time.thread_time_ns() < end:
        pass
    return milliseconds


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main():
    with MPIPoolExecutor() as executor:
        for i in range(50):
            executor.submit(cube, i).result()
        print("single", statistics.median(timed(lambda: executor.submit(cube, 3).result()) for _ in range(300)))
        print("cubes", statistics.median(timed(lambda: list(executor.map(cube, range(999)))) for _ in range(3)))
        print("tiny", timed(lambda: list(executor.map(cube, range(5000)))) / 5000)
        big = array.array("Q", range(131072))
        print("lent", timed(lambda: list(executor.map(total, [big] * 200))) / 200)
        many = [array.array("Q", big) for _ in range(200)]
        print("lent_many", timed(lambda: list(executor.map(total, many))) / 200)
        print("long", timed(lambda: list(executor.map(busy, [10] * 100))))


if __name__ == "__main__":
    main()
