"""The prices of each backend, as measured on one core of a server CPU in float32.

`rankopt calibrate` measures those of a machine.
"""

from __future__ import annotations

from dataclasses import replace

from rankopt.errors import InputError
from rankopt.prices import Profile

EAGER = Profile(
    name="eager",
    call=5000.0,
    view=2200.0,
    request=0.0,
    tensor=0.0,
    multiply_add=0.030,
    narrow=((2, 6.0), (12, 10.0), (16, 3.0), (32, 1.4)),
    short=((2, 4.0), (6, 4.0), (12, 2.3), (32, 1.5)),
    matrix=180.0,
    small_multiply_add=0.06,
    ragged=5.0,
    product_element=0.15,
    element=0.16,
    broadcast=4.0,
    function=1.0,
    functions=(
        ("sigmoid", 0.5),
        ("silu", 0.5),
        ("gelu", 0.6),
        ("log", 1.2),
        ("erf", 1.6),
        ("softplus", 1.8),
        ("tanh", 3.0),
        ("pow", 3.0),
    ),
    norm=0.8,
    norm_row=40.0,
    short_softmax=28.0,
    ragged_softmax=6.5,
    swapped_softmax=False,
    guarded=1.1,
    read=0.04,
    reduced=7.0,
    maximum=2.0,
    between=0.0,
    gather=0.2,
    picked=0.3,
    row=1.2,
    missed=12.0,
    indexed=1.6,
    streamed=0.5,
    run=7.0,
    moved=1.6,
    transposed=0.8,
    plane=60.0,
    moved_alone=False,
    strided_batch=True,
    packed=False,
    as_they_are=False,
    copied_cuts=False,
    stacked_apart=False,
    flat_layers=False,
    einsum=0.0,
    innermost=4000.0,
)
"""PyTorch, calls one by one."""

ONNX_RUNTIME = Profile(
    name="onnxruntime",
    call=800.0,
    view=500.0,
    request=0.0,
    tensor=0.0,
    multiply_add=0.018,
    narrow=((2, 16.0), (6, 4.2), (12, 2.0), (16, 1.5), (32, 1.3)),
    short=((2, 3.0), (6, 1.3), (32, 1.1)),
    matrix=130.0,
    small_multiply_add=0.026,
    ragged=6.0,
    product_element=0.1,
    element=0.17,
    broadcast=10.0,
    function=0.23,
    functions=(
        ("sigmoid", 2.0),
        ("silu", 2.0),
        ("gelu", 4.0),
        ("log", 11.0),
        ("erf", 3.0),
        ("softplus", 65.0),
        ("tanh", 1.9),
        ("pow", 35.0),
    ),
    norm=0.63,
    norm_row=15.0,
    short_softmax=0.0,
    ragged_softmax=0.0,
    swapped_softmax=True,
    guarded=3.3,
    read=0.06,
    reduced=2.0,
    maximum=0.1,
    between=150.0,
    gather=0.15,
    picked=7.5,
    row=7.0,
    missed=9.0,
    indexed=0.6,
    streamed=0.3,
    run=11.0,
    moved=4.5,
    transposed=0.25,
    plane=400.0,
    moved_alone=True,
    strided_batch=False,
    packed=True,
    as_they_are=False,
    copied_cuts=True,
    stacked_apart=True,
    flat_layers=True,
    einsum=0.8,
    innermost=0.0,
    doubt=1.11,
)
"""ONNX Runtime's CPU provider, at its default optimisation level."""

INDUCTOR = replace(
    EAGER,
    name="inductor",
    call=1500.0,
    view=0.0,
    request=80_000.0,
    tensor=600.0,
    multiply_add=0.027,
    element=0.1,
    broadcast=0.2,
    function=0.6,
    functions=(
        ("sigmoid", 0.9),
        ("silu", 0.9),
        ("gelu", 1.4),
        ("log", 1.2),
        ("erf", 2.0),
        ("softplus", 2.6),
        ("tanh", 2.8),
        ("pow", 4.5),
    ),
    norm=0.75,
    norm_row=25.0,
    short_softmax=5.0,
    ragged_softmax=3.5,
    read=0.05,
    reduced=1.8,
    maximum=0.3,
    gather=0.15,
    row=0.3,
    indexed=0.6,
    streamed=0.3,
    run=1.5,
    moved=1.2,
    transposed=0.2,
    as_they_are=True,
    fused=0.25,
    doubt=1.08,
)
"""torch.compile and AOTInductor on a CPU: the products of eager calls, and everything between them fused into loops."""

PROFILES = {profile.name: profile for profile in (EAGER, INDUCTOR, ONNX_RUNTIME)}
DEFAULT = EAGER


def profile_of(backend: str | Profile, threads: int | None = None) -> Profile:
    """The prices of a backend, given by its name or as they are, where `threads` work on a call, if that is given.

    Raises InputError for a name that is not known, and for less than one thread.
    """
    if threads is not None:
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise InputError(
                f"threads={threads!r} is no number of threads.\n"
                "  expected: an int, from 1 on\n"
                "  fix: threads=1, or as many as will work on one request"
            )
        return replace(profile_of(backend), threads=threads)
    if isinstance(backend, Profile):
        return backend
    if backend not in PROFILES:
        raise InputError(
            f"no backend is named '{backend}'.\n  expected: {', '.join(PROFILES)}\n  fix: name the one that will serve"
        )
    return PROFILES[backend]
