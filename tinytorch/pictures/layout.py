"""Where boxes and arrows go: a layered drawing of an acyclic graph (Sugiyama, Tagawa and Toda 1981).

Boxes stand in layers, and every arrow goes from a layer to a later one. An arrow that passes a layer gets a place in it
like a box, so that no arrow runs through a box; all arrows from one box share these places. A *slot* is such a place,
`(box, layer)`: the box itself in its own layer, or its arrows in a later one.

Coordinates are `along` (from layer to layer) and `across` (within a layer). A small graph goes from left to right, a
large one from top to bottom.
"""

import bisect
import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate, pairwise

MARGIN, ARROW = 16, 9
BETWEEN_BOXES, BESIDE_ARROWS, BETWEEN_LAYERS = 18, 13, 34
MOST_WIDTH = 1200  # in pixels; what would be wider goes from top to bottom


@dataclass
class Layout:
    """`corners` (x, y) and `layers` of the boxes, one line for each edge, and the size of the whole.

    A line is a list of points (x, y): straight from the first to the second, curved to the third, straight again, and
    so on; it ends with a straight piece at its target.
    """

    corners: list
    layers: list
    lines: list
    size: tuple
    horizontal: bool


def arrange(sizes, edges):
    """The Layout of boxes of `sizes` (width, height) and `edges` (source, target), sources before their targets."""
    layers = _layers(len(sizes), edges)
    rows, routes = _slots(layers, edges)
    rows = _untangle(rows, routes)
    across = _arranged(sizes, layers, rows, routes, horizontal=True)
    return across if across.size[0] <= MOST_WIDTH else _arranged(sizes, layers, rows, routes, horizontal=False)


def _arranged(sizes, layers, rows, routes, horizontal):
    along, across = zip(*(size if horizontal else size[::-1] for size in sizes))
    offsets = _entries(rows, routes, across)
    places = _places(rows, routes, offsets, across, layers)
    halves = {slot: across[slot[0]] / 2 if slot[1] == layers[slot[0]] else 0 for slot in places}
    first = min(place - halves[slot] for slot, place in places.items()) - MARGIN
    places = {slot: place - first for slot, place in places.items()}
    starts, ends = _stretches(rows, routes, offsets, places, along, layers)
    lines = [_line(route, offset, places, starts, ends, along, layers) for route, offset in zip(routes, offsets)]
    corners = [((starts[k] + ends[k] - along[i]) / 2, places[i, k] - across[i] / 2) for i, k in enumerate(layers)]
    size = (ends[-1] + MARGIN, max(place + halves[slot] for slot, place in places.items()) + MARGIN)
    if horizontal:
        return Layout(corners, layers, lines, size, True)
    return Layout([c[::-1] for c in corners], layers, [[p[::-1] for p in line] for line in lines], size[::-1], False)


# ---- layers


def _layers(count, edges):
    """As early as possible, then as late as possible where that makes no arrow longer."""
    sources, targets = defaultdict(set), defaultdict(set)
    for source, target in edges:
        sources[target].add(source)
        targets[source].add(target)
    layers = [0] * count
    for i in range(count):
        layers[i] = 1 + max((layers[source] for source in sources[i]), default=-1)
    for i in reversed(range(count)):
        anchored = sum(1 for source in sources[i] if sources[source])  # the others can move along
        if targets[i] and anchored <= len(targets[i]):
            layers[i] = min(layers[target] for target in targets[i]) - 1
    return layers


def _slots(layers, edges):
    """The slots of each layer, in the order of a walk back from the last box, and the slots that each edge visits."""
    routes = [
        [(source, k) for k in range(layers[source], layers[target])] + [(target, layers[target])]
        for source, target in edges
    ]
    incoming = defaultdict(list)
    for route in routes:
        incoming[route[-1][0]].append(route)
    rows = [{} for _ in range(max(layers) + 1)]  # dicts, as sets that keep their order
    waiting, visited = list(range(len(layers))), set()
    while waiting:
        box = waiting.pop()
        if box not in visited:
            visited.add(box)
            rows[layers[box]][box, layers[box]] = None
            for route in incoming[box]:
                for slot in route[1:-1]:
                    rows[slot[1]][slot] = None
            waiting.extend(route[0][0] for route in reversed(incoming[box]))
    return [list(row) for row in rows], routes


# ---- order within layers


def _links(routes):
    """The pairs of neighbouring slots that edges connect, as slot -> earlier slots and slot -> later slots."""
    earlier, later = defaultdict(dict), defaultdict(dict)
    for route in routes:
        for a, b in pairwise(route):
            later[a][b] = earlier[b][a] = None
    return earlier, later


def _untangle(rows, routes, sweeps=12):
    """Order each layer by where the neighbours of its slots stand, to and fro; keep the order with fewest crossings."""
    earlier, later = _links(routes)
    best, fewest = rows, _crossings(rows, later)
    for sweep in range(sweeps):
        if fewest == 0:
            break
        neighbours = later if sweep % 2 else earlier
        rows, rank = list(rows), {}
        for k in reversed(range(len(rows))) if sweep % 2 else range(len(rows)):
            middle = {slot: _mean([rank[b] for b in neighbours[slot]], i) for i, slot in enumerate(rows[k])}
            rows[k] = sorted(rows[k], key=lambda slot: middle[slot])
            rank.update((slot, i) for i, slot in enumerate(rows[k]))
        crossings = _crossings(rows, later)
        if crossings < fewest:
            best, fewest = rows, crossings
    return best


def _crossings(rows, later):
    rank = {slot: i for row in rows for i, slot in enumerate(row)}
    count = 0
    for row in rows:
        seen = []
        for slot in row:
            ends = [rank[other] for other in later[slot]]
            count += sum(len(seen) - bisect.bisect_right(seen, end) for end in ends)
            for end in ends:
                bisect.insort(seen, end)
    return count


