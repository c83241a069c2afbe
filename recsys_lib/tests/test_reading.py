"""Lists for people to read."""

import pandas as pd
import pytest
import reading


def test_people_are_chosen_from_short_to_long_histories(tables):
    counts = tables[0]["user_id"].value_counts()
    chosen = reading.users_by_activity(tables[0], 3)
    assert counts[chosen].is_monotonic_increasing and counts[chosen].is_unique
    assert len(set(chosen)) == 3


def test_a_title_is_found_whole_before_in_part_and_ambiguity_is_said():
    films = pd.DataFrame({"item_id": [1, 2, 3], "title": ["Alien", "Aliens", "Ran"]})
    assert reading.find_title(films, "alien") == 1
    assert reading.find_title(films, "ra") == 3
    with pytest.raises(KeyError, match="2 titles contain 'lie'"):
        reading.find_title(films, "lie")
    with pytest.raises(KeyError, match="no title contains 'Solaris'"):
        reading.find_title(films, "Solaris")


def test_overlap_of_lists():
    lists = pd.DataFrame({"user_id": [1, 1, 2, 2, 3, 3], "item_id": [1, 2, 2, 3, 1, 2]})
    assert reading.mean_overlap(lists) == pytest.approx(4 / 3)
    assert reading.mean_overlap(lists[lists["user_id"] == 1]) == 0


def test_favourites_are_the_best_rated(tables):
    best = reading.favourites(tables[0], tables[2 - 1], [1, 999], 3)
    rated = tables[0][tables[0]["user_id"] == 1]
    top = rated.nlargest(3, "rating")["rating"].min()
    liked = rated[rated["rating"] >= top]["item_id"]
    titles = tables[1].set_index("item_id")["title"]
    assert set(best[1]) <= set(titles[liked]) and len(best[1]) == 3
    assert best[999] == []


def test_a_made_new_user_loves_one_genre(tables):
    liked = reading.genre_lover(tables[0], tables[1], 3)
    genres = tables[1].set_index("title")["genres"]
    assert len(liked) == 3 and set(liked.values()) == {5.0}
    assert set.intersection(*(set(genres[title]) for title in liked))


def test_well_known_films_differ_in_genre(tables):
    titles = reading.well_known(tables[0], tables[1], 3)
    genres = tables[1].set_index("title")["genres"]
    assert len({genres[title][0] for title in titles}) == 3


def test_where_there_are_no_ratings_the_last_items_are_named():
    history = pd.DataFrame({"user_id": 1, "item_id": [5, 6, 7], "rating": 1.0, "position": [2, 0, 1]})
    items = pd.DataFrame({"item_id": [5, 6, 7], "title": ["five", "six", "seven"]})
    assert reading.favourites(history, items, [1], 2) == {1: ["five", "seven"]}
