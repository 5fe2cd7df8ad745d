"""`llamaspec bench --url`: a server measured from outside."""

import sys
from collections.abc import Mapping
from typing import Any

from llamaspec.bench.remote import measure_server
from llamaspec.bench.workload import Workload
from llamaspec.cli.bench_here import Outputs
from llamaspec.console.bench_server import ServerProgress, print_server_report


def bench_server(
    url: str, work: Workload, name: str, parameters: Mapping[str, Any], outputs: Outputs
) -> bool:
    """Measure the server at `url` and show what was found; False where Ctrl-C ended it early."""
    chosen = {"concurrency": parameters["concurrency"]} if parameters["concurrency"] else {}
    with ServerProgress(parameters["quiet"]) as progress:
        report = measure_server(
            url,
            work,
            name=name,
            model=parameters["model_name"],
            api_key=parameters["api_key"],
            n_predict=parameters["n_predict"],
            repeat=parameters["repeat"],
            on_progress=progress,
            **chosen,
        )
    if not outputs.takes_standard_output:
        print_server_report(report)
    outputs.write_json(report)
    for path in outputs.files:
        print(f"Written: {path}", file=sys.stderr)
    return report.complete