def _mean(values, otherwise):
    return sum(values) / len(values) if values else otherwise


# ---- places within layers


def _entries(rows, routes, across):
    """How far from the middle of its target each edge arrives: side by side, in the order of where they come from."""
    rank = {slot: i for row in rows for i, slot in enumerate(row)}
    arriving = defaultdict(list)
    for i, route in enumerate(routes):
        arriving[route[-1]].append(i)
    offsets = [0.0] * len(routes)
    for (box, _), edges in arriving.items():
        edges.sort(key=lambda i: rank[routes[i][-2]])
        step = min(24, across[box] / (len(edges) + 1))
        for j, i in enumerate(edges):
            offsets[i] = (j - (len(edges) - 1) / 2) * step
    return offsets


def _places(rows, routes, offsets, across, layers, sweeps=16):
    """Where the middle of each slot is: near its neighbours, long arrows straight."""
    fed = {route[-1][0] for route in routes}
    earlier, later = defaultdict(dict), defaultdict(dict)  # slot -> {(neighbour, offset): pull}
    for route, offset in zip(routes, offsets):
        for a, b in pairwise(route):
            pull = 1 + 3 * (a[1] != layers[a[0]]) + 3 * (b[1] != layers[b[0]])
            pull = pull if a[0] in fed else 0.2  # leaves make room for what flows through
            at = offset if b == route[-1] else 0.0
            later[a][b, at] = earlier[b][a, -at] = pull
    sizes = {slot: across[slot[0]] if slot[1] == layers[slot[0]] else 0 for row in rows for slot in row}
    gaps = [[_gap(a, b, sizes) for a, b in pairwise(row)] for row in rows]
    places = {slot: place for row, gap in zip(rows, gaps) for slot, place in zip(row, accumulate(gap, initial=0))}
    both = {slot: later[slot] | earlier[slot] for slot in sizes}
    for sweep in range(sweeps):
        neighbours = both if sweep >= sweeps - 4 else (earlier, later)[sweep % 2]
        for k in range(len(rows)) if sweep % 2 == 0 else reversed(range(len(rows))):
            wanted, pulls = [], []
            for slot in rows[k]:
                pull = sum(neighbours[slot].values())
                total = sum((places[other] + at) * p for (other, at), p in neighbours[slot].items())
                wanted.append(total / pull if pull else places[slot])
                pulls.append(pull or 0.1)
            places.update(zip(rows[k], _settle(wanted, pulls, gaps[k])))
    return _straighten(places, rows, gaps, layers)


def _straighten(places, rows, gaps, layers):
    """Give all slots of the arrows from a box one place, where their neighbours leave room for it."""
    before, after, tracks = {}, {}, defaultdict(list)
    for row, gap in zip(rows, gaps):
        for (a, b), distance in zip(pairwise(row), gap):
            after[a], before[b] = (b, distance), (a, distance)
        for slot in row:
            if slot[1] != layers[slot[0]]:
                tracks[slot[0]].append(slot)
    for track in sorted(tracks.values(), key=len, reverse=True):
        low, high = -math.inf, math.inf
        for slot in track:
            if slot in before:
                low = max(low, places[before[slot][0]] + before[slot][1])
            if slot in after:
                high = min(high, places[after[slot][0]] - after[slot][1])
        if low <= high:
            middle = sum(places[slot] for slot in track) / len(track)
            places.update(dict.fromkeys(track, min(max(middle, low), high)))
    return places


def _gap(a, b, sizes):
    return (sizes[a] + sizes[b]) / 2 + (BETWEEN_BOXES if sizes[a] and sizes[b] else BESIDE_ARROWS)


def _settle(wanted, pulls, gaps):
    """The places nearest to the wanted ones (weighted least squares) with at least `gaps` between neighbours.

    Less the gaps up to each, the places may not fall: isotonic regression, by pooling neighbours that do fall.
    """
    shifts = list(accumulate(gaps, initial=0))
    pools = []  # [mean, pull, how many]
    for want, pull, shift in zip(wanted, pulls, shifts):
        pools.append((want - shift, pull, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, p, m), (b, q, n) = pools[-2:]
            pools[-2:] = [((a * p + b * q) / (p + q), p + q, m + n)]
    means = [mean for mean, _, count in pools for _ in range(count)]
    return [mean + shift for mean, shift in zip(means, shifts)]


def _stretches(rows, routes, offsets, places, along, layers):
    """Where each layer starts and ends; layers are further apart where arrows have far to go across."""
    depth = [max(along[box] for box, _ in row if layers[box] == k) for k, row in enumerate(rows)]
    steepest = [0.0] * len(rows)
    for route, offset in zip(routes, offsets):
        for a, b in pairwise(route):
            distance = abs(places[b] + (offset if b == route[-1] else 0) - places[a])
            steepest[b[1]] = max(steepest[b[1]], distance)
    starts, ends, at = [], [], MARGIN
    for k, size in enumerate(depth):
        at += (BETWEEN_LAYERS + min(70, steepest[k] / 6)) if k else 0
        starts.append(at)
        ends.append(at := at + size)
    return starts, ends


def _line(route, offset, places, starts, ends, along, layers):
    (source, first), (target, last) = route[0], route[-1]
    middle = (starts[first] + ends[first]) / 2
    points = [(middle + along[source] / 2, places[route[0]]), (ends[first], places[route[0]])]
    for slot in route[1:-1]:
        points += [(starts[slot[1]], places[slot]), (ends[slot[1]], places[slot])]
    middle, across = (starts[last] + ends[last]) / 2, places[route[-1]] + offset
    return points + [(starts[last] - ARROW, across), (middle - along[target] / 2, across)]
