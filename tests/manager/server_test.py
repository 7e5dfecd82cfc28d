#!/usr/bin/python3
"""Drives the program "multihull manager" with Python's own clients, and with clients that misbehave.

usage: server_test.py PROGRAM [unittest's arguments]
"""
import array
import hashlib
import hmac
import multiprocessing as mp
import os
import pickle
import queue
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from multiprocessing import managers
from multiprocessing.connection import Client
from multiprocessing.managers import BaseManager, RemoteError, SyncManager

PROGRAM = sys.argv.pop(1)
KEY = b"the key of a test"
PATIENCE = 120  # seconds: of a test that hangs

TYPES = ("dict list set Namespace Queue JoinableQueue LifoQueue PriorityQueue Event Lock RLock Semaphore BoundedSemaphore "
         "Condition Barrier Value Array").split()


class PlainManager(BaseManager):
    """Knows the names of types and nothing else: the server says what methods they have."""


for each in TYPES + ["Iterator", "Pool"]:
    PlainManager.register(each)


class Server:
    """The program at work."""

    def __init__(self, address="socket", key=KEY + b"\n"):
        self.folder = tempfile.TemporaryDirectory(prefix="multihull-server-test-")
        path = self.folder.name
        with open(os.path.join(path, "key"), "wb") as file:
            file.write(key)
        self.address = os.path.join(path, address) if address == "socket" else address
        port_file = os.path.join(path, "port")
        self.process = subprocess.Popen(
            [PROGRAM, "manager", "--address", self.address, "--authkey-file", os.path.join(path, "key"), "--port-file",
             port_file], stderr=subprocess.PIPE, text=True)
        while not os.path.exists(port_file):
            if self.process.poll() is not None:
                raise RuntimeError(f"it ended at once: {self.process.stderr.read()}")
            time.sleep(0.005)
        if address.startswith("@"):
            self.address = "\0" + address[1:]
        elif ":" in address:
            with open(port_file, encoding="ascii") as file:
                self.address = (address.split(":")[0], int(file.read()))

    def manager(self, manager_class=SyncManager, key=KEY):
        manager = manager_class(self.address, authkey=key)
        manager.connect()
        return manager

    def alive(self):
        return self.process.poll() is None

    def stop(self, how=signal.SIGTERM):
        """What it wrote to its standard error."""
        if how is not None:
            self.process.send_signal(how)
        errors = self.process.communicate(timeout=PATIENCE)[1]
        left = [name for name in os.listdir(self.folder.name) if name != "key"]
        self.folder.cleanup()
        assert self.process.returncode == 0, (self.process.returncode, errors)
        assert not left, left
        assert KEY.decode() not in errors, errors
        return errors


