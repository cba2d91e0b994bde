"""`core ops`: every op with its variants; one op in full; and why each variant can run or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from core.cli.kernel_runs import status_line
from core.cli.show import emit_json, json_option, plugin_option
from core.errors import BuildError, CoreError
from core.loader import load_registry
from core.op import Op, Param, Reference, Slot, Variant, make_tensors
from core.ranks.group import ALONE
from core.registry import Registry, place_of_class, shorten
from core.registry.inherited import written_class
from core.words import table

if TYPE_CHECKING:
    from core.plan.choose import Chooser

UNCOMPILED = "not_compiled"  # in place of kernels


@click.command("ops")
@click.argument("op", required=False)
@click.option(
    "--why", is_flag=True, help="For each variant: whether it can run the op's examples, or the reason why not."
)
@click.option("--device", metavar="NAME", help="Only variants that run on this device.")
@plugin_option
@json_option
def command(op: str | None, why: bool, device: str | None, plugin: tuple[str, ...], as_json: bool) -> None:
    """List ops and their variants; with OP, its schema and its variants' declarations."""
    registry = load_registry(plugin)
    kinds = [registry.device(device)] if device else list(registry.devices.values())
    devices = tuple(dict.fromkeys(kind.runs for kind in kinds))
    names = [registry.op(op).name] if op else list(registry.ops)
    if why:
        verdicts = [v for name in names for d in devices for v in reasons(registry, registry.op(name), d)]
        emit_json(verdicts) if as_json else click.echo(why_table(verdicts))
    elif op:
        with status_line(f"compiling the kernels of {op}"):
            shown = [op_data(registry, op, devices, kernels=True)] if as_json else detail(registry, op, devices)
        emit_json(shown) if as_json else click.echo(shown)
    elif as_json:
        emit_json([op_data(registry, name, devices, kernels=False) for name in names])
    else:
        click.echo(listing(registry, devices))


def of_device(registry: Registry, op: str, device: str) -> list[Variant]:
    """A device's variants, the best first."""
    variants = [v for v in registry.variants[op].values() if v.device == device]
    return sorted(variants, key=lambda v: (-v.priority, v.name))


def listing(registry: Registry, devices: tuple[str, ...]) -> str:
    rows = []
    for name, op in sorted(registry.ops.items()):
        variants = [" ".join(v.name for v in of_device(registry, name, d)) or "-" for d in devices]
        rows.append((name, *variants, op.origin, op.replaces and f"replaces {op.replaces}"))
    return "\n".join(table(("OP", *(d.upper() for d in devices), "ORIGIN", ""), rows))


# --- one op -----------------------------------------------------------------------------------------------------


def detail(registry: Registry, name: str, devices: tuple[str, ...]) -> str:
    """The schema and the variants, for reading."""
    op = registry.op(name)
    lines = [f"{name}  ({op.origin}, {shorten(op.where)})"]
    lines += [f"  {line}" for line in op.doc.splitlines()]
    rows: list[tuple[str, str, str]] = []
    for kind, slots in (("input", op.inputs), ("output", op.outputs), ("state", op.state)):
        rows += [(kind, slot.name, _slot_words(slot)) for slot in slots.values()]
    rows += [("param", param, _param_words(declared)) for param, declared in op.params.items()]
    rows += [("attr", attr, _attr_words(default)) for attr, default in op.attrs.items()]
    rows += [(key, "", text) for key, text in _traits(op)]
    lines += ["", *table(None, rows), ""]
    for device in devices:
        for variant in of_device(registry, name, device):
            lines += _variant_lines(variant)
            if variant.sources:
                lines += _kernel_lines(registry, op, variant)
    return "\n".join(lines)


def _slot_words(slot: Slot) -> str:
    return f"{slot.pattern.text}{'   optional' if slot.optional else ''}"


def _param_words(param: Param) -> str:
    words = [param.shape, f"init {param.init}", "decays" if param.decay else "no decay"]
    return "   ".join(words + ["optional"] * param.optional)


