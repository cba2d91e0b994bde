"""Kernels at native speed: a machine in C that runs PTX a warp at a time, and the translation of a kernel for it.

  *.c, machine.h    the machine: one function for each instruction (docs/native.md)
  toolchain.py      compiles the machine once for each computer
  translation.py    a kernel's PTX -> records of the machine
  form_table.py     instructions that the machine spells otherwise than PTX, from the files of their families
  fusing.py         runs of fma -> records for several of them
  affine.py         registers whose lanes are base + lane * step, and their records
  allocation.py     registers of PTX -> places in a warp's register file
  stored.py         translated kernels in the cache folder
  faulted.py        the machine's faults -> KernelError, in the interpreter's words
  executor.py       a launch

The interpreter (instructions/) defines the results of a kernel; the machine gives the same bits.
"""
