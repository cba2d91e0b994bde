"""Reading: PTX text and its .cu file -> one kernel's instructions, registers and variables."""
