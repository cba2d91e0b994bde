"""Calls that were not inlined, in the machine: CUDA's own functions, and pointers to no function."""

from __future__ import annotations

from core.sim.native.forms import slots
from core.sim.native.translation import FormFamily, Translation
from core.sim.ptx.program import CALL_ITSELF, CALL_NOWHERE, call_parameters
from core.sim.ptx.syntax import Instruction, Symbol

FAMILY = FormFamily()


@FAMILY.form("call")
def _call(draft: Translation, ins: Instruction) -> None:
    """A call that was not inlined: of __assertfail(text, file, line, function, size) or vprintf(format, buffer), or
    through a pointer to nothing, or of a function that is under way."""
    if ins.names == CALL_NOWHERE:
        draft.emit("call.nowhere", [draft.source(ins.operands[0], "b64")])
        return
    if ins.names == CALL_ITSELF:
        draft.emit("call.itself", [])
        return
    results, arguments = call_parameters(ins)
    if ins.names == ("call", "vprintf") and len(arguments) == 2:
        count = draft.fresh()
        draft.emit("call.vprintf", [count, *(_argument(draft, name, 8) for name in arguments)])
        for name in results:
            number, _ = draft.row("st.local.b32", lambda row: row.endswith("[b64]"))
            record = draft.put(number, "b [b64]", [count, draft.address_of(Symbol(name), 0, 64)])
            slots(draft, record, [count], record.reads)
        return
    if ins.names != ("call", "__assertfail") or len(arguments) != 5:
        raise draft.missing()
    text, file, line, function = (
        _argument(draft, name, size) for name, size in zip(arguments, (8, 8, 4, 8), strict=False)
    )
    draft.emit("call.assertfail", [text, file, function, line])


def _argument(draft: Translation, name: str, size: int) -> int:
    """A register with a .param variable, which is local memory."""
    number, _ = draft.row(f"ld.local.b{8 * size}", lambda row: row.endswith("[b64]"))
    made = draft.fresh(size == 8)
    record = draft.put(number, "=b [b64]", [made, draft.address_of(Symbol(name), 0, 64)])
    slots(draft, record, [made], record.writes)
    return made