def eventually(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it never came true")
        time.sleep(0.005)


class ServerCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.manager = cls.server.manager()
        mp.current_process().authkey = KEY

    @classmethod
    def tearDownClass(cls):
        del cls.manager
        cls.server.stop()

    def in_process(self, target, *args):
        """Starts a process of its own; it is joined, and must end well, at the end of the test."""
        child = mp.get_context("fork").Process(target=target, args=args)
        child.start()

        def end():
            child.join(PATIENCE)
            self.assertEqual(child.exitcode, 0)
        self.addCleanup(end)
        return child

    def killed(self, target, *args):
        """Runs the function in a process that is killed when the function returns."""
        def run():
            target(*args)
            os.kill(os.getpid(), signal.SIGKILL)
        child = mp.get_context("fork").Process(target=run)
        child.start()
        child.join(PATIENCE)
        self.assertEqual(child.exitcode, -signal.SIGKILL)


class Types(ServerCase):
    def test_dict(self):
        d = self.manager.dict({"a": 1}, b=2)
        d[3] = [4]
        self.assertEqual(str(d), "{'a': 1, 'b': 2, 3: [4]}")
        self.assertEqual(d.copy(), {"a": 1, "b": 2, 3: [4]})
        self.assertEqual((d.keys(), d.values(), d.items()), (["a", "b", 3], [1, 2, [4]], [("a", 1), ("b", 2), (3, [4])]))
        self.assertEqual((d["a"], d.get("a"), d.get("x"), d.get("x", 9), len(d)), (1, 1, None, 9, 3))
        self.assertTrue("a" in d and "x" not in d)
        with self.assertRaises(KeyError) as raised:
            d["x"]
        self.assertEqual(raised.exception.args, ("x",))
        with self.assertRaises(KeyError):
            del d["x"]
        with self.assertRaises(TypeError):
            d[[1]] = 2
        del d["b"]
        self.assertEqual((d.pop(3), d.pop(3, 7), d.setdefault("c", 5), d.setdefault("c", 6)), ([4], 7, 5, 5))
        self.assertRaises(KeyError, d.pop, 3)
        d.update({"e": 1}, f=2)
        d.update([("g", 3)])
        d.update(self.manager.dict(h=4))
        self.assertEqual(list(iter(d)), ["a", "c", "e", "f", "g", "h"])
        self.assertEqual(d.popitem(), ("h", 4))
        iterator = iter(d)
        next(iterator)
        d["new"] = 1
        self.assertRaises(RuntimeError, next, iterator)
        d.clear()
        self.assertEqual(d.copy(), {})
        self.assertRaises(KeyError, d.popitem)

    def test_list(self):
        x = self.manager.list(range(5))
        self.assertEqual((x[:], x[1:3], x[-1], x[::-2], len(x)), ([0, 1, 2, 3, 4], [1, 2], 4, [4, 2, 0], 5))
        x.append(9)
        x.extend((7, 8))
        x.extend(self.manager.list("ab"))
        self.assertEqual(x[5:], [9, 7, 8, "a", "b"])
        self.assertRaises(TypeError, x.sort)
        self.assertEqual((x.pop(), x.pop(-1), x.pop(0)), ("b", "a", 0))
        x.sort(reverse=True)
        self.assertEqual(str(x), "[9, 8, 7, 4, 3, 2, 1]")
        x.sort()
        x.reverse()
        x.insert(1, 100)
        x.remove(8)
        self.assertEqual((x[:], x.count(9), x.index(7), 3 in x), ([9, 100, 7, 4, 3, 2, 1], 1, 2, True))
        self.assertRaises(ValueError, x.index, 55)
        self.assertRaises(ValueError, x.remove, 55)
        self.assertRaises(IndexError, lambda: x[55])
        with self.assertRaises(IndexError):
            x[55] = 1
        x[0] = "first"
        x[1:3] = ["in", "place"]
        x[::2] = [1, 2, 3, 4]
        del x[1], x[-2:]
        self.assertEqual((x + [5], x * 2, 2 * x), ([1, 2, 4, 3, 5], [1, 2, 4, 3] * 2, [1, 2, 4, 3] * 2))
        x += [6]
        x *= 2
        self.assertEqual(list(x), [1, 2, 4, 3, 6] * 2)
        self.assertEqual(list(reversed(x)), [6, 3, 4, 2, 1] * 2)

    def test_values(self):
        n = self.manager.Namespace(x=1)
        n.y = [2]
        self.assertEqual((n.x, n.y, str(n)), (1, [2], "Namespace(x=1, y=[2])"))
        del n.x
        self.assertRaises(AttributeError, lambda: n.x)
        self.assertEqual(n._getvalue().__dict__, {"y": [2]})
        v = self.manager.Value("i", 4)
        v.value += 1
        v.set(v.get() + 1)
        self.assertEqual((v.value, str(v), v._getvalue().value), (6, "Value('i', 6)", 6))
        for code, values in (("i", [1, -2, 3]), ("d", [0.5, 1.0]), ("B", [0, 255]), ("q", [-(1 << 63)]), ("f", [0.5])):
            a = self.manager.Array(code, values)
            self.assertEqual((list(a), a[0], a[-1], len(a)), (values, values[0], values[-1], len(values)))
            self.assertEqual((a[0:], a._getvalue()), (array.array(code, values),) * 2)
            a[0:1] = array.array(code, values * 2)
            self.assertEqual(list(a), values * 2 + values[1:])
        self.assertEqual(str(self.manager.Array("i", [1])), "array('i', [1])")
        a = self.manager.Array("B", [1])
        with self.assertRaises(OverflowError):
            a[0] = 256
        with self.assertRaises(TypeError):
            a[0] = "x"
        with self.assertRaises(IndexError):
            a[1] = 2

    def test_queues(self):
        q = self.manager.Queue(2)
        q.put("a")
        q.put("b", block=False)
        self.assertEqual((q.qsize(), q.full(), q.empty()), (2, True, False))
        self.assertRaises(queue.Full, q.put, "c", timeout=0.01)
        self.assertRaises(queue.Full, q.put_nowait, "c")
        self.assertEqual((q.get(), q.get(True, 1)), ("a", "b"))
        self.assertRaises(queue.Empty, q.get, timeout=0.01)
        self.assertRaises(queue.Empty, q.get_nowait)
        self.assertRaises(ValueError, q.get, True, -1)
        q.task_done()
        q.task_done()
        self.assertRaises(ValueError, q.task_done)
        q.join()
        j = self.manager.JoinableQueue()
        for n in range(3):
            j.put(n)

        def work():
            for _ in range(3):
                j.get()
                j.task_done()
        self.in_process(work)
        j.join()
        plain = self.server.manager(PlainManager)
        last, least = plain.LifoQueue(), plain.PriorityQueue()
        for n in (2, 3, 1):
            last.put(n)
            least.put(n)
        self.assertEqual([last.get() for _ in range(3)], [1, 3, 2])
        self.assertEqual([least.get() for _ in range(3)], [1, 2, 3])

    def test_set(self):
        manager = self.server.manager(PlainManager)
        s = manager.set([1, 2])
        s.add(3)
        s.discard(9)
        self.assertRaises(KeyError, s.remove, 9)
        self.assertEqual(s.copy(), {1, 2, 3})
        self.assertEqual((s | {4}, s & {1, 9}, s - {1}, s ^ {3, 4}, {1, 9} - s),
                         ({1, 2, 3, 4}, {1}, {2, 3}, {1, 2, 4}, {9}))
        self.assertEqual((s > {1}, s <= {1, 2, 3}, s.issubset([1]), s.isdisjoint([7]), len(s), 2 in s),
                         (True, True, False, True, 3, True))
        s.update([4], [5])
        s.intersection_update({3, 4, 5})
        self.assertEqual(sorted(s), [3, 4, 5])
        self.assertIn(s.pop(), (3, 4, 5))

    def test_types_without_pythons_proxies(self):
        """As BaseManager.register() without a callable makes them: the server says which methods there are."""
        manager = self.server.manager(PlainManager)
        made = [manager.dict(a=1), manager.list([1]), manager.set([1]), manager.Namespace(), manager.Queue(),
                manager.JoinableQueue(), manager.Event(), manager.Lock(), manager.RLock(), manager.Semaphore(2),
                manager.BoundedSemaphore(2), manager.Condition(), manager.Barrier(2), manager.Value("i", 1),
                manager.Array("i", [1])]
        for proxy in made:
            self.assertTrue(proxy._exposed_)
        self.assertEqual(list(made[0]), ["a"])
        made[3].set("x", 5)
        self.assertEqual((made[3].get("x"), made[12].parties(), made[12].broken()), (5, 2, False))
        with manager.Lock(), manager.Condition():
            pass
        self.assertRaisesRegex(RemoteError, "no Pool", manager.Pool)

    def test_atomic_updates(self):
        manager = self.server.manager(PlainManager)
        d = manager.dict()
        self.assertEqual((d.add("n", 2), d.add("n", 3), d.add("m", 1, 10)), (2, 5, 11))
        self.assertEqual((d.compare_exchange("n", 5, 6), d.compare_exchange("n", 5, 7), d["n"]), (True, False, 6))
        self.assertEqual((d.compare_exchange("new", None, 1), d["new"]), (True, 1))
        self.assertRaises(TypeError, d.add, "n", "text")
        self.assertRaisesRegex(ValueError, "registered", d.apply, "n", "nothing")
        v = manager.Value("i", 1)
        self.assertEqual((v.add(2), v.compare_exchange(3, 9), v.get()), (3, True, 9))

        def count():
            for _ in range(500):
                d.add("count", 1)
        children = [self.in_process(count) for _ in range(3)]
        for child in children:
            child.join()
        self.assertEqual(d["count"], 1500)

    def test_nested_proxies(self):
        inner = self.manager.list([1])
        outer = self.manager.dict(inner=inner, other=self.manager.dict(x=1))
        del inner
        outer["inner"].append(2)
        self.assertEqual((outer["inner"][:], outer["other"]["x"]), ([1, 2], 1))
        both = self.manager.list([outer["inner"], outer])
        both[1]["other"]["x"] = 5
        self.assertEqual(outer["other"]["x"], 5)
        jobs = self.manager.Queue()
        jobs.put(both)
        self.assertEqual(jobs.get()[0][:], [1, 2])

    def test_big_values(self):
        x = self.manager.list()
        text = "x" * 5_000_000
        x.append(text)
        x.append(list(range(100_000)))
        self.assertEqual((x[0], x[1]), (text, list(range(100_000))))

    def test_what_is_refused(self):
        x = self.manager.list()
        for what in (print, os.system, self.server.manager):
            with self.assertRaises((RemoteError, TypeError, AttributeError, pickle.PicklingError)):
                x.append(what)
        with self.assertRaisesRegex(RemoteError, "64 bits"):
            x.append(1 << 70)
        x.append("still there")
        self.assertEqual(x[:], ["still there"])
        with self.assertRaises(RemoteError):
            x._callmethod("__class__")


class Waiting(ServerCase):
    def test_lock_between_processes(self):
        lock = self.manager.Lock()
        total = self.manager.Value("i", 0)

        def add():
            for _ in range(100):
                with lock:
                    total.value += 1
        children = [self.in_process(add) for _ in range(3)]
        for child in children:
            child.join(PATIENCE)
        self.assertEqual(total.value, 300)
        self.assertTrue(lock.acquire(False))
        self.assertFalse(lock.acquire(False))
        self.assertFalse(lock.acquire(True, 0.01))
        lock.release()
        self.assertRaises(RuntimeError, lock.release)

    def test_rlock(self):
        lock = self.manager.RLock()
        lock.acquire()
        lock.acquire()
        tried = []
        thread = threading.Thread(target=lambda: tried.append(lock.acquire(False)))
        thread.start()
        thread.join()
        self.assertEqual(tried, [False])
        lock.release()
        lock.release()
        self.assertRaises(RuntimeError, lock.release)

    def test_semaphores(self):
        semaphore = self.manager.Semaphore(2)
        self.assertTrue(semaphore.acquire() and semaphore.acquire())
        self.assertFalse(semaphore.acquire(False))
        self.assertFalse(semaphore.acquire(True, 0.01))
        waiter = threading.Thread(target=semaphore.acquire)
        waiter.start()
        semaphore.release()
        waiter.join()
        bounded = self.manager.BoundedSemaphore(1)
        self.assertRaises(ValueError, bounded.release)

    def test_event(self):
        event = self.manager.Event()
        self.assertFalse(event.is_set() or event.wait(0.01))
        answers = []
        waiters = [threading.Thread(target=lambda: answers.append(event.wait())) for _ in range(3)]
        for waiter in waiters:
            waiter.start()
        event.set()
        for waiter in waiters:
            waiter.join()
        self.assertEqual(answers, [True] * 3)
        event.clear()
        self.assertFalse(event.is_set())

    def test_condition(self):
        condition = self.manager.Condition()
        items = self.manager.list()
        self.assertRaises(RuntimeError, condition.wait)
        self.assertRaises(RuntimeError, condition.notify)
        with condition:
            self.assertFalse(condition.wait(0.01))

        def take():
            with condition:
                condition.wait_for(lambda: len(items) > 0, PATIENCE)
                items.pop()
        for _ in range(3):
            self.in_process(take)
        for n in range(3):
            with condition:
                items.append(n)
                condition.notify_all()
        eventually(lambda: len(items) == 0)
        shared = self.manager.Lock()
        both = [self.manager.Condition(shared), self.manager.Condition(shared)]
        with both[0]:
            self.assertFalse(shared.acquire(False))
            both[1].notify()

    def test_barrier(self):
        barrier = self.manager.Barrier(3)
        places = self.manager.list()
        for _ in range(2):
            self.in_process(lambda: places.append(barrier.wait()))
        places.append(barrier.wait())
        eventually(lambda: len(places) == 3)
        self.assertEqual(sorted(places), [0, 1, 2])
        self.assertEqual((barrier.parties, barrier.n_waiting, barrier.broken), (3, 0, False))
        self.assertRaises(threading.BrokenBarrierError, barrier.wait, 0.01)
        self.assertTrue(barrier.broken)
        barrier.reset()
        self.assertFalse(barrier.broken)
        barrier.abort()
        self.assertRaises(threading.BrokenBarrierError, barrier.wait)


class Deaths(ServerCase):
    def test_lock_comes_back(self):
        for lock in (self.manager.Lock(), self.manager.RLock(), self.manager.Condition()):
            self.killed(lock.acquire)
            self.assertTrue(lock.acquire())
            lock.release()

    def test_permits_come_back(self):
        semaphore = self.manager.Semaphore(2)
        self.killed(lambda: semaphore.acquire() and semaphore.acquire())
        self.assertTrue(semaphore.acquire() and semaphore.acquire())

    def test_a_permit_that_somebody_else_gave_back_comes_back_once(self):
        semaphore = self.manager.BoundedSemaphore(1)
        acquired, released = self.manager.Event(), self.manager.Event()

        def acquire_and_die():
            semaphore.acquire()
            acquired.set()
            released.wait()
        killed = threading.Thread(target=self.killed, args=(acquire_and_die,))
        killed.start()
        acquired.wait()
        semaphore.release()
        released.set()
        killed.join()
        self.assertTrue(semaphore.acquire())
        self.assertFalse(semaphore.acquire(True, 0.2))

    def test_permits_that_were_used_up_stay_away(self):
        """Who ends as he should has given up his proxies before: what he took he meant to keep."""
        semaphore = self.manager.Semaphore(1)
        child = self.in_process(semaphore.acquire)
        child.join(PATIENCE)
        self.assertFalse(semaphore.acquire(True, 0.2))

    def test_a_waiter_that_dies_takes_nothing(self):
        lock, jobs = self.manager.Lock(), self.manager.Queue()
        with lock:
            children = [mp.get_context("fork").Process(target=target) for target in (lock.acquire, jobs.get)]
            for child in children:
                child.start()
            time.sleep(0.1)  # most of the time they wait by then; if not, the test is easier
            for child in children:
                child.kill()
                child.join(PATIENCE)
        self.assertTrue(lock.acquire())
        jobs.put("kept")
        self.assertEqual(jobs.get(timeout=PATIENCE), "kept")

    def test_barrier_breaks(self):
        barrier = self.manager.Barrier(3)
        child = mp.get_context("fork").Process(target=barrier.wait)
        child.start()
        eventually(lambda: barrier.n_waiting == 1)
        child.kill()
        child.join(PATIENCE)
        self.assertRaises(threading.BrokenBarrierError, barrier.wait)

    def test_references_come_back(self):
        before = self.manager._number_of_objects()

        def make():
            make.kept = [self.manager.list() for _ in range(5)]
        self.killed(make)
        eventually(lambda: self.manager._number_of_objects() == before)

    def test_an_iterator_outlives_the_connection_that_asked_for_it(self):
        keys = self.manager.dict(a=1, b=2)
        before = self.manager._number_of_objects()
        found = []
        # Each thread of a Python client has a connection of its own, which ends with it.
        asks = threading.Thread(target=lambda: found.append(keys.__iter__()))
        asks.start()
        asks.join(PATIENCE)
        self.assertEqual(list(found.pop()), ["a", "b"])
        eventually(lambda: self.manager._number_of_objects() == before)

    def test_client_of_tcp(self):
        server = Server("127.0.0.1:0")
        lock = server.manager().Lock()
        self.killed(lock.acquire)
        self.assertTrue(lock.acquire(True, PATIENCE))
        del lock
        server.stop()


def handshake(address, key):
    """A raw socket that has proved that it knows the key, and the frames it sent."""
    family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
    raw = socket.socket(family, socket.SOCK_STREAM)
    raw.settimeout(PATIENCE)
    raw.connect(address)
    challenge = receive(raw)[len(b"#CHALLENGE#"):]
    answer = hmac.new(key, challenge, "md5").digest()
    send(raw, answer)
    if receive(raw) != b"#WELCOME#":
        raise mp.AuthenticationError
    send(raw, b"#CHALLENGE#" + bytes(20))
    receive(raw)
    send(raw, b"#WELCOME#")
    return raw, answer


def send(raw, body):
    raw.sendall(struct.pack("!i", len(body)) + body)


def receive(raw):
    size, = struct.unpack("!i", exactly(raw, 4))
    return exactly(raw, size)


def exactly(raw, size):
    got = b""
    while len(got) < size:
        part = raw.recv(size - len(got))
        if not part:
            raise EOFError
        got += part
    return got


class BadClients(ServerCase):
    def tearDown(self):
        self.assertTrue(self.server.alive())
        self.assertEqual(self.manager.list([1])[:], [1])

    def test_wrong_key(self):
        self.assertRaises(mp.AuthenticationError, self.server.manager, key=b"a wrong key")

    def test_replayed_handshake(self):
        raw, answer = handshake(self.server.address, KEY)
        raw.close()
        again = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        again.connect(self.server.address)
        receive(again)
        send(again, answer)
        self.assertEqual(receive(again), b"#FAILURE#")
        again.close()

    def test_request_without_a_handshake(self):
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        raw.connect(self.server.address)
        send(raw, pickle.dumps((None, "shutdown", (), {})))
        receive(raw)
        self.assertEqual(receive(raw), b"#FAILURE#")
        raw.close()

    def test_half_a_frame(self):
        for part in (b"\0", struct.pack("!i", 100), struct.pack("!i", 100) + b"x" * 50):
            raw, _ = handshake(self.server.address, KEY)
            raw.sendall(part)
            raw.close()

    def test_endless_frames(self):
        for header in (struct.pack("!i", 0x7fffffff), struct.pack("!iQ", -1, 1 << 60)):
            raw, _ = handshake(self.server.address, KEY)
            raw.sendall(header)
            self.assertRaises((EOFError, ConnectionError), receive, raw)
            raw.close()

    def test_garbage(self):
        for body in (b"", b"garbage", pickle.dumps(5), pickle.dumps((1, 2)), pickle.dumps((None, "create", (), 3)),
                     pickle.dumps((None, "create", ("nothing",), {})), pickle.dumps((None, "serve_client", (), {})),
                     pickle.dumps((None, "incref", ("0",), {})), b"cos\nsystem\n(S'true'\ntR."):
            raw, _ = handshake(self.server.address, KEY)
            send(raw, body)
            self.assertEqual(pickle.loads(receive(raw))[0], "#TRACEBACK", body)
            raw.close()

    def test_what_is_no_text(self):
        for body in (b"\x80\x02c\xff\nx\n.", b"\x80\x02c" + "\u00e9".encode() * 300 + b"\nx\n."):
            raw, _ = handshake(self.server.address, KEY)
            send(raw, body)
            self.assertEqual(pickle.loads(receive(raw))[0], "#TRACEBACK")
            raw.close()
        for length in range(70, 76):
            text = self.manager.list(["x" * length + "\u00e9\u4e2d"])
            self.assertIn("refcount", self.manager._debug_info())
            del text

    def test_byte_by_byte(self):
        raw, _ = handshake(self.server.address, KEY)
        body = pickle.dumps((None, "number_of_objects", (), {}))
        for byte in struct.pack("!i", len(body)) + body:
            raw.sendall(bytes([byte]))
            time.sleep(0.001)
        self.assertEqual(pickle.loads(receive(raw))[0], "#RETURN")
        raw.close()

    def test_many_requests_at_once(self):
        x = self.manager.list(range(10))
        raw, _ = handshake(self.server.address, KEY)
        requests = [(None, "accept_connection", ("me",), {})] + [(x._id, "__getitem__", (n % 10,), {}) for n in range(5000)]
        sender = threading.Thread(target=lambda: [send(raw, pickle.dumps(request)) for request in requests])
        sender.start()
        self.assertEqual(pickle.loads(receive(raw))[0], "#RETURN")
        self.assertEqual([pickle.loads(receive(raw)) for _ in range(5000)], [("#RETURN", n % 10) for n in range(5000)])
        sender.join()
        raw.close()

    def test_who_does_not_read(self):
        x = self.manager.list(["x" * 1_000_000])
        raw, _ = handshake(self.server.address, KEY)
        send(raw, pickle.dumps((None, "accept_connection", ("me",), {})))
        receive(raw)
        for _ in range(20):
            send(raw, pickle.dumps((x._id, "__getitem__", (0,), {})))
        self.assertEqual(len(x[0]), 1_000_000)  # others are served meanwhile
        for _ in range(20):
            self.assertEqual(len(pickle.loads(receive(raw))[1]), 1_000_000)
        raw.close()

    def test_who_leaves_with_answers_on_their_way(self):
        x = self.manager.list(["x" * 5_000_000])
        for _ in range(5):
            raw, _ = handshake(self.server.address, KEY)
            send(raw, pickle.dumps((None, "accept_connection", ("me",), {})))
            receive(raw)
            send(raw, pickle.dumps((x._id, "__getitem__", (0,), {})))
            raw.close()


class Crowds(unittest.TestCase):
    def test_thousands_of_connections(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        count = min(10_000, hard - 200)
        server = Server()
        x = server.manager().list([1, 2])
        request = pickle.dumps((x._id, "__len__", (), {}))
        connections = []
        for _ in range(count):
            raw, _ = handshake(server.address, KEY)
            send(raw, pickle.dumps((None, "accept_connection", ("me",), {})))
            receive(raw)
            connections.append(raw)
        for raw in connections:
            send(raw, request)
        for raw in connections:
            self.assertEqual(pickle.loads(receive(raw)), ("#RETURN", 2))
        for raw in connections:
            raw.close()
        self.assertEqual(len(x), 2)
        del x
        server.stop()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


    def test_more_than_there_are_descriptors(self):
        server = Server()
        x = server.manager().list([1, 2])
        self.assertEqual(len(x), 2)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (60, 60))
        silent = []
        for _ in range(100):
            raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            raw.connect(server.address)
            silent.append(raw)
        self.assertEqual(len(x), 2)
        for raw in silent[:50]:
            raw.close()
        eventually(lambda: self.answers(server))
        del x
        server.stop()
        for raw in silent[50:]:
            raw.close()

    @staticmethod
    def answers(server):
        try:
            return server.manager().list([1])[0] == 1
        except (EOFError, OSError):
            return False


class Program(unittest.TestCase):
    def refused(self, *arguments):
        run = subprocess.run([PROGRAM, "manager", *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)
        self.assertEqual((run.returncode, run.stdout), (2, ""))
        return run.stderr

    def test_help(self):
        run = subprocess.run([PROGRAM, "manager", "--help"], capture_output=True, text=True, timeout=PATIENCE, check=True)
        for word in ("--address", "--authkey-file", "--port-file", "SyncManager"):
            self.assertIn(word, run.stdout)

    def test_what_it_refuses(self):
        self.assertIn("--address", self.refused())
        with tempfile.TemporaryDirectory() as folder:
            self.assertIn("key", self.refused("--address", "@x", "--authkey-file", os.path.join(folder, "none")))
            with open(os.path.join(folder, "empty"), "w", encoding="ascii") as file:
                file.write("\n")
            self.assertIn("no key", self.refused("--address", "@x", "--authkey-file", file.name))
            with open(os.path.join(folder, "key"), "wb") as file:
                file.write(KEY)
            self.assertIn("means nothing", self.refused("--address", "no.such.host.invalid:1", "--authkey-file", file.name))

    def test_addresses_and_ends(self):
        for how in (signal.SIGTERM, signal.SIGINT):
            for address in ("socket", "127.0.0.1:0", f"@multihull-server-test-{os.getpid()}"):
                server = Server(address)
                x = server.manager().list([1])
                self.assertEqual(x[:], [1])
                with open(f"/proc/{server.process.pid}/cmdline", "rb") as file:
                    self.assertNotIn(KEY, file.read())
                del x
                server.stop(how)

    def test_shutdown_by_a_client(self):
        server = Server()
        for _ in range(2):
            try:
                with Client(server.address, authkey=KEY) as connection:
                    managers.dispatch(connection, None, "shutdown")
            except (OSError, EOFError):
                pass  # the second one may find nobody
        server.stop(None)

    def test_wrong_keys_are_logged_without_the_key(self):
        server = Server()
        self.assertRaises(mp.AuthenticationError, server.manager, key=b"another key")
        errors = server.stop()
        self.assertIn("the keys differ", errors)
        self.assertNotIn("another key", errors)


if __name__ == "__main__":
    signal.alarm(900)
    unittest.main(verbosity=2)
