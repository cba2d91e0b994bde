"""Work of the host between launches: in order, outside of graphs, on the cuda device with a stub for its driver."""

from __future__ import annotations

import sys

import pytest
import stub as stub_driver

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the stub is a libcuda.so.1"),
    pytest.mark.skipif(stub_driver.COMPILER is None, reason="no C compiler to build the stub with"),
]
BETWEEN = """
class Between(Variant):
    op, name, source = "between", "mine", ()
    def forward(self, t, launch):
        def work(x):
            seen_by_host.append([x.tolist(), stub.stub_launches()])
            return [x + 1, x * 2]
        launch.on_host(work, [t.x], [t.x, t.y])

device = CudaDevice()
x, y = tensor(device, (4,)), tensor(device, (4,), "bf16")
device.upload(x, np.arange(4))
seen_by_host = []
t = Tensors(x=x, y=y)
one = lambda: device.record(scale(FOLDER), "forward", Tensors(y=x, x=x), None, None)
launches = lambda n: [command for _ in range(n) for command in one()]
"""


def test_a_list_with_work_of_the_host_is_replayed_as_graphs_around_it(host):
    graphs, seen, left = host(
        BETWEEN
        + """
commands = device.captured(launches(2) + device.record(Between(), "forward", t, None, None) + launches(1))
device.prepare(commands)
for _ in range(2):
    device.run(commands)
out([stub.stub_graphs(), seen_by_host, [device.download(x).tolist(), device.download(y).tolist()]])
"""
    )
    assert graphs == 2  # one before, one behind
    assert seen == [[[0, 1, 2, 3], 2], [[1, 2, 3, 4], 5]]  # behind two launches, and then behind five
    assert left == [[2, 3, 4, 5], [2, 4, 6, 8]]


def test_without_graphs_it_has_its_place_in_the_list(host):
    graphs, seen, _ = host(
        BETWEEN
        + """
commands = launches(1) + device.record(Between(), "forward", t, None, None) + launches(1)
device.run(commands)
device.run(commands)
out([stub.stub_graphs(), [count for _, count in seen_by_host], 0])
"""
    )
    assert (graphs, seen) == (0, [1, 3])


def test_a_planned_device_ignores_it_and_the_recorder_refuses_what_is_no_tensor(host):
    kept, refused = host(
        BETWEEN
        + """
planned = device.unbacked()
commands = planned.record(Between(), "forward", t, None, None) + planned.record(
    scale(FOLDER), "forward", Tensors(y=x, x=x), None, None)
planned.run(commands)
planned.prepare(commands)
refused = failing(lambda: device.record(Between(), "forward", Tensors(x=x, y=3), None, None))
out([len(planned.records), refused])
"""
    )
    assert kept == 1 and refused[0] == "BuildError" and "between.mine forward" in refused[2]


SIDE = """
CALLBACK = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_int))
seen = []
callback = CALLBACK(lambda number: seen.append([number[0], stub.stub_launches()]))
stub.stub_enqueue.argtypes = [ctypes.c_void_p, CALLBACK, ctypes.POINTER(ctypes.c_int), ctypes.c_size_t]
streams = []

class Called(Variant):
    op, name, source, library = "called", "mine", (), "a library"
    def forward(self, t, launch):
        def prepare(address):
            def start(stream):
                streams.append(stream)
                stub.stub_enqueue(stream, callback, ctypes.byref(ctypes.c_int(t.number)), 4)
            return start
        launch.call(prepare, t.x)

def called(number):
    return device.record(Called(), "forward", Tensors(x=x, number=number), None, None)

device = CudaDevice()
x = tensor(device, (32,))
one = lambda: device.record(scale(FOLDER), "forward", Tensors(y=x, x=x), None, None)
first, second, join = device.beside([called(1), called(2)])
"""


@pytest.mark.parametrize(
    ("order", "expected"),
    [("", [[1, 1], [2, 2]]), ("early", [[1, 1], [2, 2]]), ("late", [[1, 3], [2, 3]])],
)
@pytest.mark.parametrize("capture", [True, False])
def test_calls_beside_the_step_begin_behind_their_start_and_end_before_the_join(host, capture, order, expected):
    seen, sides, mixed = host(
        SIDE
        + f"""
commands = [*one(), *first, *one(), *second, *one(), *join, *one()]
commands = device.captured(commands) if {capture} else commands
device.run(commands)
device.download(x)
out([seen, len(set(streams) - {{int(device._stream)}}), len(device.beside([one()]))])
""",
        **({"STUB_ORDER": order} if order else {}),
    )
    assert seen == (expected if capture else [[1, 1], [2, 2]])
    assert sides == 1 and mixed == 0, "kernels of our own do not go there"


def test_a_capture_that_does_not_join_is_refused_by_the_driver(host):
    refused = host(SIDE + "out(failing(lambda: device.run(device.captured([*one(), *first, *one()]))))")
    assert "UNJOINED" in refused[2]
