"""Open devices: memory, recorded launches and their replay; fill, copy, add and dot. `Device` is their type.

The table of `core.devices` lists the devices and their capabilities.
"""
