"""Reading: PTX text and the .cu behind it -> one kernel's instructions, registers and variables."""
