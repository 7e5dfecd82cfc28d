"""Calls C++ functions in the pool of another program, by their names. Reads the manager's address and key as two lines from stdin."""
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.managers import BaseManager


class Manager(BaseManager):
    pass


Manager.register("functions")


def connect():
    address = sys.stdin.readline().strip()
    key = sys.stdin.readline().strip()
    # Python writes the name of a socket without a file with a zero in front.
    manager = Manager("\0" + address[1:] if address.startswith("@") else address, key.encode())
    manager.connect()
    return manager


functions = connect().functions()
with ThreadPoolExecutor(4) as threads:
    numbers = range(20)
    answers = threads.map(lambda n: functions.call("is_prime", [n]), numbers)
    print([n for n, prime in zip(numbers, answers) if prime])
print(functions.call("mean", [[1, 2, 3, 4]]))

for name, args in [("is_prime", [-1]), ("sine", [0.5])]:
    try:
        functions.call(name, args)
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
try:
    functions.call("crash", [])
except RuntimeError as error:
    assert "SIGABRT" in str(error), error
    print("a worker crashed with SIGABRT, and nothing else was lost")
print(functions.call("is_prime", [2**31 - 1]))
