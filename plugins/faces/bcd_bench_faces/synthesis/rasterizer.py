"""A triangle rasteriser with a z-buffer, and shading of its output: compiled loops over pixels.

All loops run in one thread and in a fixed order, so the same input gives the same bytes on one machine. Another
processor or another compiler version may round the last bit differently.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["downsample", "rasterize", "shade", "vertex_normals"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, and cache on disk if a folder for that is writable."""
    try:
        return numba.njit(function, cache=True)  # type: ignore[no-any-return]
    except RuntimeError:  # no writable cache folder: each process compiles for itself
        return numba.njit(function)  # type: ignore[no-any-return]


@_compiled
def vertex_normals(vertices: Floats, faces: Ints) -> Floats:
    """Unit normals float32[N, 3]: the area-weighted mean over the triangles around each vertex (0 if there are
    none)."""
    out = np.zeros((vertices.shape[0], 3), np.float32)
    for k in range(faces.shape[0]):
        a, b, c = faces[k, 0], faces[k, 1], faces[k, 2]
        ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        vx, vy, vz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for i in (a, b, c):
            out[i, 0] += x
            out[i, 1] += y
            out[i, 2] += z
    for i in range(out.shape[0]):
        length = np.sqrt(out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2)
        if length > 0:
            out[i] /= length
    return out


