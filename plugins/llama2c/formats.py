"""llama2.c's model file as a WeightFormat; the modules that read and write it are imported when they are needed."""

from core import WeightFormat

VERSIONS = {"llama2c": 0, "llama2c-v1": 1}  # target of `core export` -> version of the format


class Llama2C(WeightFormat):
    name, kind, table = "llama2c", "a llama2.c file", "llama2c"
    expected = "a llama2.c model file (.bin)"
    targets = dict.fromkeys(VERSIONS, ".bin")

    def recognise(self, path, head):
        if not path.is_file():
            return ""
        from .model_file import mark_of

        return mark_of(path, head)

    def check(self, source, table, path, problems):
        from .table import check

        check(source, table, path, problems)

    def open(self, path, registry, dims):
        from . import model_file

        return model_file.match_of(path, registry, dims)

    def fit(self, path, graph, registry):
        from core.interop import Fitted, of_ids

        from . import model_file

        return Fitted(model_file.fitting(model_file.open_file(path), graph), of_ids(model_file.BEGIN))

    def tokenizer(self, path):
        from core.tokenizers.scored import FILE, read_file

        from .model_file import open_file

        beside = path.parent / FILE
        return read_file(beside, open_file(path).vocabulary) if beside.is_file() else None

    def write(self, export, registry, out, target):
        from .export import write

        return write(export, registry, out, VERSIONS[target])
