"""`bcd-bench demo`: a local page for `bcd-bench transfer`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bcd_bench.cli.common import load
from bcd_bench.types.errors import UsageError
from bcd_bench.util.devices import DEVICES, device_name

EXAMPLES = ("bcd-bench demo", "bcd-bench demo --port 8000 --device cuda --no-browser")
LARGEST_UPLOAD = "1gb"


def command(
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Address to listen on; others than the default are open to a network."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=1, max=65535, help="Port of the page.")] = 7860,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
    device: Annotated[str, typer.Option(metavar="DEVICE", help=f"{DEVICES}.")] = "cpu",
) -> None:
    """Open a local page to animate photos and clips. Ctrl-C stops it."""
    from bcd_bench.inference.page import Demo, build_page, choices, gradio

    gr = gradio()
    usable, missing = choices(load())
    if not usable:
        raise UsageError("no installed method can run", hint="bcd-bench doctor")
    with tempfile.TemporaryDirectory(prefix="bcd-bench-demo-") as folder:
        demo = Demo(usable, Path(folder), device_name(device))
        page = build_page(demo, usable, missing)
        # Fonts of the system: the default theme would load some from another server.
        theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
        print(f"http://{host}:{port}  (Ctrl-C stops it)", flush=True)
        try:
            page.launch(
                server_name=host,
                server_port=port,
                inbrowser=not no_browser,
                share=False,
                quiet=True,
                theme=theme,
                footer_links=[],
                allowed_paths=[folder],
                max_file_size=LARGEST_UPLOAD,
                ssr_mode=False,
            )
        except OSError as error:  # the port is in use, or the address is not of this machine
            raise UsageError(f"cannot listen on {host}:{port}: {error}", hint="--port N") from error
        finally:
            demo.close()
