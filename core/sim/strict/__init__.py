"""Strict mode: follows every access of a launch and finds races, broken barriers and undefined values."""
