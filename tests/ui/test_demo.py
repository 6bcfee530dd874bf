"""``crossmodal demo`` from the shell: the page comes up, is quick the second time, and stops when told."""

import os
import re
import signal
import socket
import urllib.request

import pytest

from crossmodal import Collection
from ui.commands.demo import cache_folder, free_port, name_of


@pytest.fixture
def taken():
    """A port that somebody listens at."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def run_until_it_serves(start, *arguments, environment):
    """Start the demo, fetch its page, stop it with Ctrl-C, and give the page and all that was printed."""
    began = start("demo", *arguments, "--no-browser", environment=environment)
    line = began.stdout.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+/", line)
    try:
        assert address, began.stderr.read()
        with urllib.request.urlopen(address[0]) as answer:
            page = answer.read().decode()
    finally:
        began.send_signal(signal.SIGINT)
        _, errors = began.communicate()
    assert began.returncode == 0, errors
    return address[0], page, errors


@pytest.mark.skipif(os.name != "posix", reason="the cache folder of a test is set as POSIX systems have it")
def test_the_demo_serves_a_folder_says_where_and_stops_when_told(start, picture_folder, tmp_path, taken):
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    address, page, errors = run_until_it_serves(start, picture_folder, "--port", taken, environment=cache)
    assert f":{taken}/" not in address
    assert f"port {taken} is in use; taking " in errors
    assert "8 added" in errors
    assert errors.endswith("stopped\n")
    assert "Pictures by words" in page
    assert "fonts.googleapis" not in page

    *_, errors = run_until_it_serves(start, picture_folder, environment=cache)
    assert "added" not in errors


def test_the_demo_serves_a_collection_as_it_is(start, collection):
    version = collection.info().version
    _, page, _ = run_until_it_serves(start, collection.path, environment={})
    assert "12 pictures" in page
    assert Collection.open(collection.path).info().version == version


def test_a_demo_of_nothing_is_refused_in_one_line(run, tmp_path):
    result = run("demo", tmp_path / "none", "--no-browser")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "none" in result.stderr


def test_the_page_is_named_as_a_person_would_name_the_source(tmp_path, monkeypatch):
    (tmp_path / "holidays" / "2019").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "holidays" / "2019")
    named = {
        "sample": "sample",
        "/a/photos/": "photos",
        ".": "2019",
        "./": "2019",
        "..": "holidays",
        "/": "/",
    }
    assert {source: name_of(source) for source in named} == named


def test_a_port_in_use_is_passed_over(taken):
    assert taken < free_port(taken) < taken + 50


def test_each_source_and_encoder_has_a_cache_of_its_own():
    places = {cache_folder(spec, encoder) for spec in ("/a", "/b") for encoder in ("x", "y")}
    assert len(places) == 4
    assert cache_folder("/a", "x") in places
