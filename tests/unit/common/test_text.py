"""What a peer wrote is shown without its escapes; what a peer is told holds no path of ours."""

from __future__ import annotations

import pytest

from rootstock.common.text import one_line, outward, plain


def test_what_a_terminal_obeys_is_replaced() -> None:
    # Clears the screen, sets the title, hides text, turns the direction of writing, a C1 control.
    for sign in ("\x1b[2J", "\x1b]0;x\x07", "\x1b[8m", "\u202e", "\x9b2J", "\r", "\x00", "\ud800"):
        shown = plain(f"merged{sign}")
        assert shown.startswith("merged\ufffd")
        assert all(char.isprintable() for char in shown)


def test_honest_text_stays() -> None:
    assert plain("wrong β: 3 > 2\nlower it") == "wrong β: 3 > 2\nlower it"
    assert len(plain("x" * 10_000)) == 2000
    assert one_line("refused\n  runs       no") == "refused runs no"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "/srv/net/artifacts/ab/abcd: has 3 bytes, the manifest says 4",
            "abcd: has 3 bytes, the manifest says 4",
        ),
        ("open '/home/ann/net/registry.sqlite'", "open 'registry.sqlite'"),
        (
            "the database sqlite:////srv/net/registry.sqlite is full",
            "the database sqlite:… is full",
        ),
        ("postgresql+psycopg://rs:***@db.lan:5432/net fails", "postgresql+psycopg:… fails"),
        (
            'connection to server at "db.lan" (10.0.0.5), port 5432 failed: role "rs" is unknown',
            "connection to server at failed: role is unknown",
        ),
        ("s3://bucket/net: Access Denied", "s3:… Access Denied"),
        ("file:///srv/net cannot be read", "file:… cannot be read"),
    ],
)
def test_paths_and_addresses_do_not_leave(text: str, told: str) -> None:
    assert outward(text) == told


@pytest.mark.parametrize(
    "text",
    [
        "error/classification = 101; an error is 0 to 100 percent",
        "tensor 'mean/conv1_1' has shape [3], it must be [8]",
        "f gives 8×16×16, 3/4 of them; read https://grpc.io/docs/what-is-grpc/",
        "spiffe://net/site/lab-0 may not call /rootstock.federation.v1.Federation/Watch",
        "'cat-lab' is known here; use coordinator invite cat-lab --again",
    ],
)
def test_what_is_no_path_stays(text: str) -> None:
    assert outward(text) == text
