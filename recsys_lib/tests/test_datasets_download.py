"""Downloads from a server of our own: going on, damage, silence; and the order in which sources are asked."""

import hashlib
import http.server
import io
import logging
import re
import shutil
import socket
import subprocess
import threading
import time
import zipfile
from pathlib import Path

import pytest
import requests
from pandas.testing import assert_frame_equal

from recsys_lib.data import fetch as fetching
from recsys_lib.data import known, load_dataset
from recsys_lib.data.fetch import UnreachableError, fetch, unpacked
from recsys_lib.data.known import KNOWN, KnownDataset
from recsys_lib.data.readers import read_files, read_package
from recsys_lib.paths import REPOSITORY
from recsys_lib.tests.made import made_tables, write_ml_100k


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the bytes in ``server.files``, ranges too; ``server.cut`` stops bodies after that many bytes."""

    protocol_version = "HTTP/1.0"

    def do_GET(self):
        server, name = self.server, self.path.rsplit("/", 1)[-1]
        asked = self.headers.get("Range")
        server.requests.append((name, asked))
        if server.status or name not in server.files:
            return self.send_error(server.status or 404)
        content, start = server.files[name], 0
        if asked and server.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        cut = server.cuts.pop(0) if server.cuts else None
        return self.wfile.write(body if cut is None else body[:cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server on this machine in the place of GroupLens's."""
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.files, made.requests, made.cuts, made.ranges, made.status = {}, [], [], True, None
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{made.server_port}/"
    monkeypatch.setattr(known, "BASE_URL", made.url)
    monkeypatch.delenv("MOVIELENS_DIR", raising=False)
    monkeypatch.setattr(fetching, "WAIT_SECONDS", 0.01)
    yield made
    made.shutdown()
    made.server_close()
    thread.join(5)


@pytest.fixture
def no_pypi(monkeypatch):
    """Machines without PyPI."""

    def refused(*args, **kwargs):
        raise subprocess.CalledProcessError(1, args, stderr="ERROR: No matching distribution")

    monkeypatch.setattr(fetching.subprocess, "run", refused)


def zipped(folder: Path, path: Path) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{folder.name}/{file.relative_to(folder)}")
    return path.read_bytes()


@pytest.fixture
def archive(tmp_path_factory, monkeypatch) -> bytes:
    """A made ml-100k.zip whose MD5 is the one that the catalogue knows."""
    folder = tmp_path_factory.mktemp("archive")
    content = zipped(write_ml_100k(folder / "ml-100k", n_users=20), folder / "ml-100k.zip")
    known = KnownDataset("ml-100k", (1.0, 5.0), hashlib.md5(content, usedforsecurity=False).hexdigest())
    monkeypatch.setitem(KNOWN, "ml-100k", known)
    return content


def test_downloads_and_keeps_the_archive(server, archive, lab_home):
    server.files["ml-100k.zip"] = archive
    data = load_dataset("ml-100k")
    assert data.source.startswith("GroupLens (http://127.0.0.1")
    assert (lab_home / "data/raw/ml-100k/ml-100k.zip").read_bytes() == archive
    again = load_dataset("ml-100k")
    assert len(server.requests) == 1
    assert again.sha256 == data.sha256
    assert len(data.interactions) == len(made_tables(n_users=20)[0])


def range_of(asked: str | None) -> int:
    return int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0


def test_goes_on_where_it_stopped_also_in_another_run(server, tmp_path):
    content, target = bytes(range(256)) * 4096, tmp_path / "big.zip"
    server.files["big.zip"], server.cuts = content, [300_000]
    assert fetch(server.url + "big.zip", target).read_bytes() == content
    assert [range_of(asked) for _, asked in server.requests] == [0, pytest.approx(300_000, abs=fetching._BLOCK)]
    assert [p.name for p in tmp_path.iterdir()] == ["big.zip"]
    target.unlink()
    server.cuts = [300_000, 100_000]
    with pytest.raises(UnreachableError, match="broke off; the next try resumes"):
        fetch(server.url + "big.zip", target)
    assert not target.exists()
    assert fetch(server.url + "big.zip", target).read_bytes() == content
    assert range_of(server.requests[-1][1]) == pytest.approx(400_000, abs=2 * fetching._BLOCK)


@pytest.mark.parametrize(("ranges", "part"), [(False, b"01234"), (True, b"something longer")])
def test_begins_again_where_a_part_is_of_no_use(server, tmp_path, ranges, part):
    server.files["big.zip"], server.ranges = b"0123456789", ranges
    (tmp_path / "big.zip.part").write_bytes(part)
    assert fetch(server.url + "big.zip", tmp_path / "big.zip").read_bytes() == b"0123456789"


