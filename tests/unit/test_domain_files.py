"""What `rdmd check` names in a folder of images, and the loopback interface behind a proxy."""

import os
from pathlib import Path

import pytest

from rdmd.pipeline.experiments import unusable
from rdmd.ports import keep_loopback_direct
from rdmd.progress import run_bar
from rdmd.training.run_folder import Point


def not_utf8(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")).touch()


def unreadable(folder: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (folder / "x.png").touch(mode=0o000)


SPOILT = {
    "a name that is not UTF-8": (not_utf8, "not UTF-8"),
    "a dangling link": (lambda folder: (folder / "x.png").symlink_to("nowhere"), "leads nowhere"),
    "a looping link": (lambda folder: (folder / "x").symlink_to("x"), "leads nowhere"),
    "a pipe": (lambda folder: os.mkfifo(folder / "x.png"), "pipe"),
    "a link to the parent": (lambda folder: (folder / "up").symlink_to(".."), "holds it"),
    "a file without permission": (unreadable, "cannot be read"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_what_dvc_cannot_hash_is_named(case: str, tmp_path: Path) -> None:
    spoil, reason = SPOILT[case]
    folder = tmp_path / "images" / "nested"
    folder.mkdir(parents=True)
    (folder / "good.png").touch()
    (folder / "elsewhere.png").symlink_to("good.png")
    assert unusable(folder.parent) == []
    spoil(folder)
    (said,) = unusable(folder.parent)
    assert said.startswith(f"{folder}/") and reason in said
    said.encode()


def test_many_are_counted(tmp_path: Path) -> None:
    for i in range(7):
        (tmp_path / f"{i}.png").symlink_to("nowhere")
    assert len(unusable(tmp_path)) == 4 and unusable(tmp_path)[-1] == "4 more"


@pytest.mark.parametrize("given", [None, "example.org,localhost"])
def test_a_proxy_leaves_the_loopback_interface_out(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", given or "")
    monkeypatch.setenv("no_proxy", given or "")
    keep_loopback_direct()
    assert os.environ["NO_PROXY"] == (given or ""), "without a proxy nothing changes"
    monkeypatch.setenv("HTTPS_PROXY", "http://203.0.113.1:3128")
    keep_loopback_direct()
    keep_loopback_direct()
    expected = "127.0.0.1,localhost,::1" if given is None else "example.org,localhost,127.0.0.1,::1"
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == expected


def test_without_a_terminal_a_line_tells_how_far_a_run_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(seconds: float) -> str:
        monkeypatch.setattr("rdmd.progress.LINE_SECONDS", seconds)
        with run_bar("teacher", 100) as bar:
            bar.follow([Point(step=7, values={"loss": 1.0})])
        return capsys.readouterr().err

    assert said(180.0) == ""
    assert said(0.0) == "teacher: step 7 of 100\n"
