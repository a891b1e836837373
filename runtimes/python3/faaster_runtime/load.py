"""Finds a function's handler: search path, environment, import, and a clear sentence when that fails.

Owns: sys.path, the environment, the choice of module. Must not know: frames, threads.
"""
import _imp
import importlib
import importlib.machinery as machinery
import importlib.util
import os
import sys
import time
import types

from .failure import LoadError, user_stack
from .frames import READ_BYTES

# Where vendored packages may lie, in the order of the search.
PACKAGE_FOLDERS = ("python", "vendor")
LAYER_DIR = "/opt/python"
OWN_VARIABLES = (
    "LAMBDA_TASK_ROOT",
    "_HANDLER",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
)
BUILTIN = frozenset(sys.builtin_module_names)
BYTECODE_FOLDER = "__pycache__"
# Of bytecode that lies where it is expected; empty where it does not, or is of another kind (-O).
_BYTECODE_SUFFIX = (
    f".{sys.implementation.cache_tag}.pyc"
    if sys.implementation.cache_tag and not sys.flags.optimize and not sys.pycache_prefix
    else ""
)
LOADERS = (
    (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES),
    (machinery.SourceFileLoader, machinery.SOURCE_SUFFIXES),
    (machinery.SourcelessFileLoader, machinery.BYTECODE_SUFFIXES),
)


def expect(task_dir):
    """Before there is a function: makes what imports from its folder, which else asks first whether that is an archive."""
    sys.path_importer_cache[task_dir] = machinery.FileFinder(task_dir, *LOADERS)


def apply_environment(load, task_dir):
    """The function's own variables, then the names under which AWS's libraries look for what they run in."""
    # One by one: update() asks abstract base classes first what it is given, on pages that siblings share.
    environment, get = os.environ, load.get
    own = task_dir, get("handler", ""), get("functionName", ""), get("functionVersion", ""), str(get("memoryMB", ""))
    for name, value in zip(OWN_VARIABLES, own):
        environment[name] = value
    for name, value in (load.get("env") or {}).items():
        environment[name] = value
    if "TZ" in environment:
        time.tzset()