def _attr_words(default: Any) -> str:
    if isinstance(default, type):
        return f"{default.__name__}, required"
    if isinstance(default, tuple):
        return f"one of {', '.join(default)}"
    return f"{default}" if not isinstance(default, bool) else str(default).lower()


def _traits(op: Op) -> Iterator[tuple[str, str]]:
    if op.replaces:
        yield "replaces", op.replaces
    if op.uses:
        yield "uses", ", ".join(op.uses)
    if op.mutates:
        yield "mutates", ", ".join(op.mutates)
    if op.commutes:
        yield "commutes", ", ".join(list(op.inputs)[:2])
    if not op.gradient:
        yield "gradient", "none"


def _variant_lines(variant: Variant) -> list[str]:
    cls = written_class(variant)
    facts = [f"{key} {_joined(value)}" for key, value in declared(variant).items() if value]
    lines = [f"{variant.op}.{variant.name}  {variant.device}  {' '.join(variant.dtypes)}  priority {variant.priority}"]
    lines += [f"    {first}" for first in (variant.__doc__ or "").strip().splitlines()[:1] if cls.__doc__]
    lines += [f"    {' · '.join(facts)}"] if facts else []
    lines += [f"    {place_of_class(cls)} ({variant.origin})"]
    return lines


def _kernel_lines(registry: Registry, op: Op, variant: Variant) -> Iterator[str]:
    """The compiler's report on each kernel, or the reason why there is none."""
    kernels = _kernel_data(registry, op, variant)
    if problem := kernels.pop(UNCOMPILED, None):
        yield f"    not compiled: {problem.splitlines()[0]}"
    for name, used in kernels.items():
        spills = f", spills {used['spills']} B a thread" if used["spills"] else ""
        yield f"    {name}: {used['registers']} registers, {used['shared']:,} B shared{spills}  ({used['arch']})"


def _kernel_data(registry: Registry, op: Op, variant: Variant) -> dict[str, Any]:
    """The JSON twin of `_kernel_lines`."""
    from core.testing.check import kernels_of

    try:
        arch, kernels = kernels_of(op, variant, registry)
    except CoreError as error:
        return {UNCOMPILED: error.message}
    return {name: {"arch": arch, **asdict(used)} for name, used in kernels.items()}


def declared(variant: Variant) -> dict[str, Any]:
    """A variant's declarations, without its identity, for listings."""
    return {
        "saved": dict(variant.saved),
        "reads": list(variant.reads),
        "can_add": list(variant.can_add),
        "alias": dict(variant.alias),
        "inplace": dict(variant.inplace),
        "partial": list(variant.partial),
        "base": variant.base,
        "backward": "" if variant.has_backward or variant.has_forward_backward else "none",
        "arch": variant.arch if variant.sources else "",
        "f32": "as TF32, with [train] tf32 = true" if variant.tf32 and "f32" in variant.dtypes else "",
        "repeatable": "" if variant.repeatable else "no",
        "tolerance": dict(variant.tolerance),
        "tolerance_why": variant.tolerance_why,
    }


def _joined(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} = {v}" for k, v in value.items())
    return value if isinstance(value, str) else ", ".join(value)


def op_data(registry: Registry, name: str, devices: tuple[str, ...], kernels: bool = True) -> dict[str, Any]:
    """The JSON twin of `detail`. kernels: whether to compile, for the compiler's report on each kernel."""
    op = registry.op(name)
    return {
        "name": name,
        "doc": op.doc,
        "origin": op.origin,
        "where": op.where,
        "inputs": {s.name: {"pattern": s.pattern.text, "optional": s.optional} for s in op.inputs.values()},
        "outputs": {s.name: s.pattern.text for s in op.outputs.values()},
        "state": {s.name: s.pattern.text for s in op.state.values()},
        "params": {k: vars(param) for k, param in op.params.items()},
        "attrs": {k: v.__name__ if isinstance(v, type) else v for k, v in op.attrs.items()},
        "replaces": op.replaces,
        "uses": list(op.uses),
        "mutates": list(op.mutates),
        "gradient": op.gradient,
        "variants": [
            {
                "name": v.name,
                "device": v.device,
                "dtypes": list(v.dtypes),
                "priority": v.priority,
                "origin": v.origin,
                "where": place_of_class(written_class(v)),
                "reference": isinstance(v, Reference),
                **declared(v),
                **({"kernels": _kernel_data(registry, op, v)} if v.sources and kernels else {}),
            }
            for device in devices
            for v in of_device(registry, name, device)
        ],
    }


