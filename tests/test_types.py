"""`py.typed` is no empty promise: all that is public is annotated. `mypy` then checks `tests/typing`, in `.ci/run`."""

import inspect

import pytest

import scgenot

ROOMS = [name for name in scgenot.__all__ if inspect.ismodule(getattr(scgenot, name))]


def functions_of(room: str):
    """Yield the public functions of a room, and the public methods that its classes define themselves."""
    for name in getattr(scgenot, room).__all__:
        found = getattr(getattr(scgenot, room), name)
        if inspect.isfunction(inspect.unwrap(found) if callable(found) else found):
            yield name, inspect.unwrap(found)
        elif inspect.isclass(found) and found.__module__.startswith("scgenot"):
            ours = [parent for parent in found.__mro__ if parent.__module__.startswith("scgenot")]
            for parent in ours:
                for method, value in vars(parent).items():
                    value = getattr(value, "fget", None) or getattr(value, "__func__", value)
                    if inspect.isfunction(value) and not method.startswith("_"):
                        yield f"{name}.{method}", inspect.unwrap(value)


@pytest.mark.parametrize("room", ROOMS)
def test_public_functions_are_annotated(room):
    bare = []
    for name, function in functions_of(room):
        signature = inspect.signature(function)
        bare += [f"{name}({one})" for one in list(signature.parameters) if one not in ("self", "cls") and signature.parameters[one].annotation is inspect.Parameter.empty]  # fmt: skip
        bare += [f"{name} ->"] * (signature.return_annotation is inspect.Signature.empty)
    assert not bare, f"scgenot.{room}: no annotation for {bare}"


def test_something_is_looked_at():
    assert {len(list(functions_of(room))) > 3 for room in ROOMS} == {True}
    assert (scgenot.pl.__file__ is not None) and "GENOT.train" in dict(functions_of("model"))
