"""What a handler is given and what its result becomes: JSON in, bytes out, with as little as possible between.

`json.loads` and `json.dumps` cost about 1.2 us each for a small object, mostly Python code around the C scanner
and encoder; calling those directly costs 0.2-0.4 us. Whatever they cannot do goes to the library's own way.
"""
import json
import json.decoder
import json.encoder
import sys

try:
    _scan = json.decoder.JSONDecoder().scan_once
except AttributeError:  # another Python: the slow way is right too
    _scan = None


def decode_event(body):
    """The event from its JSON. Raises ValueError."""
    text = str(body, "utf-8")
    if _scan is not None:
        try:
            event, end = _scan(text, 0)
            if end == len(text):
                return event
        except StopIteration:  # white space in front, or no JSON at all
            pass
    return json.loads(text)


def _default(value):
    # boto3 hands out Decimal; it is only imported where somebody uses it.
    decimal = sys.modules.get("decimal")
    if decimal is not None and isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError(f"an object of type {type(value).__name__} is not JSON serializable")


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_default)
_encode_slowly = _encoder.encode
try:
    # No table of open containers: it would be shared by threads. A cycle ends as RecursionError.
    _encode = json.encoder.c_make_encoder(
        None, _default, json.encoder.encode_basestring, None, ":", ",", False, False, True
    )
except TypeError:  # no C encoder, or one with another signature
    _encode = None


def encode_result(result):
    """The bytes that a caller gets: text and bytes as they are, everything else as compact JSON.

    Raises TypeError, ValueError or RecursionError for what JSON cannot say.
    """
    if isinstance(result, str):
        return result.encode()
    if isinstance(result, (bytes, bytearray, memoryview)):
        return bytes(result)
    if _encode is None:
        return _encode_slowly(result).encode()
    return "".join(_encode(result, 0)).encode()