# --- why --------------------------------------------------------------------------------------------------------


def reasons(registry: Registry, op: Op, device: str) -> Iterator[dict[str, Any]]:
    """For each precision of the devices that run such variants, and each variant: a training plan's answer.

    `runs` is yes, no, or some: of the op's examples. `auto` marks the best that runs them all unasked.
    """
    from core.plan.choose import Chooser

    kinds = [kind for kind in registry.devices.values() if kind.runs == device]
    for precision in dict.fromkeys(p for kind in kinds for p in kind.precisions):
        chooser = Chooser(registry, device, precision)
        taken = False
        for variant in chooser.candidates(op):
            runs, why = _why_not(chooser, variant, op, precision)
            unasked = variant.priority >= 0 and variant.repeatable
            auto = runs == "yes" and unasked and not taken
            taken = taken or auto
            if not why and not unasked:
                why = "only by name" + ("" if variant.repeatable else ": its bits do not repeat")
            yield {
                "op": op.name,
                "variant": variant.name,
                "device": device,
                "precision": precision,
                "runs": runs,
                "auto": auto,
                "needs": variant.arch if variant.sources else "",
                "why_not": why,
            }


def _why_not(chooser: Chooser, variant: Variant, op: Op, precision: str) -> tuple[str, str]:
    """Whether a variant runs the op's examples (yes, some, no), and its first reason not to."""
    from core.plan.choose import BACKWARD, LOSS, NOTHING

    if precision not in variant.dtypes:
        return "no", chooser.why_not(variant, make_tensors({}, {}), NOTHING) or ""
    needs = NOTHING if not op.gradient else LOSS if variant.has_forward_backward else BACKWARD
    examples = [*op.examples, *variant.examples]
    reasons = [(example, chooser.why_not(variant, specs(op, example, precision), needs)) for example in examples]
    refused = [(example, why) for example, why in reasons if why is not None]
    if not refused:
        return "yes", ""
    example, why = refused[0]
    if len(refused) == len(reasons):
        return "no", why
    return "some", f"{why} (refuses {len(refused)} of {len(reasons)} examples, such as {example})"


def specs(op: Op, example: Mapping[str, Any], precision: str) -> Any:
    """`t` with shapes and dtypes in place of tensors, for an example of an op."""
    from core.testing.case import make_case

    case = make_case(op, example)
    names = [name for name in (*op.inputs, *op.params, *op.outputs) if case.values.get(name, 0) is not None]
    spec = dict.fromkeys((*op.inputs, *op.params)) | {name: case.spec(name, precision) for name in names}
    uses = {"ranks": ALONE} if "ranks" in op.uses else {}
    return make_tensors(case.dims, spec, node=op.name, **uses)


def why_table(verdicts: list[dict[str, Any]]) -> str:
    if not verdicts:
        raise BuildError("no variant for that device", hint="`core ops` lists the variants of every device")
    rows = [
        (v["op"], v["variant"], v["device"], v["precision"], _verdict(v), v["why_not"] or v["needs"]) for v in verdicts
    ]
    return "\n".join(table(("OP", "VARIANT", "DEVICE", "PRECISION", "RUNS", "WHY NOT, OR NEEDS"), rows))


def _verdict(verdict: Mapping[str, Any]) -> str:
    return "auto" if verdict["auto"] else str(verdict["runs"])
