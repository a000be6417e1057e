"""docs/growth.png and docs/growth.md from what bench/growth.py measured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from growth import KINDS

Cell = dict[str, Any]
# Okabe and Ito's colours, told apart by the colour-blind; marker and dash tell the lines apart in grey
STYLES = {
    "flat": ("#000000", "o", "-"),
    "hnsw": ("#0072B2", "s", "-"),
    "hnsw-sq8": ("#56B4E9", "D", "--"),
    "ivf": ("#D55E00", "^", "-"),
    "hnswlib": ("#009E73", "v", "-."),
}
FILTERS = ("all", "10 %", "1 %", "0.1 %")
FULL = ((1_000_000, 128), (100_000, 384))
LINE = 128  # the dimension of the curves


def vectors(cell: Cell) -> int:
    """Bytes of the vectors."""
    return 4 * int(cell["size"]) * int(cell["dimension"])


def answer(cell: Cell, name: str, side: str, key: str) -> float:
    """A figure of the queries under a filter."""
    return float(cell["serve"]["answers"][name][side][key])


PANELS: tuple[tuple[str, Callable[[Cell], float], bool], ...] = (
    ("ingest, rows/s", lambda c: c["size"] / c["build"]["ingest_s"], False),
    ("optimize(), s", lambda c: c["build"]["build_s"], True),
    ("opening and the first query, s", lambda c: c["serve"]["open_s"], True),
    ("one query, p50, ms", lambda c: answer(c, "all", "ours", "p50_ms"), True),
    ("one query, p99, ms", lambda c: answer(c, "all", "ours", "p99_ms"), True),
    ("1 % filter, p50, ms", lambda c: answer(c, "1 %", "ours", "p50_ms"), True),
    ("recall of the true ten", lambda c: answer(c, "all", "ours", "recall"), False),
    ("loading: most memory ÷ the vectors' bytes", lambda c: c["build"]["peak"] / vectors(c), True),
    ("serving: most memory ÷ the vectors' bytes", lambda c: c["serve"]["serving"]["peak"] / vectors(c), True),
)


def picture(cells: list[Cell], path: Path) -> None:
    """Small multiples over rows, one line a kind."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    plt.rcParams.update({"font.size": 10, "axes.titlesize": 11, "svg.hashsalt": "growth"})
    figure, axes = plt.subplots(3, 3, figsize=(13, 10.5), sharex=True)
    for ax, (title, value, logarithmic) in zip(axes.flat, PANELS, strict=True):
        for kind, (colour, marker, dash) in STYLES.items():
            line = [c for c in cells if c["kind"] == kind and c["dimension"] == LINE]
            ax.plot(
                [c["size"] for c in line],
                [value(c) for c in line],
                color=colour,
                marker=marker,
                linestyle=dash,
                linewidth=1.8,
                markersize=6,
                label=KINDS[kind],
            )
        ax.set_title(title)
        ax.set_xscale("log")
        if logarithmic:
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            ax.yaxis.set_minor_formatter(ticker.NullFormatter())
        elif title.startswith("recall"):
            ax.set_ylim(0.95, 1.002)
        else:
            ax.set_ylim(bottom=0)
            ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.grid(visible=True, which="major", color="#dddddd", linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
    ticks = sorted({c["size"] for c in cells if c["dimension"] == LINE})
    for ax in axes[-1]:
        ax.set_xticks(ticks, [f"{size // 1_000}k" if size < 10**6 else f"{size // 10**6}M" for size in ticks])
        ax.minorticks_off()
        ax.set_xlabel(f"rows of {LINE} dimensions")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(KINDS), frameon=False, fontsize=11)
    figure.tight_layout(rect=(0, 0, 1, 0.96))
    figure.savefig(path, dpi=110, metadata={"Software": None})


def against(ours: float, theirs: float, digits: str) -> str:
    """Ours, theirs, and ours over theirs."""
    return f"{ours:{digits}} · {theirs:{digits}} · {short_ratio(ours / theirs)}×"


