#!/usr/bin/env python3
"""Connects, and ends while a child of it goes on with the connection.

    leaves_its_connection.py SOCKET before|after

It ends before the token is asked for, or after. The child prints `alone`; told so by a line on standard input, it
asks, unless that was done; then it prints the token or the failure.
"""

import os
import socket
import sys
import time

import dph_client as dph

connection = socket.socket(socket.AF_UNIX)
connection.settimeout(60)
connection.connect(sys.argv[1])
dph.ask(connection, dph.PING, dph.PONG, b"")
fields = dph.selector(None) + dph.option(dph.unsigned, None) + dph.boolean(False) + dph.option(dph.string, None)
request = dph.frame(dph.TOKEN, fields + dph.unsigned(50_000))
after = sys.argv[2] == "after"
parent = os.getpid()
if os.fork() > 0:
    if after:
        connection.sendall(request)
        sys.stdin.readline()
    os._exit(0)
while os.getppid() == parent:
    time.sleep(0.005)
print("alone", flush=True)
if not after:
    sys.stdin.readline()
    connection.sendall(request)
try:
    print(dph.receive_reply(connection, dph.TOKEN_REPLY).string())
except dph.Failure as failure:
    print(failure)
