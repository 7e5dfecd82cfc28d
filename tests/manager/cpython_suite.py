#!/usr/bin/python3
"""Points CPython's own tests of multiprocessing's managers at our server.

usage: cpython_suite.py PROGRAM [fork|forkserver|spawn] [TEST...]

PROGRAM is the command-line program multihull. The tests are those of the package test (Debian: libpython3.11-testsuite), the variants
that run against a manager. Nothing of them is changed: multiprocessing.Manager() starts "multihull manager" instead of a process
that runs Python's server, and everything else, proxies and all, is Python's own. A TEST is a part of a test's name.
"""
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from multiprocessing import managers, process, util

try:
    from test import _test_multiprocessing as suite
except ImportError:
    sys.exit("cpython_suite.py: CPython's tests are not installed (Debian: libpython3.11-testsuite)")

PROGRAM = sys.argv[1]
METHOD = sys.argv[2] if len(sys.argv) > 2 else "fork"

# What our server can't or need not do. A name here that is no test's is an error.
SKIPPED = {
    "WithManagerTestPool": "no Python runs in this server, so it has no Pool",
    "WithManagerTestMyManager": "registers callables, which a server of Python's runs",
    "WithManagerTestRemoteManager": "registers callables, and speaks XML-RPC",
    "WithManagerTestManagerRestart": "registers callables, and speaks XML-RPC",
    "WithManagerTestBarrier.test_action": "the barrier's action is a function of Python's",
    "TestSyncManagerTypes.test_pool": "no Python runs in this server, so it has no Pool",
}

if METHOD == "spawn":
    # It leaves what it was given as held. A spawned process counts no reference of the proxies that it is started with, so that its end
    # can't be told from a death, which gives back here what it held.
    for name in ("test_lock", "test_bounded_semaphore"):
        SKIPPED["TestSyncManagerTypes." + name] = "a process that ended held it, and it was given back"


class ServerProcess:
    """The program at work, as multiprocessing.Process would be."""

    def __init__(self, arguments, **options):
        self._popen = subprocess.Popen(arguments, **options)

    def is_alive(self):
        return self._popen.poll() is None

    def join(self, timeout=None):
        try:
            self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            pass

    def terminate(self):
        self._popen.terminate()

    def kill(self):
        self._popen.kill()

    @property
    def exitcode(self):
        return self._popen.poll()

    @property
    def sentinel(self):
        return None


def start(manager, initializer=None, initargs=()):
    """What SyncManager.start() does, with our server."""
    assert initializer is None
    folder = tempfile.mkdtemp(prefix="multihull-suite-")
    address = os.path.join(folder, "socket")
    key_reader, key_writer = os.pipe()
    os.write(key_writer, bytes(manager._authkey))
    os.close(key_writer)
    manager._process = ServerProcess(
        [PROGRAM, "manager", "--address", address, "--authkey-file", f"/dev/fd/{key_reader}", "--port-file",
         os.path.join(folder, "port")],
        pass_fds=[key_reader])
    os.close(key_reader)
    while not os.path.exists(os.path.join(folder, "port")):
        if not manager._process.is_alive():
            raise RuntimeError("multihull manager has ended")
        time.sleep(0.005)
    manager._address = address
    manager._state.value = managers.State.STARTED

    def finish(*arguments):
        managers.SyncManager._finalize_manager(*arguments)
        os.rmdir(folder)

    manager.shutdown = util.Finalize(
        manager, finish,
        args=(manager._process, address, manager._authkey, manager._state, manager._Client, 60.0), exitpriority=0)


managers.SyncManager.start = start
# A key file may end with a line's end, which random bytes may look like.
process.current_process().authkey = b"the key of CPython's suite"

# At the module's top: a spawned process imports this file to find them.
suite.install_tests_in_module_dict(globals(), METHOD)


def selected_tests():
    """All of the tests that a manager serves, but for those that are skipped."""
    used = set()
    chosen = unittest.TestSuite()
    for name, case in sorted(globals().items()):
        if not (name.startswith("WithManager") or name == "TestSyncManagerTypes"):
            continue
        for test in unittest.defaultTestLoader.loadTestsFromTestCase(case):
            full_name = f"{name}.{test._testMethodName}"
            reasons = {name, full_name} & SKIPPED.keys()
            used |= reasons
            if reasons:
                print(f"{full_name}: skipped, as {SKIPPED[reasons.pop()]}")
            elif all(part in full_name for part in sys.argv[3:]):
                chosen.addTest(test)
    missing = SKIPPED.keys() - used
    if missing:
        sys.exit(f"cpython_suite.py: there are no such tests to skip: {sorted(missing)}")
    return chosen


def main():
    setUpModule()
    result = unittest.TextTestRunner(verbosity=2).run(selected_tests())
    tearDownModule()
    sys.exit(0 if result.wasSuccessful() and result.testsRun > len(result.skipped) else 1)


if __name__ == "__main__":
    signal.alarm(1500)
    main()