@_compiled
def rasterize(
    points: Floats, faces: Ints, corners: Ints, texture: Floats, alpha: Floats, height: int, width: int
) -> tuple[Ints, Floats, Floats]:
    """Find the closest triangle at every pixel's centre.

    `points` float32[N, 3] are x and y in pixels and the inverse of the depth (larger is closer). Returns the triangle
    int32[height, width] (-1 for none), its barycentric weights float32[height, width, 3] (corrected for perspective),
    and the inverse depth. Where `alpha` float32[h, w], looked up by `texture` float32[M, 2] (in texels, per corner of
    `corners`), is below 1, pixels are skipped in an ordered pattern, so that averaging them produces soft edges.
    """
    triangle = np.full((height, width), -1, np.int32)
    weights = np.zeros((height, width, 3), np.float32)
    nearest = np.zeros((height, width), np.float32)
    pattern = np.array([[0.5, 8.5, 2.5, 10.5], [12.5, 4.5, 14.5, 6.5], [3.5, 11.5, 1.5, 9.5], [15.5, 7.5, 13.5, 5.5]])
    pattern /= 16
    for k in range(faces.shape[0]):
        i, j, m = faces[k, 0], faces[k, 1], faces[k, 2]
        ax, ay, bx, by = points[i, 0], points[i, 1], points[j, 0], points[j, 1]
        cx, cy = points[m, 0], points[m, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-9:
            continue
        left, right = max(0, int(np.ceil(min(ax, bx, cx) - 0.5))), min(width - 1, int(max(ax, bx, cx) - 0.5))
        top, bottom = max(0, int(np.ceil(min(ay, by, cy) - 0.5))), min(height - 1, int(max(ay, by, cy) - 0.5))
        if left > right or top > bottom:
            continue
        inverse = 1.0 / area
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                ex, ey = x + 0.5 - ax, y + 0.5 - ay
                w1 = (ex * (cy - ay) - ey * (cx - ax)) * inverse
                w2 = (ey * (bx - ax) - ex * (by - ay)) * inverse
                w0 = 1.0 - w1 - w2
                if w0 < -1e-6 or w1 < -1e-6 or w2 < -1e-6:
                    continue
                p0, p1, p2 = w0 * points[i, 2], w1 * points[j, 2], w2 * points[m, 2]
                depth = p0 + p1 + p2
                if depth <= nearest[y, x]:
                    continue
                p0, p1, p2 = p0 / depth, p1 / depth, p2 / depth
                q0, q1, q2 = corners[k, 0], corners[k, 1], corners[k, 2]
                u = int(p0 * texture[q0, 0] + p1 * texture[q1, 0] + p2 * texture[q2, 0])
                v = int(p0 * texture[q0, 1] + p1 * texture[q1, 1] + p2 * texture[q2, 1])
                u, v = min(max(u, 0), alpha.shape[1] - 1), min(max(v, 0), alpha.shape[0] - 1)
                if alpha[v, u] < pattern[y & 3, x & 3]:
                    continue
                nearest[y, x] = depth
                triangle[y, x] = k
                weights[y, x, 0], weights[y, x, 1], weights[y, x, 2] = p0, p1, p2
    return triangle, weights, nearest


@_compiled
def shade(
    image: Floats,
    triangle: Ints,
    weights: Floats,
    faces: Ints,
    corners: Ints,
    texture: Floats,
    albedo: Floats,
    gloss: Floats,
    vertices: Floats,
    normals: Floats,
    occlusion: Floats,
    lights: Floats,
    ambient: Floats,
    shadow: Floats,
    shadow_frame: Floats,
) -> None:
    """Colour the pixels of `image` float32[H, W, 3] (linear light) that `triangle` covers.

    `albedo` float32[h, w, 3] and `gloss` float32[h, w] (0..1) are looked up bilinearly. `lights` float32[L, 6] hold
    direction (towards the light, unit) and colour; the first one casts the shadow: `shadow` float32[S, S] is the depth
    along it and `shadow_frame` float32[3, 4] maps camera space to its column, row and depth. `ambient` float32[2, 3]
    is the light from above and from below. Skin is shaded softly past the terminator, more so in red.
    """
    height, width = triangle.shape
    rows, columns = gloss.shape
    side = shadow.shape[0]
    wrap = (0.30, 0.16, 0.12)
    for y in range(height):
        for x in range(width):
            k = triangle[y, x]
            if k < 0:
                continue
            u = v = nx = ny = nz = px = py = pz = shade_ = 0.0
            for corner in range(3):
                w = weights[y, x, corner]
                i, q = faces[k, corner], corners[k, corner]
                u += w * texture[q, 0]
                v += w * texture[q, 1]
                nx += w * normals[i, 0]
                ny += w * normals[i, 1]
                nz += w * normals[i, 2]
                px += w * vertices[i, 0]
                py += w * vertices[i, 1]
                pz += w * vertices[i, 2]
                shade_ += w * occlusion[i]
            length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-9
            nx, ny, nz = nx / length, ny / length, nz / length
            far = np.sqrt(px * px + py * py + pz * pz)
            vx, vy, vz = -px / far, -py / far, -pz / far
            facing = nx * vx + ny * vy + nz * vz
            if facing < 0:
                nx, ny, nz, facing = -nx, -ny, -nz, -facing
            u, v = min(max(u - 0.5, 0.0), columns - 1.001), min(max(v - 0.5, 0.0), rows - 1.001)
            u0, v0 = int(u), int(v)
            fu, fv = u - u0, v - v0
            w00, w01, w10, w11 = (1 - fu) * (1 - fv), fu * (1 - fv), (1 - fu) * fv, fu * fv
            shine = (
                w00 * gloss[v0, u0] + w01 * gloss[v0, u0 + 1] + w10 * gloss[v0 + 1, u0] + w11 * gloss[v0 + 1, u0 + 1]
            )
            lit = 0.0
            if side > 1:
                ox, oy, oz = px + 4.0 * nx, py + 4.0 * ny, pz + 4.0 * nz  # off the surface, to avoid self-shadowing
                sx = shadow_frame[0, 0] * ox + shadow_frame[0, 1] * oy + shadow_frame[0, 2] * oz + shadow_frame[0, 3]
                sy = shadow_frame[1, 0] * ox + shadow_frame[1, 1] * oy + shadow_frame[1, 2] * oz + shadow_frame[1, 3]
                sz = shadow_frame[2, 0] * ox + shadow_frame[2, 1] * oy + shadow_frame[2, 2] * oz + shadow_frame[2, 3]
                for dy in (-1.2, 0.0, 1.2):
                    for dx in (-1.2, 0.0, 1.2):
                        column, row = int(sx + dx), int(sy + dy)
                        if column < 0 or row < 0 or column >= side or row >= side or sz > shadow[row, column]:
                            lit += 1.0 / 9.0
            else:
                lit = 1.0
            up = 0.5 - 0.5 * ny
            edge = 0.35 * (1.0 - facing) ** 4  # glancing light is reflected more (Schlick's approximation)
            for channel in range(3):
                colour = (
                    w00 * albedo[v0, u0, channel]
                    + w01 * albedo[v0, u0 + 1, channel]
                    + w10 * albedo[v0 + 1, u0, channel]
                    + w11 * albedo[v0 + 1, u0 + 1, channel]
                )
                around = (ambient[0, channel] * up + ambient[1, channel] * (1 - up)) * shade_
                total = colour * around + edge * shine * around
                for light in range(lights.shape[0]):
                    lx, ly, lz = lights[light, 0], lights[light, 1], lights[light, 2]
                    diffuse = (nx * lx + ny * ly + nz * lz + wrap[channel]) / (1 + wrap[channel])
                    if diffuse <= 0:
                        continue
                    visibility = (0.5 + 0.5 * shade_) * (lit if light == 0 else 1.0)
                    hx, hy, hz = lx + vx, ly + vy, lz + vz
                    half = max((nx * hx + ny * hy + nz * hz) / (np.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9), 0.0)
                    sharp = half ** (12.0 + 110.0 * shine * shine)
                    total += (
                        lights[light, 3 + channel] * visibility * (colour * diffuse + shine * (0.3 + shine) * sharp)
                    )
                image[y, x, channel] = total


@_compiled
def downsample(image: Floats, factor: int, table: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Average linear light 0..1 over `factor` x `factor` pixels and map it through a table of tones, uint8[H, W, 3]."""
    height, width = image.shape[0] // factor, image.shape[1] // factor
    out = np.empty((height, width, 3), np.uint8)
    top = table.shape[0] - 1
    for y in range(height):
        for x in range(width):
            for channel in range(3):
                total = 0.0
                for dy in range(factor):
                    for dx in range(factor):
                        total += min(max(image[y * factor + dy, x * factor + dx, channel], 0.0), 1.0)
                out[y, x, channel] = table[int(total / (factor * factor) * top + 0.5)]
    return out
