"""One module for each family of opcodes, and the table of all of them (opcodes.py says how to add one)."""