def short_ratio(value: float) -> str:
    """Two decimals, and as many as it takes for a figure to show."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.1g}"


def loading(cells: dict[str, Cell]) -> list[str]:
    """Ingest, build, open, memory."""
    told = [
        "| kind | ingest, rows/s | optimize, s | both, s: ours · bare | open, s: ours · bare | loading ÷ vectors: ours · bare | serving ÷ vectors: ours · bare | of ours not mapped |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, name in KINDS.items():
        c = cells.get(kind)
        if c is None:
            told.append(f"| {name} | not run | | | | | | |")
            continue
        size, build, bare, serve = vectors(c), c["build"], c["bare_build"], c["serve"]
        whole = build["ingest_s"] + build["build_s"]
        both, most = f"{whole:.1f} · not run", f"{build['peak'] / size:.2f} · not run"
        if bare is not None:
            both = against(whole, bare["ingest_s"] + bare["build_s"] + bare["save_s"], ".1f")
            most = f"{build['peak'] / size:.2f} · {bare['peak'] / size:.2f}"
        serving, alone = serve["serving"], c["bare_serve"]["serving"]
        told.append(
            f"| {name} | {c['size'] / build['ingest_s']:,.0f} | {build['build_s']:.1f} | {both} "
            f"| {serve['open_s']:.2f} · {c['bare_serve']['open_s']:.2f} | {most} "
            f"| {serving['peak'] / size:.2f} · {alone['peak'] / size:.2f} | {serving['anonymous'] / size:.2f} |"
        )
    return told


def querying(cells: dict[str, Cell]) -> list[str]:
    """p50, p99, recall and rows under each filter."""
    told = [
        "| kind | filter | answered | p50, ms: ours · bare · ratio | p99, ms: ours · bare · ratio | recall: ours · bare | rows: ours · bare |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, name in KINDS.items():
        if kind not in cells:
            told.append(f"| {name} | | not run | | | | |")
            continue
        c = cells[kind]
        for found in FILTERS:
            a = c["serve"]["answers"][found]
            ours, bare = a["ours"], a["bare"]
            spare = c["serve"].get("spare", 1)
            how = "exactly" if a["coverage"] == "exact" else f"width {c['serve']['width']}"
            how += f", {spare} candidates a row" if spare > 1 and a["coverage"] != "exact" else ""
            told.append(
                f"| {name} | {'none' if found == 'all' else found} | {how} | {against(ours['p50_ms'], bare['p50_ms'], '.2f')} "
                f"| {against(ours['p99_ms'], bare['p99_ms'], '.2f')} | {ours['recall']:.3f} · {bare['recall']:.3f} "
                f"| {ours['rows']:.1f} · {bare['rows']:.1f} |"
            )
    return told


def growing(cells: list[Cell]) -> list[str]:
    """Each figure at each size, and how many times it grew from the fewest rows to the most."""
    sizes = sorted({c["size"] for c in cells if c["dimension"] == LINE})
    told = [
        "| what | kind | " + " | ".join(f"{size:,}" for size in sizes) + " | the last over the first |",
        "|---|---|" + "---|" * (len(sizes) + 1),
    ]
    extra: tuple[tuple[str, Callable[[Cell], float], bool], ...] = (
        ("width that optimize() chose", lambda c: c["serve"]["width"] if c["kind"] != "flat" else 0, False),
    )
    for title, value, _ in PANELS + extra:
        for kind, name in KINDS.items():
            if title.startswith("width") and kind == "flat":
                continue
            line = {c["size"]: value(c) for c in cells if c["kind"] == kind and c["dimension"] == LINE}
            shown = [short(line[size]) if size in line else "not run" for size in sizes]
            whole = line and sizes[0] in line and sizes[-1] in line and line[sizes[0]]
            grew = f"{line[sizes[-1]] / line[sizes[0]]:,.2f}×" if whole else ""
            told.append(f"| {title} | {name} | " + " | ".join(shown) + f" | {grew} |")
    return told


def short(value: float) -> str:
    """Three or four figures."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


HEAD = """\
# How the embedded engine grows

![Nine panels over the number of rows](growth.png)

Measured by `uv run --group bench --group hnswlib python bench/growth.py`, drawn and written by the same with `--plot`, from
`bench/results/growth.json`: {dates}; {versions}.

Absolute times are of two shared virtual cores **under other load** and good to a factor of two or three; the ratios are from turns of
ten queries each in one process. p50 is the median of 200 queries, one at a time on one thread (fewer, and 30 at least, where they are
slow, so p99 is the one or two slowest). Loading may use both cores.

- **Rows**: unit vectors of a mixture of 1,000 gaussians whose deviations fall as 1/√i along their axes, in random order, with one
  declared int field. Cosine. Queries are of the same mixture; recall is of the true ten nearest that the filter keeps.
- **bare** is the library with the same parameters on the same data and ten ids, scores and fields as the answer; FAISS filters by
  `IDSelectorBitmap` made from a numpy column, hnswlib by a Python function, which is what it offers. Queries run on the very file that
  `optimize()` wrote, at the width it chose, so the index is the same; sq8 candidates are ordered again by the vectors on both sides.
  Loading the bare library is gathering a matrix, building, and writing one file at the end: no durable commit, no check of the file.
  *not run*: not measured; `--bare-build` adds a bare build.
- **Graphs** have m 16 and ef_construction {widths} (the default is 200); all else is default. With 10,000 matching rows or fewer, or
  under a filter that keeps less than a fifth, the engine answers exactly; *answered* says so.
- **Memory** is the most that was resident, with the interpreter and its libraries (about 75 MiB) in it, and with the pages of mapped
  files, which the system may take back: *not mapped* is what it may not. Opening is of files that the system still has in its cache.

"""


def page(cells: list[Cell]) -> str:
    """docs/growth.md."""
    dates = sorted({c["date"] for c in cells})
    versions = sorted({f"{name} {told}" for c in cells for name, told in c["versions"].items()})
    widths = sorted({c["ef_construction"] for c in cells if c["ef_construction"]})
    told = HEAD.format(
        dates=" to ".join(sorted({dates[0], dates[-1]})),
        versions=", ".join(versions),
        widths=", ".join(map(str, widths)),
    ).splitlines()
    for size, dimension in FULL:
        chosen = {c["kind"]: c for c in cells if (c["size"], c["dimension"]) == (size, dimension)}
        command = f"`python bench/growth.py --sizes {size}x{dimension}`"
        told += [
            f"## {size:,} × {dimension}",
            "",
            f"{command}: {size * dimension * 4 / 2**20:,.0f} MiB of vectors.",
            "",
        ]
        told += [*loading(chosen), "", *querying(chosen), ""]
    told += [
        f"## From few rows to many, {LINE} dimensions",
        "",
        "`python bench/growth.py --sizes 10000,30000,100000,300000,1000000`",
        "",
    ]
    told += growing(cells)
    return "\n".join(told) + "\n"


def draw(cells: list[Cell], docs: Path) -> None:
    """Both."""
    picture(cells, docs / "growth.png")
    (docs / "growth.md").write_text(page(cells), "utf-8")
