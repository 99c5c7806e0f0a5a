"""All benchmarks, one after the other, and what they found in one table. `make bench` runs it."""

from __future__ import annotations

import os
import sys

from tests.benchmarks import (
    bench_audit,
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
    bench_playground,
    bench_trainings,
)


def main() -> None:
    for module in ALL:
        print(f"\n{module.__doc__.splitlines()[0]}", flush=True)
        sys.argv = [module.__name__]
        module.main()
    print(
        f"\n{versions('vqlib', 'torch', 'numpy', 'pandas', 'vector-quantize-pytorch', 'encodec')}"
    )
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n\n{table()}")


if __name__ == "__main__":
    main()
