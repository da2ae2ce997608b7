"""What mutators put in: numbers at the edges, names that mean something to whoever reads them."""

from __future__ import annotations

INTEGERS = (
    *(0, 1, -1, 2, 3, 7, 8, 16, 17, 64, 127, 128, -128, 255, 256, 1000, 4096, 32768, 65536),
    *(1 << 20, 1 << 24, (1 << 31) - 1, 1 << 31, -(1 << 31), (1 << 32) - 1, 1 << 32, 1 << 40),
    *(1 << 53, (1 << 62), (1 << 63) - 1, -(1 << 63), -(1 << 62), -2, -3, -7),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e38, -1e38, float("inf"), float("-inf"), float("nan"))

# each means something to C, HTML, a shell, a file system, a terminal, Python or protobuf
HOSTILE = (
    "",
    " ",
    "x" * 5000,
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
    "a\0b",
    "a\nb",
    'a"b\\',
    "*/ int main(void){",
    "/*",
    "//",
    "??/",
    "\\\n",
    "#include </etc/passwd>",
    '"); system("id"); ("',
    "%s%n%d",
    "%1",
    "{{7*7}}",
    "{% raw %}",
    "<script>alert(1)</script>",
    "</script>",
    "<!--",
    "]]>",
    "&lt;",
    "' onload='x",
    "$(id)",
    "`id`",
    "; rm -rf ~",
    "| cat",
    "-o",
    "--help",
    "\x1b[31m",
    "\x9b31m",
    "\u202edesrever",
    "\ufeff",
    "\u2028",
    "\ud7ff",
    "é" * 40,
    "main",
    "int",
    "model_run",
    "__proto__",
    "receipt.json",
    "CON",
    ".",
    "..",
    "~",
)

# where a tensor may claim to lie
LOCATIONS = (
    *("weights.bin", "./weights.bin", "sub/w.bin", "sub/../weights.bin", "../secret", "link.bin"),
    *("linkdir/secret", "/etc/passwd", "C:\\x", "\\\\host\\share", "weights.bin\0", "", ".", "sub"),
    *("m.onnx", "none.bin", "/dev/zero", "/proc/self/mem", "fifo", "x" * 5000, "a/" * 300 + "b"),
    *("file:///etc/passwd", "weights.bin/", "~/x", "$HOME/x"),
)
