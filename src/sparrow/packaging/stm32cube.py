"""A CMSIS pack description beside the sources: STM32CubeMX and STM32CubeIDE take it as a pack."""

from __future__ import annotations

from xml.sax.saxutils import escape

from sparrow.packaging.sources import Sources


def stm32cube(s: Sources) -> dict[str, str]:
    """Sources in ``Src`` and ``Inc``, and ``Sparrow.Model.pdsc``."""
    name = s.name.camel
    tree = {f"{'Inc' if n.endswith('.h') else 'Src'}/{n}": t for n, t in s.files.items()}
    rows = "\n".join(
        f'        <file category="{"header" if n.endswith(".h") else "source"}" name="{n}"/>'
        for n in sorted(tree)
    )
    tree[f"Sparrow.{name}.pdsc"] = f"""\
<?xml version="1.0" encoding="UTF-8"?>
<package schemaVersion="1.4" xmlns:xs="http://www.w3.org/2001/XMLSchema-instance">
  <vendor>Sparrow</vendor>
  <name>{name}</name>
  <description>{escape(s.sentence)}</description>
  <url></url>
  <releases><release version="1.0.0">Generated.</release></releases>
  <conditions><condition id="Cortex-M"><require Tcompiler="GCC"/></condition></conditions>
  <components>
    <component Cclass="Machine Learning" Cgroup="{name}" Cversion="1.0.0" condition="Cortex-M">
      <description>{escape(s.sentence)}</description>
      <files>
{rows}
      </files>
    </component>
  </components>
</package>
"""
    return tree
