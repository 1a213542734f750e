"""What tools/tidy and tools/check_house both know: our sources, and which own headers each one reaches."""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
CODE_FOLDERS = ("src", "tests", "bench", "fuzz")
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def includes(path, seen):
    """Adds `path` and every own header that it reaches to `seen`."""
    if path in seen or not path.is_file():
        return seen
    seen.add(path)
    for name in INCLUDE.findall(path.read_text(errors="replace")):
        for folder in (ROOT / "src", ROOT, path.parent):
            if (folder / name).is_file():
                includes((folder / name).resolve(), seen)
                break
    return seen


def own(entry):
    """Whether an entry of compile_commands.json is a source of ours."""
    path = pathlib.Path(entry["file"])
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in CODE_FOLDERS
