"""Commands a server as EvoStream's public clients do: PHP's over HTTP, Ruby's and Python's by JSON.

Arguments: addresses of the HTTP and of the JSON command line.
"""

import base64
import json
import socket
import struct
import sys


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def by_php(at, command, params):
    """As evoapi-core.php: base64 goes into the query as it is, and all is read that comes."""
    query = base64.b64encode(params.encode()).decode()
    request = f"GET /{command}?params={query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with socket.create_connection(at, timeout=60) as peer:
        peer.sendall(request.encode())
        reply = b"".join(iter(lambda: peer.recv(65536), b""))
    head, body = reply.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200"), head
    return query, json.loads(body)


class Framed:
    """As the clients of the JSON command line: four bytes of length, then as many of JSON."""

    def __init__(self, at):
        self.peer = socket.create_connection(at, timeout=60)

    def read(self, length):
        data = b""
        while len(data) < length:
            more = self.peer.recv(length - len(data))
            assert more, "the server hung up"
            data += more
        return data

    def send(self, *lines):
        self.peer.sendall("".join(line + "\n" for line in lines).encode())

    def reply(self):
        (length,) = struct.unpack(">I", self.read(4))
        return json.loads(self.read(length))

    def ask(self, line):
        self.send(line)
        return self.reply()


def main():
    http, framed = address(sys.argv[1]), Framed(address(sys.argv[2]))

    # What base64 makes of this has each of its odd characters, which PHP's client does not escape.
    query, made = by_php(
        http, "record", "localStreamName=php pathToFile=php type=ts keepAlive=1 _a=>>>>> _b=????? _c=x"
    )
    assert all(odd in query for odd in "+/="), query
    assert made["status"] == "SUCCESS" and made["description"] == "Recording Stream", made
    assert (made["data"]["_a"], made["data"]["_b"]) == (">>>>>", "?????"), made
    config_id = made["data"]["configId"]

    listed = framed.ask("listConfig")
    assert [one["configId"] for one in listed["data"]["record"]] == [config_id], listed

    # removeConfig() of that client, with and without a group.
    _, gone = by_php(http, "removeConfig", f"id={config_id} HlsHdsGroup= removeHLSFiles=0")
    assert gone["status"] == "SUCCESS" and gone["description"] == "Configuration terminated", gone
    _, again = by_php(http, "removeConfig", f"id={config_id} HlsHdsGroup=group removeHLSFiles=1")
    assert again["status"] == "FAIL" and again["description"] == "Config ID not found", again
    _, version = by_php(http, "version", "")
    assert version["status"] == "SUCCESS", version

    # One after the other on one connection, and many at once.
    made = framed.ask("record localStreamName=py pathToFile=py type=flv keepAlive=0")
    assert made["status"] == "SUCCESS", made
    framed.send(f"removeConfig id={made['data']['configId']}", "foobar", "getStreamsCount", "quit")
    statuses = [framed.reply()["status"] for _ in range(4)]
    assert statuses == ["SUCCESS", "FAIL", "SUCCESS", "SUCCESS"], statuses
    print("done")


main()
