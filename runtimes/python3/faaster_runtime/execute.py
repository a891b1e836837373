"""Runs a handler for one invocation and posts its answer. One function for each kind of instance, made once.

Must not know: which thread it runs in, when frames are written.
"""
import asyncio
import inspect
import types

from . import failure, logs
from .frames import ERROR, FRAME_HEADER, RESPONSE, RESULT_BYTES_MAX, RESULT_FRAME_BYTES_MAX, cancelled_frame, frame
from .result import decode_event, encode_result


# Results that need not be looked at more closely.
PLAIN = frozenset((str, dict, list, bytes, int, float, bool, type(None)))


def _too_large():
    text = f"Response payload size exceeded maximum allowed payload size ({RESULT_BYTES_MAX} bytes)."
    return failure.encode(text, "Function.ResponseSizeTooLarge")


def make_post(channel, finish_lines):
    """post(call, result) and post.error(call, body): put the answer into channel.out.

    Under a lock with log frames: a thread that the handler has left behind may print at this very moment, and
    a log frame after the answer would be one of an invocation that is not in flight.
    """
    out, closing = channel.out, channel.closing

    def post(call, result):
        try:
            body = encode_result(result)
        except (TypeError, ValueError, RecursionError) as cause:
            post_error(call, failure.encode(f"the result cannot be sent: {cause}", "Runtime.MarshalError"))
            return
        size = len(body)
        if size > RESULT_BYTES_MAX:
            post_error(call, _too_large())
            return
        with closing:
            call._open = False
            if call._lines is not None:
                finish_lines(call)
            if call._cancelled:
                out.append(cancelled_frame(call._id))
            elif size <= RESULT_FRAME_BYTES_MAX:
                out.append(FRAME_HEADER(RESPONSE, call._id, 0, size) + body)
            else:
                channel.answer_large(call._id, body)

    def post_error(call, body):
        with closing:
            call._open = False
            if call._lines is not None:
                finish_lines(call)
            out.append(cancelled_frame(call._id) if call._cancelled else frame(ERROR, call._id, body))

    post.error = post_error
    return post


def make_execute(handler, post):
    """execute(call): for a plain `def` handler. SystemExit passes through; everything else becomes the answer."""
    set_current = logs.CURRENT.set
    post_error = post.error

    def execute(call):
        if call._cancelled:
            post_error(call, b"")
            return
        try:
            event = decode_event(call._body)
        except (ValueError, RecursionError) as cause:
            post_error(call, _unmarshal_error_body(cause))
            return
        call._body = None
        set_current(call)
        try:
            result = handler(event, call)
            if type(result) not in PLAIN and inspect.isawaitable(result):
                result = asyncio.run(_await(result))
        except SystemExit:
            raise
        except BaseException as error:
            post_error(call, failure.describe(error))
            return
        post(call, result)

    return execute


def make_execute_async(handler, post, answered):
    """The same as a coroutine function, for an `async def` handler; `answered(call)` comes last."""
    post_error = post.error

    async def execute(call):
        try:
            event = decode_event(call._body)
        except (ValueError, RecursionError) as cause:
            post_error(call, _unmarshal_error_body(cause))
            return
        call._body = None
        try:
            result = await handler(event, call)
        except SystemExit:
            raise
        except BaseException as error:  # a cancelled task's too: post_error knows
            post_error(call, failure.describe(error))
        else:
            post(call, result)
        answered(call)

    return execute


def _unmarshal_error_body(cause):
    return failure.encode(f"the event is not valid JSON: {cause}", "Runtime.UnmarshalError")


async def _await(awaitable):
    return await awaitable


def is_async(handler):
    """Whether calling it gives a coroutine: an `async def`, or an object whose __call__ is one."""
    # `inspect` asks functions more than that: whether somebody has marked them (3.12), or wrapped them.
    if type(handler) is types.FunctionType and not handler.__dict__:
        return handler.__code__.co_flags & inspect.CO_COROUTINE != 0
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))
