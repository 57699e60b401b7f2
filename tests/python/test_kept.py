"""What is kept stays within its bounds, and what is asked for again is not made again."""

from __future__ import annotations

from residscope.kept import Kept


def test_the_longest_unused_goes_and_what_is_too_large_is_not_kept():
    made: list[str] = []

    def get(kept: Kept, key: str, size: int) -> bytes:
        return kept.get(key, lambda: made.append(key) or bytes(size))

    kept = Kept(100)
    for key, size in [
        ("a", 40),
        ("b", 40),
        ("a", 40),
        ("c", 40),
        ("a", 40),
        ("b", 40),
        ("large", 101),
        ("a", 40),
        ("large", 101),
    ]:
        assert len(get(kept, key, size)) == size
    assert made == ["a", "b", "c", "b", "large", "large"]
