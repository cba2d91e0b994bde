"""The stub driver's limits of capture, graphs, events and tensor maps."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import byref, c_float, c_void_p

from stub_calls import Stub, cubin
from stub_rows import CAPTURE_INVALIDATED, CAPTURE_UNSUPPORTED, CAPTURED_EVENT, HANDLE, OK, VALUE, Row

# --- capture, graphs and events ---------------------------------------------------------------------------------------


def during(call: Callable[[Stub], object], mode: int = 2) -> Callable[[Stub], list[object]]:
    """[what the call gives while the stream is captured, a launch after it, the end of the capture]."""

    def run(s: Stub) -> list[object]:
        s.function("plain")
        before = s.allocate()[1]
        event, old = s.event(), s.event()
        s.c.cuEventRecord(old, s.stream)
        s.capture(mode)
        s.held = (event, old, before)
        status = call(s)
        return [status, s.launch(), s.captured()[0]]

    return run


def record_and(then: str) -> Callable[[Stub], object]:
    def call(s: Stub) -> object:
        event, old, _ = s.held
        s.c.cuEventRecord(event, s.stream)
        if then == "cuEventElapsedTime":
            return s.c.cuEventElapsedTime_v2(byref(c_float()), old, event)
        return getattr(s.c, then)(event)

    return call


GUIDE = "guide 4.2, CUDA graphs, prohibited and unhandled operations"
MODES = "driver API: cuThreadExchangeStreamCaptureMode"
BROKEN = [CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, CAPTURE_INVALIDATED]
CAPTURE = [
    Row("waiting for the stream that is captured", GUIDE, during(Stub.synchronize), BROKEN),
    *[
        Row(
            f"{call} on an event of the capture",
            f"{GUIDE}; CUDA_ERROR_CAPTURED_EVENT",
            during(record_and(call)),
            [CAPTURED_EVENT, CAPTURE_INVALIDATED, CAPTURE_INVALIDATED],
        )
        for call in ("cuEventSynchronize", "cuEventQuery", "cuEventElapsedTime")
    ],
    Row("waiting for an event of before", GUIDE, during(lambda s: s.c.cuEventSynchronize(s.held[1])), [OK, OK, OK]),
    Row("allocating while capturing in relaxed mode", MODES, during(lambda s: s.allocate()[0]), [OK, OK, OK]),
    Row(
        "loading and freeing while capturing in relaxed mode",
        MODES,
        during(lambda s: [s.load(cubin(90))[0], s.free(s.held[2])]),
        [[OK, OK], OK, OK],
    ),
    Row("allocating while capturing in global mode", MODES, during(lambda s: s.allocate()[0], 0), BROKEN),
    Row("loading while capturing in the mode of a thread", MODES, during(lambda s: s.load(cubin(90))[0], 1), BROKEN),
    Row("a capture within a capture", "driver API: cuStreamBeginCapture", during(Stub.capture), [VALUE, OK, OK]),
    Row("the end of no capture", "driver API: cuStreamEndCapture", lambda s: [s.captured()[0]], [VALUE]),
    Row(
        "a launch that is captured is held against the limits at once",
        "driver API: cuLaunchKernelEx",
        during(lambda s: s.launch(block=(2048, 1, 1))),
        [VALUE, OK, OK],
    ),
    Row(
        "graphs that were destroyed",
        "driver API: cuGraphLaunch, cuGraphExecDestroy",
        lambda s: [
            s.c.cuGraphLaunch(g := s.graph(), s.stream),
            s.c.cuGraphExecDestroy(g),
            s.c.cuGraphLaunch(g, s.stream),
            s.c.cuGraphExecDestroy(g),
        ],
        [OK, OK, VALUE, VALUE],
    ),
    Row(
        "the time between events: both recorded, both timed",
        "driver API: cuEventElapsedTime",
        lambda s: [
            s.c.cuEventElapsedTime_v2(byref(c_float()), *between(s, *flags))
            for flags in ((0, 0, True), (0, 2, True), (0, 0, False))
        ],
        [OK, HANDLE, HANDLE],
    ),
    Row(
        "events that were destroyed",
        "driver API: CUDA_ERROR_INVALID_HANDLE",
        lambda s: [
            s.c.cuEventDestroy_v2(e := s.event()),
            s.c.cuEventRecord(e, s.stream),
            s.c.cuEventSynchronize(e),
            s.c.cuEventDestroy_v2(e),
        ],
        [OK, HANDLE, HANDLE, HANDLE],
    ),
]


def between(s: Stub, first: int, second: int, record: bool) -> tuple[c_void_p, c_void_p]:
    events = s.event(first), s.event(second)
    s.c.cuEventRecord(events[0], s.stream)
    if record:
        s.c.cuEventRecord(events[1], s.stream)
    return events


# --- tensor maps -----------------------------------------------------------------------------------------------------

TILED = "driver API: cuTensorMapEncodeTiled"
TENSOR_MAPS = [
    Row("from 9.0 on", TILED, lambda s: [s.encode()], [VALUE], 89),
    Row(
        "aligned: the map to 64 bytes, the tensor to 16",
        TILED,
        lambda s: [s.encode(), s.encode(at=32), s.encode(address=8)],
        [OK, VALUE, VALUE],
    ),
    Row(
        "rank 1 to 5; sizes 1 to 2^32",
        TILED,
        lambda s: (
            [s.encode(rank=n) for n in (0, 6)] + [s.encode(dims=d) for d in ((2**32, 64), (2**32 + 1, 64), (0, 64))]
        ),
        [VALUE, VALUE, OK, VALUE, VALUE],
    ),
    Row(
        "strides: multiples of 16 bytes below 2^40",
        TILED,
        lambda s: [s.encode(strides=(n,)) for n in (2**40 - 16, 2**40, 264)],
        [OK, VALUE, VALUE],
    ),
    Row(
        "box: 1 to 256 elements, the innermost a multiple of 16 bytes and within the swizzle",
        TILED,
        lambda s: [
            s.encode(box=b, swizzle=w)
            for b, w in (
                ((32, 256), 3),
                ((32, 257), 3),
                ((32, 0), 3),
                ((6, 8), 0),
                ((64, 8), 3),
                ((64, 8), 0),
                ((16, 8), 1),
            )
        ],
        [OK, VALUE, VALUE, VALUE, VALUE, OK, VALUE],
    ),
    Row("element strides: 1 to 8", TILED, lambda s: [s.encode(steps=(1, n)) for n in (8, 9, 0)], [OK, VALUE, VALUE]),
]
