"""The smallest runtime that speaks the frame protocol: what an invoke's body says is executed as Python."""
import json, os, socket, struct, sys

channel = socket.socket(fileno=3)
header = struct.Struct("<4sHHQQIII28x")


def send(kind, invocation=0, meta=b"", body=b""):
    channel.sendall(header.pack(b"FAS\x01", kind, 0, invocation, 0, len(meta), len(body), 0) + meta + body)


def take(count):
    data = b""
    while len(data) < count:
        chunk = channel.recv(count - len(data))
        if not chunk:
            sys.exit(0)
        data += chunk
    return data


if "BREAK" in os.environ:
    print("broken on purpose", flush=True)
    sys.exit(3)
send(1, meta=b'{"protocol":1,"runtime":"test","features":[]}')
scope = {}
while True:
    _, kind, _, invocation, _, meta_length, body_length, _ = header.unpack(take(64))
    meta, body = take(meta_length), take(body_length)
    if kind == 2:
        os.chdir("/var/task")
        scope["load"] = json.loads(meta)
        send(3)
    elif kind == 4:
        try:
            scope["result"] = None
            exec(compile(body, "event", "exec"), scope)
            send(6, invocation, body=json.dumps(scope["result"]).encode())
        except Exception as error:
            send(9, invocation, body=json.dumps({"errorMessage": repr(error)}).encode())
