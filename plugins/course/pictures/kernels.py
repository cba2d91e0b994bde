"""Pictures of kernels, from the simulator's own addresses."""

from __future__ import annotations

import re

import numpy as np

import core.sim

from .drawing import EDGE, WIDTH, Canvas
from .source import accesses, page

SECTOR, BANKS = 32, 32


def coalescing() -> str:
    """Lesson 9's loads: lanes above, the sectors that each load moves below, for three strides."""
    source = page("09_first_kernels", 'read = """')["read"]
    loads = {}
    for stride in (1, 2, 64):
        y, x = np.zeros(32, np.float32), np.zeros(32 * stride, np.float32)
        (loads[stride],) = accesses(source, "read", 1, 32, [y, x, np.int32(stride)], buffer="x", how="read")
    counts = {stride: load.sectors for stride, load in loads.items()}
    c = Canvas(
        "Sectors that a warp's load moves",
        "Three loads of a warp of 32 lanes, 4 bytes each. "
        + " ".join(
            f"Stride {s}: {n} sectors of 32 bytes move, {12800 / (n * SECTOR):.3g}% of them used."
            for s, n in counts.items()
        )
        + " Lines join each lane with its element.",
        486,
    )
    c.headline(
        "The same 128 bytes, in 4, 8 or 32 sectors",
        "Lanes of a warp above; below, the sectors that one load moves, with the bytes in use filled.",
    )
    for place, (stride, load) in enumerate(loads.items()):
        names = {1: "neighbours: x[lane]", 2: "every second: x[2 · lane]"}
        notes = {1: "8 floats a sector", 64: "256 bytes from one to the next"}
        name = names.get(stride, f"a row apart: x[{stride} · lane]")
        one_load(c, 80 + 134 * place, name, [at - load.start for at in load.places], notes.get(stride, ""))
    return c.svg()


