"""Files that hold models: safetensors, and checkpoints made of them. Nothing here knows a run or an engine."""
