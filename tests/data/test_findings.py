from pathlib import Path

import pytest

from ablate.data.findings import Findings, existing_root, first_names
from ablate.errors import DataError


def test_one_line_for_a_kind_of_fault():
    findings = Findings()
    findings.stop()
    for name in "abcde":
        findings.add(name, "without a mask", key="data.masks", cure="add them")
    findings.add("z", "that cannot be read")
    findings.say("the split 'val' has no image", key="data.split")
    with pytest.raises(DataError) as caught:
        findings.stop()
    assert str(caught.value).splitlines() == [
        "data.split: the split 'val' has no image",
        "data.masks: 5 images without a mask: a, b, c and 2 more; add them",
        "data: 1 image that cannot be read: z",
    ]
    assert first_names(["a", "b", "c"]) == "a, b, c"


def test_a_missing_root_names_the_nearest_folder_that_exists(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "file").touch()
    assert existing_root("here", tmp_path) == tmp_path / "here"
    assert existing_root(str(tmp_path / "here"), Path("/")) == tmp_path / "here"
    with pytest.raises(
        DataError, match=rf"no folder {tmp_path}/here/x/y \(the nearest that exists is {tmp_path}/here\)"
    ):
        existing_root("here/x/y", tmp_path)
    with pytest.raises(DataError, match=f"expected a folder, got the file {tmp_path}/file"):
        existing_root("file", tmp_path)