def set_search_path(task_dir, entries):
    """The function's folders come before everything else; `entries` are the names in its own. PYTHONPATH is honoured
    although the interpreter runs with -E."""
    wanted = [os.path.join(task_dir, folder) for folder in PACKAGE_FOLDERS if folder in entries]
    wanted += [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    wanted.append(LAYER_DIR)
    sys.dont_write_bytecode = True  # the function's folder is read-only: do not try
    found = [entry for entry in dict.fromkeys(wanted) if entry != task_dir and _is_folder(entry)]
    sys.path[:0] = [task_dir, *found]


def _is_folder(path):
    """As os.path.isdir(), without the two dozen numbers or the exception that it comes by its answer with."""
    return os.access(path + "/.", os.F_OK)


def make_room(task_dir, entries, core_modules):
    """Lets a user's module have the name of a module that priming has imported, as with a fresh interpreter.

    What the interpreter itself had loaded before the bootstrap began stays, as it would there.
    """
    for entry in entries:
        name = entry.partition(".")[0]
        if name in sys.modules and name not in core_modules and _is_module(task_dir, entry):
            for loaded in [key for key in sys.modules if key == name or key.startswith(name + ".")]:
                del sys.modules[loaded]


def _is_module(task_dir, entry):
    if entry.endswith((".py", ".so")):
        return True
    return os.path.isfile(os.path.join(task_dir, entry, "__init__.py"))


def find_handler(spec, task_dir, entries):
    """The callable that `spec` names: `module.function`, `pkg/module.function` or `pkg.module.function`. `entries` are the
    names in the function's folder."""
    path, _, attribute = spec.rpartition(".")
    name = path.replace("/", ".")
    if not attribute or not name or "" in name.split("."):
        raise LoadError("Runtime.MalformedHandlerName", f"handler '{spec}' is not of the form module.function")
    module = _import(spec, name, task_dir, entries)
    try:
        handler = getattr(module, attribute)
    except AttributeError:
        raise LoadError(
            "Runtime.HandlerNotFound", f"handler '{spec}' not found: module '{name}' has no attribute '{attribute}'"
        ) from None
    if not callable(handler):
        kind = type(handler).__name__
        raise LoadError("Runtime.HandlerNotFound", f"handler '{spec}' cannot be called: '{attribute}' is of type {kind}")
    return handler


def _import(spec, name, task_dir, entries):
    try:
        return _import_file(name, task_dir, entries) if _is_plain(name, entries) else importlib.import_module(name)
    except ModuleNotFoundError as missing:
        # Is it the handler's own module (or a package on the way to it), or something that it imports?
        if missing.name and (name == missing.name or name.startswith(missing.name + ".")):
            file = name.replace(".", "/") + ".py"
            raise LoadError(
                "Runtime.ImportModuleError",
                f"handler '{spec}' not found: there is no module '{name}' in {task_dir} (expected {file})",
            ) from None
        raise _import_error(name, missing) from missing
    except ImportError as failed:
        raise _import_error(name, failed) from failed
    except SyntaxError as wrong:
        where = f"{wrong.filename}, line {wrong.lineno}"
        stack = user_stack(wrong) + [f'  File "{wrong.filename}", line {wrong.lineno}\n    {(wrong.text or "").strip()}\n']
        raise LoadError(
            "Runtime.UserCodeSyntaxError", f"syntax error in module '{name}': {wrong.msg} ({where})", stack
        ) from wrong


def _is_plain(name, entries):
    """Whether a module could only be the one file of its name in the function's folder."""
    if name in sys.modules or name in BUILTIN or _imp.is_frozen(name):
        return False
    return [entry for entry in entries if entry.partition(".")[0] == name] == [name + ".py"]


def _import_file(name, task_dir, entries):
    """As import_module() does it once it has found the file. The search costs more than the rest: it asks every finder,
    and lists the folder again."""
    path = f"{task_dir}/{name}.py"
    loader = machinery.SourceFileLoader(name, path)
    if BYTECODE_FOLDER in entries or not _BYTECODE_SUFFIX:
        spec = importlib.util.spec_from_file_location(name, path, loader=loader)
        module, execute = importlib.util.module_from_spec(spec), loader.exec_module
    else:
        module, execute = _module_of(name, path, task_dir, loader), _execute
    sys.modules[name] = module
    try:
        execute(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    # It may have put something else there.
    return sys.modules[name]


def _module_of(name, path, task_dir, loader):
    """What module_from_spec() makes for a file, of which there is no bytecode. All that it asks on the way would be asked in
    every child of a fork server, and written to pages that these share."""
    spec = machinery.ModuleSpec(name, loader, origin=path)
    spec.has_location = True
    spec.cached = f"{task_dir}/{BYTECODE_FOLDER}/{name}{_BYTECODE_SUFFIX}"
    module = types.ModuleType(name)
    about = module.__dict__
    about["__loader__"], about["__spec__"], about["__package__"] = loader, spec, ""
    about["__file__"], about["__cached__"] = path, spec.cached
    return module


def _execute(module):
    path = module.__file__
    try:
        source = _read(path)
    except IsADirectoryError:
        raise ModuleNotFoundError(f"No module named {module.__name__!r}", name=module.__name__) from None
    exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)


def _read(path):
    """Without the three objects that a file is for Python, and without its size, which is a fourth."""
    pieces, file = [], os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while piece := os.read(file, READ_BYTES):
            pieces.append(piece)
    finally:
        os.close(file)
    return b"".join(pieces)


def _import_error(name, cause):
    return LoadError("Runtime.ImportModuleError", f"cannot import module '{name}': {cause}", user_stack(cause))
