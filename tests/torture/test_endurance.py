"""A short watch and a short play, and that growth is found."""

import pytest

from tests.torture.endurance import Grown, Playing, Sample, Watching, endure, refuse_growth


def quiet(line: str) -> None:
    pass


@pytest.mark.parametrize("make", [lambda: Watching(1), lambda: Watching(10), Playing])
def test_a_short_watch_and_a_short_play(make):
    samples = endure(make(), 100, quiet, 5)
    assert samples[-1].step == 100 and samples[-1].megabytes > 0


class Hoarding(Watching):
    """It keeps rows that nobody asked for."""

    def go(self, steps):
        super().go(steps)
        (track,) = self.watch._tracks
        track.rows += [{}] * 10


def test_a_history_that_grows_by_itself_is_found():
    with pytest.raises(Grown, match="rows at step"):
        endure(Hoarding(10), 100, quiet, 5)


def made(megabytes=0.0, objects=0.0, rows=0):
    """Samples that grow by so much a step."""
    return [Sample(n, 400 + megabytes * n, int(9e5 + objects * n), rows * n) for n in range(50)]


def test_memory_and_objects_that_grow_are_found():
    refuse_growth("still", made())
    refuse_growth("rows that were asked for", made(megabytes=4, objects=2000, rows=2000))
    for grown in (made(megabytes=4), made(objects=2000), made(megabytes=16, rows=2000)):
        with pytest.raises(Grown):
            refuse_growth("grown", grown)
