"""All benchmarks, or those named, one after the other, and what they found in one table.

`make bench` runs all.
"""

from __future__ import annotations

import argparse
import os
import sys

from tests.benchmarks import (
    bench_audit,
    bench_cores,
    bench_data,
    bench_import,
    bench_playground,
    bench_quantizer,
    bench_training,
    bench_trainings,
    bench_watch,
)
from tests.benchmarks.goals import table, versions

ALL = (
    bench_import,
    bench_quantizer,
    bench_training,
    bench_watch,
    bench_data,
    bench_audit,
    bench_cores,
    bench_playground,
    bench_trainings,
)


def main() -> None:
    names = {module.__name__.rpartition("bench_")[2]: module for module in ALL}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    chosen = parser.parse_args().names or list(names)
    if unknown := set(chosen) - names.keys():
        parser.error(f"no benchmark {', '.join(unknown)}; expected some of {', '.join(names)}")
    for module in map(names.get, chosen):
        print(f"\n{module.__doc__.splitlines()[0]}", flush=True)
        sys.argv = [module.__name__]
        module.main()
    print(
        f"\n{versions('vqlib', 'torch', 'numpy', 'pandas', 'vector-quantize-pytorch', 'encodec')}"
    )
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n\n{table()}")


if __name__ == "__main__":
    main()
