"""A plugin never imports a sibling plugin, so that adding or removing one touches one file."""

from __future__ import annotations

import grimp
import pytest

from llm_os import plugins


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("llm_os", cache_dir=None)


@pytest.mark.parametrize("family", plugins.FAMILIES)
def test_plugins_of_a_family_do_not_know_each_other(family: str, graph: grimp.ImportGraph) -> None:
    modules = {entry.module for entry in plugins.scan(family).values()}
    assert modules, f"there is no {family} plugin"
    assert modules <= graph.modules
    chains = {
        f"{one} knows {other}"
        for one in modules
        for other in modules - {one}
        if graph.chain_exists(importer=one, imported=other)
    }
    assert not chains


def test_outside_the_kernel_only_its_syscalls_are_known(graph: grimp.ImportGraph) -> None:
    strangers = {
        f"{importer} knows {module}"
        for module in graph.find_descendants("llm_os.kernel") - {"llm_os.kernel.syscalls"}
        for importer in graph.find_modules_that_directly_import(module)
        if not importer.startswith(("llm_os.kernel", "llm_os.app", "llm_os.testing"))
    }
    assert not strangers
