"""llm.c's model file as a WeightFormat; the modules that read and write it are imported when they are needed."""

from core import WeightFormat


class LlmC(WeightFormat):
    name, kind, table = "llmc", "an llm.c file", "llmc"
    expected = "an llm.c model file (.bin)"
    targets, merged = {"llmc": ".bin"}, False
    precisions = ("f32", "bf16")

    def recognise(self, path, head):
        from core.data.magics import DATES

        first = int.from_bytes(head[:4], "little")
        return f"magic number {first}" if first in DATES else ""

    def check(self, source, table, path, problems):
        from .table import check

        check(source, table, path, problems)

    def open(self, path, registry, dims):
        from . import model_file

        return model_file.find(model_file.open_file(path), registry, dims)

    def fit(self, path, graph, registry):
        from core.interop import Fitted

        from . import model_file

        return Fitted(model_file.fitting(model_file.open_file(path), graph, registry))

    def write(self, export, registry, out, target):
        from .export import write

        write(export, registry, out)
        return ""