def one_load(c: Canvas, top: float, name: str, places: list[int], note: str) -> None:
    """A warp's lanes, and the sectors of their bytes in the order of addresses."""
    lane_y, sector_y, pitch = top + 12, top + 78, (WIDTH - 2 * EDGE) / 32
    touched = sorted({place // SECTOR for place in places})
    share = f", {12800 / (len(touched) * SECTOR):.3g}% of them used"
    c.text(EDGE, top, name, size=13, bold=True)
    c.text(WIDTH - EDGE, top, [(f"{len(touched)} sectors", "orange"), (share, "dim")], anchor="end")
    side = min(pitch * 4, (WIDTH - 2 * EDGE) / len(touched))
    first = EDGE + (WIDTH - 2 * EDGE - side * len(touched)) / 2
    left = {sector: first + side * i for i, sector in enumerate(touched)}
    for x in left.values():
        c.box(x, sector_y, side - 2, 18, "orange-soft", "orange", r=2, width=0.8)
    wide = max((side - 2) * 4 / SECTOR - 0.8, 1.6)
    for lane, place in enumerate(places):
        word = left[place // SECTOR] + (side - 2) * (place % SECTOR) / SECTOR + 0.4
        c.box(word, sector_y + 2, wide, 14, "orange", r=0)
        x = EDGE + pitch * (lane + 0.5)
        c.line([(x, lane_y + 16), (word + wide / 2, sector_y - 1)], "blue", width=0.9, opacity=0.7)
        c.box(EDGE + pitch * lane + 1, lane_y, pitch - 2, 16, "blue-soft", r=3)
        c.text(x, lane_y + 12, str(lane), size=9.5, anchor="middle")
    if note:
        c.text(first, sector_y + 33, note, size=11.5, fill="dim")


def banks() -> str:
    """Lesson 10's column of a tile: the bank of each lane's word, for three lengths of a row."""
    source = page("10_together", "column = ")["column"]
    stacks, passes = {}, {}
    for pitch in (32, 34, 33):
        loads = accesses(
            source.replace("PITCH", str(pitch)), "column", 1, 32, [np.zeros(32, np.float32)], buffer="tile", how="read"
        )
        stacks[pitch] = [place // 4 % BANKS for place in loads[0].places]
        passes[pitch] = loads[0].passes + 1
    c = Canvas(
        "Banks of a column of a tile",
        "32 banks as columns; each lane's word is a box in its bank, and boxes above each other wait. "
        + " ".join(f"Rows of {p} words: {n} pass{'es' if n > 1 else ''}." for p, n in passes.items()),
        526,
    )
    c.headline(
        "One word more in each row, and no lane waits",
        "32 lanes read a column of a tile. Each box is a lane, in the bank of its word; a bank serves one in a pass.",
    )
    for pitch, y in {32: 292, 34: 388, 33: 472}.items():
        one_column(c, y, stacks[pitch], pitch, passes[pitch])
    c.text(WIDTH / 2, 504, "bank of shared memory", size=11.5, fill="dim", anchor="middle")
    return c.svg()


def one_column(c: Canvas, y: float, lanes: list[int], pitch: int, passes: int) -> None:
    """The banks on a base line at y. lanes: the bank of each lane's word; pitch: words of a row."""
    wide, tower, colour = (WIDTH - 2 * EDGE) / BANKS, passes > 2, {1: "green", 2: "orange"}.get(passes, "red")
    high, level = 6 if tower else 14, [0] * BANKS
    c.line([(EDGE, y + 1), (WIDTH - EDGE, y + 1)], "dim", width=1)
    for lane, bank in enumerate(lanes):
        x, up = EDGE + wide * bank, y - high * (level[bank] + 1)
        c.box(x + 1, up, wide - 2, high - 1, f"{colour}-soft", colour, r=2, width=0.8)
        if not tower:
            c.text(x + wide / 2, up + 10, str(lane), size=9.5, anchor="middle")
        elif lane in (0, 31):
            c.text(x + wide + 4, up + 7, f"lane {lane}", size=10.5, fill="dim")
        level[bank] += 1
    words = [(f"rows of {pitch} words: ", "ink"), (f"{passes} pass{'es' if passes > 1 else ''}", colour)]
    step = pitch % BANKS
    rest = f" = ({step if step > 1 else ''} l + 3) % 32".replace("( l", "(l") if step else " = 3, for every lane"
    formula = f"bank of lane l: ({pitch} l + 3) % 32{rest}"
    if tower:  # beside it
        c.text(EDGE + 7 * wide, y - 116, words, size=14, bold=True)
        c.text(EDGE + 7 * wide, y - 96, formula, size=12, fill="dim")
    else:
        c.text(EDGE, y - 14 * passes - 12, words, size=14, bold=True)
        c.text(WIDTH - EDGE, y - 14 * passes - 12, formula, size=12, fill="dim", anchor="end")
    for bank in range(BANKS):
        c.text(EDGE + wide * (bank + 0.5), y + 14, str(bank), size=9.5, fill="dim", anchor="middle")


def race() -> str:
    """Lesson 10's race as a time line: the two accesses of the report, and the wait that is missing."""
    space = page("10_together", "racy = ")
    try:
        core.sim.run(space["racy"], "tree", 1, 64, [space["y"], space["x"]], strict=True)
    except core.sim.KernelError as error:
        write, read, message = error.accesses[0], error.accesses[-1], error.message
    w, r = write.thread, read.thread
    element = re.findall(r"part\[(\d+)\]", message)[0]
    half = int(element) - r  # of the turn that reads: thread r adds part[r + half]
    c = Canvas(
        "A race: two threads, one element, no wait",
        f"Two time lines. In the turn half = {2 * half}, thread {w} writes part[{element}]. In the turn half = {half}, "
        f"thread {r} reads part[{element}]. Without a barrier between the turns, thread {w} may be late: then thread "
        f"{r} reads the old number. A dashed line marks the place of the barrier.",
        348,
    )
    c.headline(
        "Nothing orders the write before the read",
        f"The two accesses of the report. Thread {w} may also come late, and then thread {r} adds an old number.",
    )
    time_lines(c, w, r, half)
    return c.svg()


def time_lines(c: Canvas, w: int, r: int, half: int) -> None:
    """Threads w and r over time: a box for each access, and the element between them."""
    upper, lower, wait = 112, 250, 366
    element = f"part[{r + half}]"
    for name, y in ((f"thread {w}", upper), (f"thread {r}", lower)):
        c.text(EDGE, y + 5, name, size=14, bold=True)
        c.line([(112, y), (WIDTH - EDGE, y)], "dim", width=1, arrow=True)
    c.text(WIDTH - EDGE, lower + 44, "time", size=11.5, fill="dim", anchor="end")
    accesses = [
        (150, upper, "red-soft", "red", f"part[{w}] += part[{w + 2 * half}]", [("writes ", "dim"), (element, "red")]),
        (124, lower, "plain", "dim", f"part[{r}] += part[{r + 2 * half}]", [("other elements", "dim")]),
        (400, lower, "blue-soft", "blue", f"part[{r}] += {element}", [("reads ", "dim"), (element, "blue")]),
    ]
    for x, y, fill, stroke, code, words in accesses:
        c.box(x, y - 25, 190, 50, fill, stroke, r=6, width=1.4)
        c.text(x + 95, y - 5, code, size=12.5, anchor="middle", mono=True)
        c.text(x + 95, y + 14, words, size=11.5, anchor="middle")
    c.box(486, upper - 25, 180, 50, "paper", "red", r=6, dash=True)
    c.text(576, upper - 3, "or as late as here:", size=11.5, fill="dim", anchor="middle")
    c.text(576, upper + 14, "this thread waits for no other", size=11.5, fill="dim", anchor="middle")
    for y0, y1 in ((84, 158), (196, 304)):
        c.line([(wait, y0), (wait, y1)], "green", width=2.4, dash=True)
    c.box(330, 162, 74, 30, "orange-soft", "orange", r=4, width=1.4)
    c.text(367, 182, element, size=12.5, anchor="middle", mono=True)
    c.line([(270, upper + 27), (270, 177), (328, 177)], "red", width=2, arrow=True)
    c.line([(406, 177), (470, 177), (470, lower - 28)], "blue", width=2, arrow=True)
    c.line([(560, upper + 27), (560, 162), (418, 162)], "red", width=1.3, dash=True)
    c.line([(418, 162), (408, 168)], "red", width=1.3, arrow=True)
    c.text(
        wait, 322, [("__syncthreads()", "green"), (" belongs here, after each turn", "dim")], size=12.5, anchor="middle"
    )
    for x, turn in ((219, 2 * half), (495, half)):
        c.text(x, lower + 44, f"turn half = {turn}", size=11.5, fill="dim", anchor="middle")
