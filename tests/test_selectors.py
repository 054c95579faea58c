"""Selectors and roles: what each spelling means, and what each mistake is told."""

import pytest

from rankopt.errors import RolesError
from rankopt.selectors import InputRole, Role, Selector, parse_selector, resolve_roles

SHAPES = {
    "features.user_id": (5,),
    "features.user_age": (5,),
    "features.item_id": (5,),
    "history": (5, 30),
    "x": (5, 8),
    "temperature": (),
}


def roles(context, target=None, shapes=SHAPES):
    return {role.name: role for role in resolve_roles(shapes, context, target)}


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("x[:, :3]", (0, 1, 2)),
        ("x[:, 5:]", (5, 6, 7)),
        ("x[:, -3:]", (5, 6, 7)),
        ("x[:, ::2]", (0, 2, 4, 6)),
        ("x[:, 6:1:-2]", (2, 4, 6)),
        ("x[:, :200]", (0, 1, 2, 3, 4, 5, 6, 7)),
        ("x[:, 5]", (5,)),
        ("x[:, -1]", (7,)),
        ("x[:, [0, 3, 5]]", (0, 3, 5)),
        ("x[:, [5, 0, -1]]", (0, 5, 7)),
        (" x [ : , 1:3 ] ", (1, 2)),
    ],
)
def test_columns(text, columns):
    assert parse_selector(text).columns_of("x", (5, 8)) == columns


def test_parse_keeps_what_was_written():
    assert parse_selector("features.user_*") == Selector("features.user_*", "features.user_*", None)
    assert parse_selector("x[:, [0, 3]]") == Selector("x[:, [0, 3]]", "x", (0, 3))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x[3]",
        "x[:20]",
        "x[:, ]",
        "x[:, a]",
        "x[:, [0, True]]",
        "x[:, [0, 1.5]]",
        "x[:, ::0]",
        "x[:, :, 1]",
        "a b",
    ],
)
def test_unreadable(text):
    with pytest.raises(RolesError, match="cannot be read"):
        parse_selector(text)


def test_what_no_selector_names_is_target():
    found = roles(["features.user_*", "history"])
    assert [name for name, role in found.items() if role.role is Role.CONTEXT] == [
        "features.user_id",
        "features.user_age",
        "history",
        "temperature",
    ]
    assert list(found) == list(SHAPES)
    assert found["x"] == InputRole("x", Role.TARGET)


def test_interleaved_columns():
    packed = roles(["x[:, [0, 3]]", "x[:, 5]"])["x"]
    assert packed == InputRole("x", Role.PACKED, (0, 3, 5), (1, 2, 4, 6, 7))


def test_all_columns_are_the_whole_input():
    assert roles(["x[:, :4]", "x[:, 4:]"])["x"] == InputRole("x", Role.CONTEXT)


def test_columns_of_a_three_dimensional_input():
    assert roles(["e[:, :2]"], shapes={"e": (5, 3, 16)})["e"] == InputRole("e", Role.PACKED, (0, 1), (2,))


def test_target_selectors_are_checked_and_change_nothing():
    assert roles(["features.user_*"], ["features.item_id", "x[:, :2]"]) == roles(["features.user_*"])


def test_a_lone_string_is_one_selector():
    assert roles("history") == roles(["history"])


def test_scalars_are_shared_by_all_rows():
    assert roles(["history"])["temperature"].role is Role.CONTEXT
    assert roles(["history"], ["temp*", "x"])["temperature"].role is Role.CONTEXT
    with pytest.raises(RolesError, match="'temperature' is a scalar"):
        roles(["history"], ["temperature"])


@pytest.mark.parametrize(
    ("context", "target", "message"),
    [
        (["features.usr_id"], None, "nearest: 'features.user_id'"),
        (["user_id"], None, "nearest: 'features.user_id'"),
        (["features"], None, r"'features\.\*' names all that is inside"),
        (["zzzzzz"], None, "inputs: features.user_id, features.user_age"),
        (["history"], ["nothing_*"], r"'nothing_\*' matches no input"),
        (
            ["history", "hist*"],
            None,
            r"'history' is named twice: 'history' \(context\) and 'hist\*' \(context\)",
        ),
        (["history"], ["history"], r"'history' \(context\) and 'history' \(target\)"),
        (["x[:, :3]", "x[:, [7, 2]]"], None, r"column 2 of 'x' is named twice"),
        (["x[:, :3]"], ["x"], "column 0 of 'x' is named twice"),
        (["x[:, [0, 8]]"], None, "names column 8, but 'x' has 8 columns"),
        (["x[:, 3:3]"], None, "names no column of 'x'"),
        (["x[:, [1, -7]]"], None, "names column 1 of 'x' twice"),
        (["features.user_id[:, 0]"], None, r"of shape \[5\] has none"),
        (["features.*", "history", "x"], None, "every input is context"),
    ],
)
def test_refused(context, target, message):
    with pytest.raises(RolesError, match=message):
        roles(context, target)
