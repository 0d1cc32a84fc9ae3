"""Each mode, step by step: messages and timers in, messages, kernel changes and rows out, as they are recorded."""

from __future__ import annotations

import pytest

from tests.maar.core.stories import (
    CASTS,
    COUNTS,
    RECORDED,
    Cast,
    Story,
    name,
    play,
    recorded,
    stories,
)

ALL = [(cast, story) for cast in CASTS for story in stories(cast)]


@pytest.mark.parametrize(
    ("cast", "story"), ALL, ids=[f"{cast.name}, {name(story)}" for cast, story in ALL]
)
def test_as_recorded(cast: Cast, story: Story) -> None:
    world = play(cast, story)
    assert world.text() == recorded(cast)[name(story)]
    world.check()


@pytest.mark.parametrize("cast", CASTS, ids=lambda cast: cast.name)
def test_every_story_is_told_once(cast: Cast) -> None:
    told = [name(story) for story in stories(cast)]
    assert list(recorded(cast)) == told
    assert {story.anchors for story in stories(cast)} == set(COUNTS)


def test_nothing_else_is_recorded() -> None:
    assert set(RECORDED.glob("*.txt")) == {cast.path for cast in CASTS}


@pytest.mark.parametrize("cast", CASTS, ids=lambda cast: cast.name)
def test_no_two_stories_are_the_same(cast: Cast) -> None:
    assert len(set(recorded(cast).values())) == len(recorded(cast))
