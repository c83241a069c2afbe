"""Titles, years and genres of films, as the MovieLens files write them."""

from __future__ import annotations

import pandas as pd

NO_GENRE = ("unknown", "(no genres listed)", "")
# the last four digits in brackets, or a span of years; after it at most one more bracket, such as "(V)" for video
_YEAR = r"^(?P<title>.*?)\s*\((?P<year>\d{4})(?:\s*[–-]\s*\d{0,4})?\)\s*(?P<rest>\([^()]*\))?$"


def split_year(titles: pd.Series) -> pd.DataFrame:
    """Take the year out of titles such as "Toy Story (1995)".

    Returns
    -------
    DataFrame
        title (str, without the year, single spaces) and year (Int16, missing where the title names none).

    Examples
    --------
    >>> split_year(pd.Series(["Godfather, The (1972)", "Seven (Se7en) (1995)", "Babylon 5"]))
                title  year
    0  Godfather, The  1972
    1   Seven (Se7en)  1995
    2       Babylon 5  <NA>
    """
    plain = titles.str.replace(r"\s+", " ", regex=True).str.strip()
    found = plain.str.extract(_YEAR)
    title = (found["title"] + (" " + found["rest"]).fillna("")).str.strip()
    year = pd.to_numeric(found["year"], errors="coerce").astype("Int16")
    return pd.DataFrame({"title": title.where(found["year"].notna(), plain), "year": year})


def split_genres(genres: pd.Series, separator: str = "|") -> pd.Series:
    """Lists of genres from joined ones; what says "no genre" gives an empty list.

    >>> split_genres(pd.Series(["Action|Drama", "(no genres listed)", "unknown"])).tolist()
    [['Action', 'Drama'], [], []]
    """
    lists = genres.fillna("").str.split(separator)
    return lists.map(lambda names: [name.strip() for name in names if name.strip() not in NO_GENRE])
