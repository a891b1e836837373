"""Error objects of docs/protocol.md section 8, from exceptions."""
import json
import os
import traceback

_OWN_DIR = os.path.dirname(os.path.abspath(__file__))
_OWN_FILES = (_OWN_DIR + os.sep, os.path.join(os.path.dirname(_OWN_DIR), "bootstrap.py"))
_IMPORT_FILES = ("<frozen importlib", "<frozen runpy", os.path.dirname(os.__file__) + "/importlib/")


class LoadError(Exception):
    """The function cannot be loaded; `error_type` is one of AWS's names for that, `stack` the user's own frames."""

    def __init__(self, error_type, message, stack=()):
        super().__init__(message)
        self.error_type = error_type
        self.stack = list(stack)


def user_stack(exception):
    """The frames that belong to the user's code and its libraries, formatted; ours and the import system's are left out."""
    frames = [
        entry
        for entry in traceback.extract_tb(exception.__traceback__)
        if not entry.filename.startswith(_OWN_FILES) and not entry.filename.startswith(_IMPORT_FILES)
    ]
    return traceback.format_list(frames)


def describe(exception):
    """The error object for whatever a handler raised, as bytes of JSON."""
    if isinstance(exception, LoadError):
        return encode(str(exception), exception.error_type, exception.stack)
    try:
        message = str(exception)
    except Exception as broken:  # a user's __str__ may raise
        message = f"<the message of this {type(exception).__name__} cannot be shown: {type(broken).__name__}>"
    return encode(message, type(exception).__name__, user_stack(exception))


def encode(message, error_type, stack=()):
    """The error object as bytes; a lone surrogate in a message must not fail the report of an error."""
    value = {"errorMessage": message, "errorType": error_type, "stackTrace": list(stack)}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