def test_a_file_that_is_not_there_is_not_asked_for_twice(server, tmp_path):
    with pytest.raises(UnreachableError, match="cannot be downloaded .404"):
        fetch(server.url + "nothing.zip", tmp_path / "nothing.zip")
    assert len(server.requests) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_or_says_nothing_fails_in_time(tmp_path, monkeypatch):
    assert fetching.TRIES * (fetching.CONNECT_SECONDS + fetching.WAIT_SECONDS) <= 12
    monkeypatch.setattr(fetching, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(fetching, "READ_SECONDS", 0.2)
    start = time.monotonic()
    with pytest.raises(UnreachableError, match="out of reach .no connection"):
        fetch("http://127.0.0.1:9/x.zip", tmp_path / "x.zip")
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, pytest.raises(UnreachableError, match="no answer in time"):
        fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/x.zip", tmp_path / "x.zip")
    assert time.monotonic() - start < 5


def test_a_damaged_download_is_removed_and_fetched_again(server, archive, lab_home, caplog):
    served = [archive[:500] + bytes(100) + archive[600:], archive]

    class Files(dict):
        def __getitem__(self, name):
            return served.pop(0)

    server.files = Files({"ml-100k.zip": None})
    load_dataset("ml-100k")
    assert "truncated or corrupt: its MD5 is" in caplog.text
    assert (lab_home / "data/raw/ml-100k/ml-100k.zip").read_bytes() == archive
    assert len(server.requests) == 2


def test_a_damaged_archive_on_disk_is_removed_and_fetched_again(server, archive, lab_home, caplog, no_pypi):
    kept = lab_home / "data/raw/ml-100k/ml-100k.zip"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(archive[: len(archive) // 2])
    server.status = 503
    with pytest.raises(FileNotFoundError, match="put ml-100k.zip into"):
        load_dataset("ml-100k")
    assert not kept.exists()
    kept.write_bytes(archive[:-1])
    server.status, server.files["ml-100k.zip"] = None, archive
    load_dataset("ml-100k")
    assert "it is removed and fetched again" in caplog.text
    assert kept.read_bytes() == archive


def test_md5_comes_from_the_file_beside_the_archive(server, lab_home, shared_small):
    content = shared_small.read_bytes()
    server.files["ml-latest-small.zip"] = content
    server.files["ml-latest-small.zip.md5"] = b"00000000000000000000000000000000  ml-latest-small.zip\n"
    with pytest.raises(FileNotFoundError, match="0{32} is published; put ml-latest-small.zip into"):
        load_dataset("ml-latest-small")
    assert not (lab_home / "data/raw/ml-latest-small/ml-latest-small.zip").exists()
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    server.files["ml-latest-small.zip.md5"] = f"MD5 (ml-latest-small.zip) = {digest}\n".encode()
    assert load_dataset("ml-latest-small").rating_scale == (0.5, 5.0)


@pytest.fixture
def shared_small(tmp_path) -> Path:
    """A made ml-latest-small.zip."""
    folder = tmp_path / "ml-latest-small"
    folder.mkdir()
    ratings, items, _ = made_tables(n_users=10)
    names = {"user_id": "userId", "item_id": "movieId"}
    ratings.rename(columns=names).to_csv(folder / "ratings.csv", index=False)
    films = items.assign(title=items["title"] + " (1999)", genres=items["genres"].str.join("|"))
    films.rename(columns=names)[["movieId", "title", "genres"]].to_csv(folder / "movies.csv", index=False)
    zipped(folder, tmp_path / "ml-latest-small.zip")
    return tmp_path / "ml-latest-small.zip"


def test_own_folder_comes_first_and_is_never_touched(server, archive, lab_home, tmp_path, monkeypatch, caplog):
    own = tmp_path / "own"
    own.mkdir()
    (own / "ml-100k.zip").write_bytes(archive)
    monkeypatch.setenv("MOVIELENS_DIR", str(own))
    data = load_dataset("ml-100k")
    assert data.source == "ml-100k.zip in MOVIELENS_DIR"
    assert server.requests == []
    (own / "ml-100k.zip").write_bytes(archive[:1000])
    server.files["ml-100k.zip"] = archive
    assert load_dataset("ml-100k").sha256 == data.sha256
    assert "left alone" in caplog.text
    assert (own / "ml-100k.zip").stat().st_size == 1000


def test_an_archive_of_ones_own_that_is_sound_but_not_the_published_one_is_read(
    lab_home, tmp_path, monkeypatch, caplog
):
    write_ml_100k(tmp_path / "in" / "ml-100k", n_users=10)
    zipped(tmp_path / "in" / "ml-100k", tmp_path / "ml-100k.zip")
    monkeypatch.setenv("MOVIELENS_DIR", str(tmp_path))
    assert load_dataset("ml-100k").source == "ml-100k.zip in MOVIELENS_DIR, not the published archive"
    assert "is not the archive that GroupLens publishes" in caplog.text
    for place in (tmp_path / "in", tmp_path / "in" / "ml-100k"):
        monkeypatch.setenv("MOVIELENS_DIR", str(place))
        assert load_dataset("ml-100k").source == "the folder ml-100k in MOVIELENS_DIR"


def wheel_with(path: Path, inter: str, films: str, users: str) -> Path:
    """A file such as the PyPI package."""
    with zipfile.ZipFile(path, "w") as wheel:
        for ending, content in (("inter", inter), ("item", films), ("user", users)):
            wheel.writestr(f"recbole/dataset_example/ml-100k/ml-100k.{ending}", content)
        wheel.writestr("recbole/__init__.py", "raise SystemExit('imported')")
    return path


def made_wheel(path: Path, n_users: int = 20) -> Path:
    """The files of the PyPI package, with the made data of ``write_ml_100k``."""
    interactions, items, users = made_tables(n_users=n_users)
    columns = {"user_id": "user_id:token", "item_id": "item_id:token", "rating": "rating:float"}
    inter = interactions.astype({"rating": int}).rename(columns={**columns, "timestamp": "timestamp:float"})
    films = items.assign(genres=items["genres"].str.join(" "))
    films.columns = ["item_id:token", "movie_title:token_seq", "release_year:token", "class:token_seq"]
    users = users.rename(columns={name: f"{name}:token" for name in users})
    return wheel_with(path, *(table.to_csv(sep="\t", index=False) for table in (inter, films, users)))


@pytest.fixture
def pypi(tmp_path, monkeypatch) -> list:
    """In the place of pip: puts a made wheel where it is asked to."""
    wheel = made_wheel(tmp_path / "made.whl")
    monkeypatch.setattr(fetching, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    calls = []

    def run(command, **options):
        calls.append(command)
        assert options["timeout"] <= 300
        shutil.copy(wheel, Path(command[command.index("--dest") + 1]) / fetching.WHEEL)

    monkeypatch.setattr(fetching.subprocess, "run", run)
    return calls


def test_pypi_when_grouplens_is_out_of_reach(server, archive, lab_home, pypi, caplog):
    server.status = 503
    with caplog.at_level(logging.WARNING):
        data = load_dataset("ml-100k")
    (said,) = caplog.messages
    assert said.startswith(
        "ml-100k comes from the copy in recbole==1.2.1 on PyPI, checksum verified, because http://127"
    )
    assert "503" in said
    assert data.source == "PyPI (recbole==1.2.1)"
    asked = len(server.requests)
    load_dataset("ml-100k")
    assert (len(pypi), len(server.requests)) == (1, asked)
    assert "recbole==1.2.1" in pypi[0] and "--no-deps" in pypi[0]


def test_both_sources_give_the_same_tables(server, archive, lab_home, pypi, monkeypatch):
    server.status = 503
    copy = load_dataset("ml-100k")
    shutil.rmtree(lab_home / "data")
    server.status, server.files["ml-100k.zip"] = None, archive
    original = load_dataset("ml-100k")
    assert original.source.startswith("GroupLens") and copy.source.startswith("PyPI")
    assert original.sha256 == copy.sha256
    for table in ("interactions", "items", "users"):
        assert_frame_equal(getattr(original, table), getattr(copy, table))


def test_another_wheel_is_refused(server, lab_home, pypi, monkeypatch):
    server.status = 503
    monkeypatch.setattr(fetching, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(FileNotFoundError, match=r"is not the one with SHA-256 0{64}; put ml-100k.zip into"):
        load_dataset("ml-100k")
    assert list((lab_home / "data/raw/ml-100k").glob("*.whl")) == []


def test_no_network_and_no_data_says_which_file_to_put_where(server, archive, lab_home, no_pypi, monkeypatch):
    server.status = 503
    with pytest.raises(FileNotFoundError) as found:
        load_dataset("ml-100k")
    text = str(found.value)
    assert f"put ml-100k.zip into {lab_home}/data/raw/ml-100k, or into a folder that MOVIELENS_DIR names" in text
    assert "No matching distribution" in text and "503" in text
    with pytest.raises(FileNotFoundError, match=r"put ml-25m.zip into .*/data/raw/ml-25m"):
        load_dataset("ml-25m")
    folder = Path(re.search("put ml-100k.zip into (.*?),", text)[1])
    (folder / "ml-100k.zip").write_bytes(archive)
    assert load_dataset("ml-100k").source.startswith("GroupLens")
    shutil.move(folder, lab_home / "own")
    monkeypatch.setenv(re.search("a folder that (.*?) names", text)[1], str(lab_home / "own"))
    assert load_dataset("ml-100k").source == "ml-100k.zip in MOVIELENS_DIR"


def test_titles_of_the_copy_are_those_of_grouplens(tmp_path):
    rows = [
        "267\tunkonwn\tunkonwn\tunknown",
        "1373\tGood Morning\t1971\tunknown",
        "1412\tLand Before Time III: The Time of the Great Giving (1995)\tV\tAnimation Children's",
        "134\tGodfather, The\t1972\tAction Crime Drama",
        "11\tSeven (Se7en)\t1995\tCrime Thriller",
    ]
    wheel = wheel_with(
        tmp_path / "made.whl",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t267\t3\t881250949\n",
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n" + "\n".join(rows),
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n1\t24\tM\twriter\t05201\n",
    )
    tables = read_package(unpacked(wheel, tmp_path))
    copied = tables.items.set_index("item_id")
    original = write_ml_100k(tmp_path / "ml-100k", n_users=2)
    flags = {267: "unknown", 1373: "unknown", 1412: "Romance", 134: "Action", 11: "Drama"}
    names = ["unknown", "Action", "Comedy", "Drama", "Sci-Fi", "Romance"]
    lines = {
        267: "unknown", 1373: "Good Morning (1971)", 134: "Godfather, The (1972)", 11: "Seven (Se7en) (1995) ",
        1412: "Land Before Time III: The Time of the Great Giving (1995) (V)",
    }  # fmt: skip
    text = [f"{i}|{lines[i]}|01-Jan-1990||http://x|{'|'.join(str(int(n == flags[i])) for n in names)}" for i in lines]
    (original / "u.item").write_text("\n".join(text) + "\n", encoding="latin-1")
    read = read_files(original).items.set_index("item_id").loc[copied.index]
    assert_frame_equal(read[["title", "year"]], copied[["title", "year"]])
    assert read["year"].fillna(0).tolist() == [0, 1971, 1995, 1972, 1995]
    assert copied.loc[[267, 1373], "genres"].tolist() == read.loc[[267, 1373], "genres"].tolist() == [[], []]
    assert tables.users["zip_code"].tolist() == ["05201"]


def test_https_that_leads_to_http_is_refused(tmp_path, monkeypatch):
    def redirected(adapter, request, **options):
        answer = requests.Response()
        answer.url, answer.request, answer.raw, answer.status_code = request.url, request, io.BytesIO(b"content"), 200
        if request.url.startswith("https:"):
            answer.status_code, answer.headers["Location"] = 302, "http://elsewhere.example/ml-100k.zip"
        return answer

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", redirected)
    with pytest.raises(UnreachableError, match="leads to http://elsewhere.example/ml-100k.zip, which is not https"):
        fetch("https://files.example/ml-100k.zip", tmp_path / "ml-100k.zip")
    assert list(tmp_path.iterdir()) == []


SHARED = REPOSITORY.parent / "shared" / "data" / "ml-latest-small.zip"


@pytest.mark.skipif(not SHARED.is_file(), reason="GroupLens's ml-latest-small.zip is not on this machine")
def test_the_real_ml_latest_small(lab_home, monkeypatch):
    monkeypatch.setenv("MOVIELENS_DIR", str(SHARED.parent))
    data = load_dataset("ml-latest-small")
    assert (len(data.interactions), data.interactions["user_id"].nunique(), len(data.items)) == (100_836, 610, 9_742)
    assert data.rating_scale == (0.5, 5.0) and data.demographics == [] and data.dropped == {}
    assert data.titles()[1] == "Toy Story" and int(data.items["year"].isna().sum()) < 20
    assert (data.interactions["item_id"].value_counts() < 4).sum() > 3_700
    assert load_dataset(SHARED).sha256 == data.sha256
