"""Types of the values in a run config, with their limits and, for messages, the expected values."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

Text = Annotated[str, Meta(min_length=1)]
Texts = Annotated[list[Text], Meta(extra={"lone": True})]  # one string is a list of one
SomeTexts = Annotated[list[Text], Meta(min_length=1, extra={"lone": True})]
BY_INPUT = dict[Text, Text | list[Text]]
BY_INPUT_OR = "a string, a list of strings{}, or a table of them by input"
Sources = Annotated[list[Text] | BY_INPUT, Meta(extra={"lone": True, "expected": BY_INPUT_OR.format("")})]
SomeSources = Annotated[
    Annotated[list[Text], Meta(min_length=1)] | BY_INPUT,
    Meta(extra={"lone": True, "expected": BY_INPUT_OR.format(" that is not empty")}),
]
Every = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", extra={"expected": "a name of letters, digits and _"})]
Size = Annotated[
    Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0)] | Text,
    Meta(extra={"expected": "a number >= 0 or arithmetic over the dims"}),
]
Sizes = Annotated[
    Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0)] | Text | Annotated[list[Size], Meta(min_length=1)],
    Meta(extra={"expected": "a number >= 0, arithmetic over the dims, or a list of these"}),
]
Scalar = bool | int | float | str
Option = Annotated[
    Scalar | list[Scalar], Meta(extra={"expected": "a number, true or false, a string, or a list of these"})
]
Fusion = Annotated[
    bool | dict[str, Scalar], Meta(extra={"expected": "true, false, or a table of the fused op's attributes"})
]
Seconds = Annotated[bool | float, Meta(extra={"expected": "true, false, or seconds"})]
