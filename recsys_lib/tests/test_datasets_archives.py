"""Archives from outside: nothing leaves the folder, nothing is half there."""

import stat
import zipfile

import pytest

from recsys_lib.data import fetch
from recsys_lib.data.fetch import BadArchiveError, unpack, unpacked


def zip_with(path, members, *, kind=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (kind or stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    return path


def contents(folder) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_unpacks_files_and_folders_or_some_of_them(tmp_path):
    archive = zip_with(tmp_path / "a.zip", [("ml/u.data", "1"), ("ml/deep/x.txt", "2"), ("ml/empty/", "")])
    assert contents(unpack(archive, tmp_path / "out")) == {"ml/u.data": "1", "ml/deep/x.txt": "2"}
    assert contents(unpack(archive, tmp_path / "out", only=("ml/u.data",))) == {"ml/u.data": "1"}


@pytest.mark.parametrize("name", ["/etc/evil", "../evil", "ml/../../evil", "..\\evil", "C:/evil", "\\\\host\\evil"])
def test_members_that_lead_out_are_refused(tmp_path, name):
    (tmp_path / "in").mkdir()
    archive = zip_with(tmp_path / "in" / "a.zip", [("fine.txt", "1"), (name, "2")])
    with pytest.raises(BadArchiveError, match="leads out of the folder"):
        unpack(archive, tmp_path / "in" / "out")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.zip", "in"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o644, stat.S_IFCHR | 0o644])
def test_links_and_devices_are_refused(tmp_path, kind):
    archive = zip_with(tmp_path / "a.zip", [("ml/link", "/etc/passwd")], kind=kind)
    with pytest.raises(BadArchiveError, match="link or a device"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_bytes_than_the_limit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("recsys_lib.data.fetch.MAX_BYTES", 5_000_000)
    archive = zip_with(tmp_path / "a.zip", [("zeros", bytes(3_000_000)), ("more", bytes(3_000_000))])
    assert archive.stat().st_size < 20_000
    with pytest.raises(BadArchiveError, match="more than 5,000,000 bytes"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("recsys_lib.data.fetch.MAX_BYTES", 6_000_000)
    unpack(archive, tmp_path / "out")
    content = archive.read_bytes().replace((3_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    archive.write_bytes(content)  # which says that it is small
    with pytest.raises(BadArchiveError, match="truncated or corrupt"):
        unpack(archive, tmp_path / "out2")


def test_a_member_that_stands_there_twice_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = zip_with(tmp_path / "a.zip", [("ml/u.data", "1"), ("ml/u.data", "2")])
    with pytest.raises(BadArchiveError, match="holds 'u.data' twice"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("damage", ["cut", "flipped", "text"])
def test_a_damaged_archive_leaves_nothing(tmp_path, damage):
    archive = zip_with(tmp_path / "a.zip", [("ml/u.data", bytes(range(256)) * 4000)])
    content = bytearray(archive.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[200] ^= 0xFF
    else:
        content = b"<html>not found</html>"
    archive.write_bytes(content)
    with pytest.raises(BadArchiveError, match="truncated or corrupt"):
        unpack(archive, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_unpacked_once_for_each_content(tmp_path):
    archive = zip_with(tmp_path / "a.zip", [("x", "1")])
    first = unpacked(archive, tmp_path / "raw")
    (first / "mark").touch()
    assert (unpacked(archive, tmp_path / "raw") / "mark").exists()
    zip_with(archive, [("x", "2")])
    assert (unpacked(archive, tmp_path / "raw") / "x").read_text() == "2"


def test_a_stop_half_way_leaves_nothing(tmp_path, monkeypatch):
    archive, copied = zip_with(tmp_path / "a.zip", [("one", "1"), ("two", "2")]), []

    def stopped(reader, writer):
        writer.write(reader.read())
        copied.append(writer)
        if len(copied) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(fetch.shutil, "copyfileobj", stopped)
    with pytest.raises(KeyboardInterrupt):
        unpack(archive, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_an_encrypted_archive_is_refused(tmp_path):
    archive = zip_with(tmp_path / "a.zip", [("one", "1")])
    content = bytearray(archive.read_bytes())
    content[6] |= 1  # flag of the local header
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and of the directory
    archive.write_bytes(content)
    with pytest.raises(BadArchiveError, match="cannot be unpacked .*password"):
        unpack(archive, tmp_path / "out")
