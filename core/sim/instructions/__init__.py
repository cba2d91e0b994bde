"""One module for each family of opcodes, and the table of all of them (opcodes.py has the rules for adding one)."""
