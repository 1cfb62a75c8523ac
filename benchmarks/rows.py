"""The table: every row, its bar, and the peers that can be measured at it.

What each row runs, and how it is measured, stands in its program's docstring.
"""

from __future__ import annotations

from benchmarks.figures import OURS, OVER_TCP, Row

POOLS = ("Pool", "ProcessPoolExecutor", "mpi4py.futures")
INSTALLED = ("joblib", "SCOOP", "Dask", "Ray")
NESTING = ("SCOOP", "Dask", "Ray")

MAPS = (
    Row(
        name="noop",
        title="no-op map over 10^6 ints, default call",
        program="noop",
        unit="µs/item",
        bar=1.5,
        bar_text="≤ 1.5 × serial",
        peers=(*POOLS, *INSTALLED),
    ),
    Row(
        name="grid",
        title="grid of item cost × size × kind × number × payload: worst time over what is allowed",
        program="grid",
        unit="",
        bar=1.0,
        bar_text="each map ≤ 1.5 × serial + 1 ms",
        rounds=1,
        timeout=600.0,
    ),
    Row(
        name="grid-cold",
        title="the same grid, each map the first of its function",
        program="grid",
        arguments=("cold=1",),
        unit="",
        bar=1.0,
        bar_text="each map ≤ 1.5 × serial + 1 ms",
        rounds=1,
        timeout=600.0,
    ),
    Row(
        name="small-items",
        title="map of items that cost 5 µs: efficiency",
        program="small_items",
        unit="",
        bar=0.90,
        higher_is_better=True,
        peers=(*POOLS, *INSTALLED),
    ),
    Row(
        name="metg",
        title="METG(50%)",
        program="metg",
        unit="µs",
        bar=1.0,
        peers=(*POOLS, *INSTALLED),
        singly=("Pool",),
    ),
    Row(
        name="uneven",
        title="400 tasks of Pareto-distributed length: efficiency",
        program="uneven",
        unit="",
        bar=0.97,
        higher_is_better=True,
        peers=(*POOLS, *INSTALLED),
    ),
)

TASKS = (
    Row(
        name="single-calls",
        title="100,000 × apply_async, then get",
        program="single_calls",
        unit="µs/call",
        bar=10.0,
        peers=(*POOLS, *INSTALLED),
    ),
    Row(
        name="tree",
        title="binary tree of depth 12, a nested map a node",
        program="tree",
        unit="µs/node",
        bar=8.0,
        peers=NESTING,
    ),
    Row(
        name="fib",
        title="fib(20), a spawn per call",
        program="fib",
        unit="µs/call",
        bar=10.0,
        peers=("SCOOP", "Ray"),
    ),
    Row(
        name="uts-1000",
        title="UTS, 1.03 million nodes, tasks of at most 1,000: efficiency",
        program="uts",
        arguments=("grain=1000",),
        unit="",
        bar=0.92,
        higher_is_better=True,
        peers=(*POOLS, *NESTING),
    ),
    Row(
        name="uts-200",
        title="UTS, 1.03 million nodes, tasks of at most 200: efficiency",
        program="uts",
        arguments=("grain=200",),
        unit="",
        bar=0.85,
        higher_is_better=True,
        peers=(*POOLS, *NESTING),
    ),
)

MACHINERY = (
    Row(
        name="steal",
        title="from the start of a pure-Python loop until another worker has its sibling, p99",
        program="steal",
        unit="ms",
        bar=2.0,
    ),
    Row(
        name="overhead",
        title="a CPU-bound task with the load-balancer thread alive",
        program="overhead",
        unit="ms",
        bar=1.01,
        bar_text="≤ 1.01 × without dtm",
        peers=("serial",),
        against="serial",
        rounds=5,
    ),
    Row(
        name="sleepers",
        title="64 workers on these cores, 640 sleeps of 100 ms: of ideal",
        program="sleepers",
        unit="",
        bar=0.96,
        higher_is_better=True,
        peers=POOLS,
        workers=64,
        rounds=1,
    ),
    Row(
        name="startup",
        title="the overview's program, process start to exit",
        program="startup",
        unit="s",
        bar=1.8,
        bar_text="≤ 1.8 × Pool, local",
        asked_of=("dtm local",),
        peers=("serial", *POOLS, *INSTALLED),
        against="Pool",
        from_outside=True,
        rounds=15,
    ),
    Row(
        name="idle",
        title="an idle worker while another is busy for 10 s",
        program="idle",
        unit="% of a core",
        bar=2.0,
        peers=("Pool", "mpi4py.futures"),
        rounds=1,
    ),
    Row(
        name="memory",
        title="10^6-item map of ints: root's peak over inputs and results",
        program="memory",
        unit="×",
        bar=2.0,
        peers=("Pool",),
        rounds=1,
    ),
    Row(
        name="memory-5us",
        title="the same, items of 5 µs, which travel",
        program="memory",
        arguments=("cost=5",),
        unit="×",
        bar=2.0,
        peers=("Pool",),
        rounds=1,
    ),
)

