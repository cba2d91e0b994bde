"""Open devices: memory, recorded launches and their replay; fill, copy, add and dot. `Device` is their type.

Which devices there are, and what each can do, is the table of `core.devices`.
"""
