"""Which mask belongs to which image, by patterns of file names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ablate.data.files.findings import Findings
from ablate.errors import nearest

PLACEHOLDERS = ("stem", "parent", "split")
_PLACEHOLDER = re.compile(r"\{(.*?)\}")
_WILDCARD = re.compile(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])")
_AS_REGEX = {"**/": "((?:[^/]+/)*)", "**": "(.*)", "*": "([^/]*)", "?": "([^/])"}


def check_pattern(pattern: str, key: str, findings: Findings, *, allowed: Sequence[str] = PLACEHOLDERS) -> bool:
    """Whether a pattern can be used: relative, inside of the root, with known placeholders only."""
    inside = bool(pattern) and not pattern.startswith("/") and ".." not in PurePosixPath(pattern).parts
    if not inside:
        findings.say(
            f"expected a pattern inside of the root, got '{pattern}'",
            key=key,
            cure="set root to the folder that holds both images and masks",
        )
    unknown = [name for name in _PLACEHOLDER.findall(pattern) if name not in allowed]
    for name in unknown:
        findings.say(f"unknown placeholder '{{{name}}}' in '{pattern}'", key=key, cure=nearest(name, allowed))
    return inside and not unknown


def pair_up(root: Path, images: str, masks: str, findings: Findings) -> list[tuple[str, str]]:
    """Pairs (image, mask) of paths relative to `root`, in `natural` order; what has no partner goes into `findings`.

    `images` is a glob. `masks` is a glob too, or holds `{stem}` (the image's name without its ending) and perhaps
    `{parent}` (the image's folder relative to the root). Two globs are paired by stem, or by what their wildcards
    stand for where that pairs more files (`a/*_img.png` with `b/*_mask.png`). Hidden files are passed over; a file
    that is the mask of some image is not taken for an image.
    """
    candidates = list_files(root, images)
    named = "{stem}" in masks or "{parent}" in masks
    if named:
        wanted = {image: _fill(masks, image) for image in candidates}
        present = set(list_files(root, _PLACEHOLDER.sub("*", masks))) | {
            mask for mask in wanted.values() if (root / mask).is_file()
        }
        taken = {mask for image, mask in wanted.items() if mask in present and mask != image}
        found = [image for image in candidates if image not in taken]
        partner: Mapping[str, str] = {image: wanted[image] for image in found if wanted[image] in present}
        spare = sorted(present - set(partner.values()) - set(found))
    else:
        present = set(list_files(root, masks))
        found = [image for image in candidates if image not in present]
        partner, unclear = _by_key(found, sorted(present), images, masks)
        for path in sorted(unclear):
            findings.add(
                path,
                "sharing a name, so that no pair is clear",
                noun="file",
                key="data.masks",
                cure="say which mask is meant, such as masks: label/{stem}_mask.png",
            )
        found = [image for image in found if image not in unclear]
        spare = sorted(present - set(partner.values()) - unclear)
    if not found and not spare:
        findings.say(f"no file in {root} matches '{images}'", key="data.images")
    if found and not partner:
        findings.say(f"no image of '{images}' has a mask among '{masks}'", key="data.masks", cure=_looked_for(masks))
        return []
    for image in found:
        if image not in partner:
            findings.add(image, "without a mask", key="data.masks", cure="add the masks or narrow 'images'")
    for mask in spare:
        findings.add(mask, "without an image", noun="mask", key="data.images", cure="add the images or narrow 'masks'")
    return sorted(partner.items(), key=lambda pair: natural(pair[0]))


def natural(path: str) -> tuple[list[str | int], str]:
    """The key that sorts by the numbers in names, so that frame 2 comes before frame 10: sequences stay in order."""
    parts = [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", path))]
    return parts, path  # "1" and "01" differ in the path alone


def list_files(root: Path, pattern: str) -> list[str]:
    """Files under `root` that match the glob, as paths relative to it with /, in `natural` order; none hidden."""
    found = []
    for path in root.glob(pattern):
        relative = path.relative_to(root)
        if not path.is_dir() and not any(part.startswith(".") for part in relative.parts):
            found.append(relative.as_posix())
    return sorted(found, key=natural)


def _by_key(
    images: Sequence[str], masks: Sequence[str], image_glob: str, mask_glob: str
) -> tuple[dict[str, str], set[str]]:
    """Pairs of two globs, and the files whose partner is not clear.

    By stem or by wildcards, whichever pairs more; by stem where it makes no difference.
    """
    ways = [_match(images, masks, lambda path: PurePosixPath(path).stem, lambda path: PurePosixPath(path).stem)]
    image_regex, mask_regex = _regex(image_glob), _regex(mask_glob)
    if image_regex.groups == mask_regex.groups:
        ways.append(
            _match(images, masks, lambda path: _caught(image_regex, path), lambda path: _caught(mask_regex, path))
        )
    return max(ways, key=lambda way: len(way[0]))


def _match(
    images: Sequence[str], masks: Sequence[str], image_key: Callable[[str], str], mask_key: Callable[[str], str]
) -> tuple[dict[str, str], set[str]]:
    sides: dict[str, tuple[list[str], list[str]]] = {}
    for image in images:
        sides.setdefault(image_key(image), ([], []))[0].append(image)
    for mask in masks:
        sides.setdefault(mask_key(mask), ([], []))[1].append(mask)
    pairs = {left[0]: right[0] for left, right in sides.values() if len(left) == len(right) == 1}
    unclear = {
        path for left, right in sides.values() if left and right and len(left) + len(right) > 2 for path in left + right
    }
    return pairs, unclear


def _regex(glob: str) -> re.Pattern[str]:
    parts = []
    for part in _WILDCARD.split(glob):
        if part.startswith("[") and part.endswith("]"):
            parts.append(f"([{'^' if part[1] == '!' else ''}{re.escape(part[1:-1].lstrip('!'))}])".replace(r"\-", "-"))
        else:
            parts.append(_AS_REGEX.get(part) or re.escape(part))
    return re.compile("".join(parts))


def _caught(regex: re.Pattern[str], path: str) -> str:
    match = regex.fullmatch(path)
    return "\0".join(match.groups()) if match else path


def _fill(pattern: str, image: str) -> str:
    path = PurePosixPath(image)
    return PurePosixPath(pattern.replace("{stem}", path.stem).replace("{parent}", str(path.parent))).as_posix()


def _looked_for(masks: str) -> str:
    return f"'{masks}' is filled in for each image" if "{" in masks else "they are paired by their names without ending"