TRACES = (
    *(
        Row(
            name=f"traced-{what}",
            title=title,
            program="recorded_tasks",
            arguments=(f"what={what}",),
            unit=unit,
            bar=1.03,
            bar_text="≤ 1.03 × the same without",
            ours=("dtm traced",),
            asked_of=("dtm traced",),
            peers=("dtm local",),
            against="dtm local",
            workers=workers,
            rounds=5,
        )
        for what, workers, title, unit in (
            ("tasks", 2, "100,000 tasks of 100 µs, recorded: time by that without any cost", "×"),
            ("strip", 1, "a task of 100 µs and what it costs, recorded", "µs of processor time"),
        )
    ),
    Row(
        name="untraced",
        title="a task of 100 µs: what it costs that it could be recorded",
        program="recorded_tasks",
        arguments=("what=hook",),
        unit="%",
        bar=0.5,
        ours=("dtm local",),
        asked_of=("dtm local",),
        rounds=1,
    ),
    *(
        Row(
            name=f"report-{what}",
            title=f"report of 10^6 events {words}",
            program="report_page",
            arguments=(f"what={what}",),
            unit="s",
            bar=bar,
            ours=("dtm offline",),
            asked_of=("dtm offline",),
            rounds=1,
        )
        for what, words, bar in (
            ("made", "is made", 30.0),
            ("opened", "opens in Chromium", 3.0),
            ("zoomed", "zooms", 3.0),
        )
    ),
    Row(
        name="predict",
        title="prediction for 16,384 workers from 10^6 tasks",
        program="prediction",
        unit="s",
        bar=600.0,
        ours=("dtm offline",),
        asked_of=("dtm offline",),
        rounds=1,
        timeout=1200.0,
    ),
)

GENERATIONS = (
    *(
        Row(
            name=f"generations-{workers}" + ("-ten" if a_worker == "10" else ""),
            title=f"maps of {a_worker} sleeps a worker, {workers} workers: of a greedy schedule",
            program="generations",
            arguments=(f"a-worker={a_worker}",),
            unit="",
            bar=bar,
            mpi_bar=mpi_bar,
            higher_is_better=True,
            peers=("Pool", "schwimmbad"),
            workers=workers,
        )
        for workers, a_worker, bar, mpi_bar in (
            (2, "2.5", 0.95, 0.93),
            (4, "2.5", 0.95, 0.93),
            (8, "2.5", 0.92, 0.88),
            (16, "2.5", 0.92, 0.88),
            (4, "10", 0.95, 0.93),
            (16, "10", 0.94, 0.88),
        )
    ),
    Row(
        name="generations-spin",
        title="maps of 2.5 busy loops of 5 ms a worker: of a greedy schedule",
        program="generations",
        arguments=("what=spin",),
        unit="",
        bar=0.95,
        mpi_bar=0.93,
        higher_is_better=True,
        peers=("Pool", "schwimmbad"),
    ),
)

FITTING_IN = (
    Row(
        name="executor",
        title="calls by an executor, then their results",
        program="fitting_in",
        arguments=("what=submit",),
        unit="µs/call",
        bar=25.0,
        peers=("ProcessPoolExecutor", "mpi4py.futures"),
    ),
    Row(
        name="pool-map",
        title="dtm.Pool().map, items that do nothing and of 5 µs: the worse ratio to dtm.map",
        program="fitting_in",
        arguments=("what=pool",),
        unit="×",
        bar=1.05,
    ),
    Row(
        name="joblib",
        title="joblib's Parallel over calls of 10 µs",
        program="fitting_in",
        arguments=("what=joblib",),
        unit="µs/call",
        bar=0.334,
        bar_text="≤ a third of joblib over loky",
        peers=("joblib",),
        against="joblib",
    ),
)

