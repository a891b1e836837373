"""The bare Python baseline, for uvicorn with uvloop and httptools: parses the JSON body, says hello."""

import json

START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"12")],
}
BODY = {"type": "http.response.body", "body": b"Hello world!"}


async def app(scope, receive, send):
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    json.loads(body)
    await send(START)
    await send(BODY)
