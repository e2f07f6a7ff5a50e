#!/usr/bin/env python3
"""A client of dph-agent in the standard library alone, written from PROTOCOL.md.

    dph_client.py SOCKET token [PROFILE]
    dph_client.py SOCKET ping
    dph_client.py SOCKET status
"""

import socket
import struct
import sys

MAGIC = b"DPHA"
MAX_BODY_LEN = 65536
TIMEOUT_S = 30

HELLO, WELCOME, VERSION_MISMATCH = 0x0001, 0x8001, 0x8002
PING, TOKEN, STATUS = 0x0010, 0x0012, 0x0014
FAILURE, PONG, TOKEN_REPLY, STATUSES = 0x8003, 0x8010, 0x8012, 0x8014

CODES = {
    1: "failed", 2: "bad-request", 3: "ambiguous-profile", 4: "locked", 5: "no-such-profile", 6: "no-key",
    7: "key-refused", 8: "still-rejected", 9: "unreachable", 10: "throttled", 11: "denied", 12: "deadline",
    13: "unsupported", 14: "misconfigured", 15: "origin-changed", 16: "source-unavailable",
    17: "life-too-short", 18: "busy", 19: "unknown-request", 20: "token-too-large", 21: "exists",
    22: "stopping", 23: "config",
}


class Failure(Exception):
    """What the agent answered instead, or why there is no answer."""

    def __init__(self, code, message):
        super().__init__(f"{code} {message}")


# What goes into a body.

def unsigned(value):
    if value <= 250:
        return bytes([value])
    if value <= 0xFFFF:
        return b"\xfb" + struct.pack("<H", value)
    if value <= 0xFFFFFFFF:
        return b"\xfc" + struct.pack("<I", value)
    return b"\xfd" + struct.pack("<Q", value)


def boolean(value):
    return b"\x01" if value else b"\x00"


def string(text):
    data = text.encode()
    return unsigned(len(data)) + data


def option(write, value):
    return b"\x00" if value is None else b"\x01" + write(value)


def selector(profile):
    return option(string, profile) + option(string, None)


class Body:
    """Reads the fields of a body in their order."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, length):
        if length > len(self.data) - self.at:
            raise Failure("failed", "the reply ends too early")
        self.at += length
        return self.data[self.at - length:self.at]

    def byte(self):
        return self.take(1)[0]

    def unsigned(self, width=8):
        first = self.byte()
        if first <= 250:
            return first
        length = {0xFB: 2, 0xFC: 4, 0xFD: 8}.get(first)
        if length is None or length > width:
            raise Failure("failed", "the reply holds no integer where one belongs")
        return int.from_bytes(self.take(length), "little")

    def u16(self):
        return self.unsigned(2)

    def u32(self):
        return self.unsigned(4)

    def signed(self):
        value = self.unsigned()
        return value // 2 if value % 2 == 0 else -(value + 1) // 2

    def boolean(self):
        value = self.byte()
        if value > 1:
            raise Failure("failed", "the reply holds neither yes nor no where one belongs")
        return value == 1

    def string(self):
        return self.take(self.unsigned()).decode()

    def option(self, read):
        return read() if self.boolean() else None

    def list(self, read):
        return [read() for _ in range(self.unsigned())]

    def end(self):
        if self.at != len(self.data):
            raise Failure("failed", "the reply holds more than it should")


# Frames.

def frame(kind, body):
    return struct.pack("<IH", len(body), kind) + body


def receive(connection, length):
    data = b""
    while len(data) < length:
        piece = connection.recv(length - len(data))
        if not piece:
            raise Failure("failed", "the agent closed the connection")
        data += piece
    return data


def receive_frame(connection):
    length, kind = struct.unpack("<IH", receive(connection, 6))
    if length > MAX_BODY_LEN:
        raise Failure("failed", "the reply is too long")
    return kind, receive(connection, length)


def ask(connection, request, answer, body):
    """Sends hello and a request without secrets in one write, and returns the body of the reply."""
    hello = frame(HELLO, MAGIC + struct.pack("<HHH", 1, 1, 1))
    try:
        connection.sendall(hello + frame(request, body))
    except BrokenPipeError:
        pass                     # turned away: the reason is there to be read
    kind, data = receive_frame(connection)
    if kind == FAILURE:
        raise read_failure(Body(data))
    if kind == VERSION_MISMATCH:
        raise Failure("failed", "the agent speaks versions %d to %d" % struct.unpack("<4xHH", data))
    if kind != WELCOME or data[:4] != MAGIC:
        raise Failure("failed", "this is no dph-agent")
    return receive_reply(connection, answer)


def request(connection, kind, answer, body):
    """Sends a request after the first one."""
    connection.sendall(frame(kind, body))
    return receive_reply(connection, answer)


def receive_reply(connection, answer):
    kind, data = receive_frame(connection)
    body = Body(data)
    if kind == FAILURE:
        raise read_failure(body)
    if kind != answer:
        raise Failure("failed", f"the agent answered with kind {kind:#06x}")
    return body


def read_failure(body):
    code, message = body.u16(), body.string()
    body.string()                # hint
    body.option(body.unsigned)   # retry_after_ms
    body.end()
    return Failure(CODES.get(code, code), message)


# Commands.

def ping(connection):
    body = ask(connection, PING, PONG, b"")
    body.string()                # version
    body.u32()                   # pid
    body.end()
    print("pong")


def token(connection, profile=None):
    deadline_ms = TIMEOUT_S * 1000 - 200
    fields = selector(profile) + option(unsigned, None) + boolean(False) + option(string, None)
    body = ask(connection, TOKEN, TOKEN_REPLY, fields + unsigned(deadline_ms))
    bearer = body.string()
    body.string()                # profile
    body.string()                # url
    body.option(body.string)     # username
    body.option(body.signed)     # expires_at
    body.option(body.unsigned)   # expires_in_ms
    body.option(body.string)     # ca_file
    body.option(body.u16)        # warning
    body.end()
    print(bearer)


def status(connection):
    more, after, send = True, "", ask
    while more:
        body = send(connection, STATUS, STATUSES, selector(None) + string(after))
        names, more = read_statuses(body)
        for after in names:
            print(after)
        more = more and names
        send = request


def read_statuses(body):
    body.string()                # version
    body.u32()                   # pid
    body.string()                # socket
    body.boolean()               # locked
    body.signed()                # started_at
    body.u16()                   # secret_memory
    body.u32()                   # profile_count
    body.option(body.string)     # config_error
    names = body.list(lambda: read_profile(body))
    more = body.boolean()
    body.end()
    return names, more


def read_profile(body):
    name = body.string()
    body.u16()                   # platform
    body.string()                # url
    body.option(body.string)     # username
    body.u16()                   # key_source
    body.u16()                   # key_state
    body.option(body.signed)     # key_added_at
    body.option(body.signed)     # key_expires_at
    body.u16()                   # token_state
    body.option(body.signed)     # usable_until
    body.option(body.signed)     # next_refresh_at
    body.unsigned()              # served
    body.unsigned()              # exchanges
    body.option(lambda: read_last_error(body))
    return name


def read_last_error(body):
    body.u16()                   # code
    body.string()                # message
    body.signed()                # since
    body.option(body.signed)     # next_try_at


def main(arguments):
    commands = {"token": token, "ping": ping, "status": status}
    if len(arguments) < 2 or arguments[1] not in commands:
        print(__doc__, file=sys.stderr)
        return 2
    path, command, *rest = arguments
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(path)
            commands[command](connection, *rest)
    except (Failure, UnicodeDecodeError, OSError) as error:
        print(error if isinstance(error, Failure) else f"failed {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
