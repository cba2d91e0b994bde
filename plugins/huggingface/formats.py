"""A Hugging Face folder as a WeightFormat; the modules that read and write it are imported when they are needed."""

from core import WeightFormat


class HuggingFace(WeightFormat):
    name, kind, table = "huggingface", "a Hugging Face folder", "hf"
    expected = "a Hugging Face folder (config.json and *.safetensors)"
    targets, named, tables = {"hf": "-hf"}, True, ("dims", "expect", "params")
    precisions = ("f32", "bf16", "fp16")

    def recognise(self, path, head):
        return "config.json" if path.is_dir() and (path / "config.json").is_file() else ""

    def lacking(self, path):
        alone = path.is_dir() and any(path.glob("*.safetensors"))
        return "there is no config.json beside the safetensors files" if alone else ""

    def check(self, source, table, path, problems):
        from .table import check

        check(source, table, path, problems)

    def open(self, path, registry, dims):
        from . import folder

        return folder.match_of(path, registry, dims)

    def fit(self, path, graph, registry):
        from core.interop import Fitted

        from . import folder

        opened = folder.open_folder(path)
        return Fitted(folder.fitting(opened, graph), folder.generation(path, opened.config))

    def tokenizer(self, path):
        from core.tokenizers.folder import read_folder

        return read_folder(path)

    def other_tokenizer(self, path):
        from core.tokenizers.folder import other_forms

        return other_forms(path)

    def write(self, export, registry, out, target):
        from .export import write

        return write(export, registry, out)

    def names(self, graph):
        from .rules import names

        return names(graph)

    def tensors(self, graph):
        """Parameter -> [(tensor, function)]: the tensors that its numbers are in, and of the whole parameter the view
        that each holds."""
        from .rules import tensors

        return tensors(graph)

    def read_strictly(self, path, graph):
        """The parameters of a folder, where every key of its config.json must be this model's. CheckpointError."""
        from . import folder

        return folder.strict(path, graph)
