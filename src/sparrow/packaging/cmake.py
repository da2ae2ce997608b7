"""Packages that CMake builds: plain, a Zephyr module, an ESP-IDF component."""

from __future__ import annotations

from sparrow.packaging.sources import NEEDED, Sources


def cmake(s: Sources) -> dict[str, str]:
    """A static library ``sparrow_model``; link it and call `model_run` or `model_selftest`."""
    name = f"sparrow_{s.name.text}"
    cpu = " ".join(s.cpu_flags)
    return {
        **s.files,
        "CMakeLists.txt": f"""\
cmake_minimum_required(VERSION 3.13)
project({name} C)

set(SPARROW_CPU_FLAGS "{cpu}" CACHE STRING "options that name the CPU")
separate_arguments(sparrow_cpu UNIX_COMMAND "${{SPARROW_CPU_FLAGS}}")

add_library({name} STATIC {" ".join(s.compiled)})
target_include_directories({name} PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})
target_compile_features({name} PRIVATE c_std_99)
target_compile_options({name} PRIVATE ${{sparrow_cpu}} -Os -ffreestanding {" ".join(NEEDED)}
  -ffunction-sections -fdata-sections)
""",
    }


def zephyr(s: Sources) -> dict[str, str]:
    """A Zephyr module; CONFIG_SPARROW_MODEL turns it on."""
    name, option = f"sparrow_{s.name.text}", f"SPARROW_{s.name.upper}"
    sources = "\n  ".join(s.compiled)
    return {
        **s.files,
        "zephyr/module.yml": f"name: {name}\nbuild:\n  cmake: .\n  kconfig: Kconfig\n",
        "Kconfig": (
            f'config {option}\n\tbool "{s.sentence}"\n\thelp\n'
            f"\t  Generated code; see {s.name.text}.h. {s.name.text}_selftest() checks it.\n"
        ),
        "CMakeLists.txt": f"""\
if(CONFIG_{option})
  zephyr_library_named({name})
  zephyr_library_sources(
  {sources})
  zephyr_library_compile_options({" ".join(NEEDED)})
  zephyr_include_directories(.)
endif()
""",
    }


def esp_idf(s: Sources) -> dict[str, str]:
    """An ESP-IDF component."""
    return {
        **s.files,
        "CMakeLists.txt": f"""\
idf_component_register(SRCS {" ".join(f'"{n}"' for n in s.compiled)} INCLUDE_DIRS ".")
target_compile_options(${{COMPONENT_LIB}} PRIVATE {" ".join(NEEDED)})
""",
        "idf_component.yml": f'version: "1.0.0"\ndescription: "{s.sentence}"\n',
    }
