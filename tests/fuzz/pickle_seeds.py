#!/usr/bin/env python3
"""Writes the seeds of the pickle reader's fuzzer, and of a connection's in Python mode, with Python's own pickle.

usage: pickle_seeds.py CORPUS    # tests/fuzz/corpus
"""
import array
import pathlib
import pickle
import queue
import struct
import sys
from multiprocessing import managers

corpus = pathlib.Path(sys.argv[1])
token = managers.Token("list", ("localhost", 5000), "7f0010")
proxy = object.__new__(managers.ListProxy)
proxy._token, proxy._serializer, proxy._isauto = token, "pickle", False
shared = [1, "shared"]
cycle = []
cycle.append({"again": cycle})

values = {
    "request": ("7f0010", "put", (1, "two"), {"timeout": 1.5}),
    "create": (None, "create", ("dict",), {"a": None}),
    "reply": ("#RETURN", ("7f0010", ("append", "pop", "__len__"))),
    "proxy-reply": ("#PROXY", (("append",), token)),
    "error": ("#ERROR", KeyError("k")),
    "empty": ("#ERROR", queue.Empty()),
    "os-error": OSError(2, "text", "file"),
    "numbers": [None, True, False, 1, 300, 70000, -1, 2**40, -(2**63), 0.5],
    "big": 2**70,
    "texts": ["", "h\u00e9", "\U0001f600", "\ud800", b"\x00\xff", bytearray(b"b")],
    "long": ["t" * 300, b"b" * 300],
    "containers": [(), (1,), (1, 2, 3, 4), [], {}, {1: {2: 3}}, set(), {1, 2}, frozenset([1, 2])],
    "shared": [shared, shared, {"x": shared}],
    "cycle": cycle,
    "classes": [slice(1, None, 2), 1j, range(3), iter([1, 2]), managers.DictProxy],
    "state": [managers.Namespace(a=1), managers.Value("i", 3)],
    "arrays": [array.array("i", [1, -2]), array.array("d", [0.5])],
    "proxy": proxy,
}

folder = corpus / "pickle"
folder.mkdir(exist_ok=True)
for number, (name, value) in enumerate(values.items()):
    for protocol in 2, 3, 4, 5:
        # The fuzzer's first byte: which globals are allowed, a client's or any.
        choice = bytes([2 + number % 2])
        (folder / f"{name}-{protocol}").write_bytes(choice + pickle.dumps(value, protocol))

# The fuzzer's first byte 12: Objects in Python mode.
frames = b"".join(
    struct.pack("!i", len(body)) + body for body in (pickle.dumps(values[name]) for name in ("request", "error", "texts"))
)
(corpus / "connection" / "python").write_bytes(b"\x0c" + frames)
body = pickle.dumps(values["shared"])
(corpus / "connection" / "python-long").write_bytes(b"\x0c" + struct.pack("!iQ", -1, len(body)) + body)
