"""``mmembed mcp`` as an agent starts it: a process that speaks over its standard streams."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from mmembed import Embedder, Index
from mmembed.cli import app
from mmembed.commands.output import run


def test_an_agent_searches_by_the_command(tmp_path: Path, project_root: Path) -> None:
    pytest.importorskip("mcp", reason="mcp is not installed")
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    (tmp_path / "bread.txt").write_text("Bread is baked from flour, water and yeast.")
    (tmp_path / "tax.txt").write_text("The tax return is due in spring.")
    with Index.open(tmp_path, Embedder.from_pretrained("mini")) as index:
        index.add(tmp_path)
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "mmembed.cli", "mcp", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(project_root)},
    )

    async def ask() -> Any:
        async with stdio_client(server) as streams, ClientSession(*streams) as session:
            await session.initialize()
            return await session.call_tool("search", {"query": "how to bake", "k": 1})

    found = asyncio.run(asyncio.wait_for(ask(), 240))
    (hit,) = found.structured_content["result"]
    assert hit["name"] == "bread.txt"


def test_a_folder_without_an_index_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, ["mcp", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