LINKS = tuple(
    Row(
        name=f"{name}-{way}",
        title=f"{title}, {words}",
        program="link",
        arguments=(f"what={name}",),
        unit=unit,
        bar=bars[way],
        higher_is_better=name == "bandwidth",
        ours=(*OURS, f"dtm {way}"),
        asked_of=(f"dtm {way}",),
    )
    for name, title, unit, bars in (
        ("round-trip", "8 bytes to another worker and back", "µs", {"tcp": 60.0, "tls": 100.0}),
        ("bandwidth", "arrays of 64 MB to another worker", "GB/s", {"tcp": 1.5, "tls": 0.7}),
    )
    for way, words in (("tcp", "authenticated"), ("tls", "TLS"))
)

LOCAL_LINK = Row(
    name="round-trip-local",
    title="8 bytes to another worker and back",
    program="link",
    arguments=("what=round-trip",),
    unit="µs",
    bar=25.0,
    asked_of=("dtm local",),
)

JOINING = Row(
    name="join-200",
    title="200 processes of this machine join a run over TCP",
    program="link",
    arguments=("what=join",),
    unit="s",
    bar=20.0,
    ours=OVER_TCP,
    asked_of=OVER_TCP,
    workers=200,
    rounds=1,
)

EVOLUTIONS = tuple(
    Row(
        name=f"deap-{genome}-{cost}",
        title=f"DEAP, 300 {words}, 15 generations, {cost} µs an evaluation: speed-up",
        program="evolution",
        arguments=(f"genome={genome}", f"cost={cost}"),
        unit="×",
        bar=bar,
        higher_is_better=True,
        peers=("Pool", "serial"),
    )
    for genome, words, bars in (
        ("list", "lists of 30 floats", (1.85, 1.6, 0.97)),
        ("gp", "trees with lambda constants", (1.8, 1.4, 0.97)),
    )
    for cost, bar in zip((1000, 200, 50), bars, strict=True)
)

LARGE_DATA = (
    Row(
        name="arrays-in",
        title="32 arrays of 8 MB, each summed up",
        program="large_data",
        arguments=("what=arrays-in",),
        unit="MB/s",
        bar=5000.0,
        higher_is_better=True,
        peers=("Pool", "joblib", "serial"),
    ),
    Row(
        name="arrays-both",
        title="32 arrays of 8 MB, each comes back with 1 added",
        program="large_data",
        arguments=("what=arrays-both",),
        unit="MB/s",
        bar=3000.0,
        higher_is_better=True,
        peers=("Pool", "joblib", "serial"),
    ),
    *(
        Row(
            name=f"along-{size}-{cost}",
            title=f"1,000 tasks of {words} that share {size} MB, new each time: beyond the loop",
            program="large_data",
            arguments=("what=along", f"size={size}", f"cost={cost}"),
            unit="s",
            bar=bar,
            peers=("Pool", "joblib"),
        )
        for size, bar in ((20, 0.05), (400, 0.6))
        for cost, words in ((0, "no length"), (1000, "1 ms (half of it)"))
    ),
    Row(
        name="first-by-value",
        title="the first map of what goes by value, over the second",
        program="large_data",
        arguments=("what=first",),
        unit="×",
        bar=1.1,
    ),
    Row(
        name="closures",
        title="1,000 generations with a new closure of 20 MB: growth of any worker",
        program="large_data",
        arguments=("what=generations",),
        unit="MB",
        bar=50.0,
        rounds=1,
        timeout=600.0,
    ),
)

ROWS = {
    row.name: row
    for row in (
        *MAPS,
        *GENERATIONS,
        *TASKS,
        *EVOLUTIONS,
        *LARGE_DATA,
        *FITTING_IN,
        *MACHINERY,
        *TRACES,
        LOCAL_LINK,
        *LINKS,
        JOINING,
    )
}
