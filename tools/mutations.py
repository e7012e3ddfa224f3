"""The small mistakes that `tools.mutants` makes in a module, one at a time.

Left alone is what no number depends on: annotations, docstrings and other text, decorators, what an error says, which
warnings numpy gives, and `strict=` of `zip`.
"""

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_PAIRS = "amin amax|minimum maximum|argmin argmax|nanmin nanmax|floor ceil|zeros ones|sin cos|mean sum|nanmean nansum"
_BUILT_IN = {old: new for pair in ("min max", "any all") for old, new in (pair.split(), pair.split()[::-1])}
_ATTRIBUTES = _BUILT_IN | {old: new for p in _PAIRS.split("|") for old, new in (p.split(), p.split()[::-1])}
_ATTRIBUTES |= {"median": "mean", "nanmedian": "nanmean", "std": "var", "cumsum": "cumprod", "prod": "sum"}
_UNWRAPPED = {"abs", "clamp", "clamp_min", "clip", "nan_to_num", "rint", "round", "sort", "sorted", "sqrt", "square"}
_LIBRARIES = {"F", "math", "np", "numeric", "torch"}
_SYMMETRIC = {"array_equal", "gcd", "hypot", "isclose", "logical_and", "logical_or", "max", "maximum", "min", "minimum"}
_TEXT = (ast.Raise, ast.Import, ast.ImportFrom, ast.JoinedStr, ast.Assert, ast.Global, ast.Nonlocal)
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, eq=False)
class Mutant:
    """One change of a module.

    Attributes:
        function: Qualified name of the function or class that it is in; at the top of a module, of what is assigned.
        change: What it was and what it becomes; with a number where one function has the same change several times.
        lines: Line of the change, and the last line of its statement.
        top: Whether it runs when the module is imported.
        parent: The node whose `field` changes.
        field: Name of the field.
        index: Place in the field, where that is a list.
        new: What comes there.
    """

    function: str
    change: str
    lines: tuple[int, int]
    top: bool
    parent: ast.AST
    field: str
    index: int | None
    new: ast.AST

    @property
    def key(self) -> str:
        """What it is known by, whatever line it is in."""
        return f"{self.function}: {self.change}"

    @property
    def order(self) -> str:
        """Orders mutants for a sample, which stays the same where other code of the module changes."""
        return hashlib.sha256(self.key.encode()).hexdigest()

    def apply(self) -> None:
        """Makes the change in the tree that the mutants are of, for good."""
        if self.index is None:
            setattr(self.parent, self.field, self.new)
        else:
            getattr(self.parent, self.field)[self.index] = self.new


def mutants_of(tree: ast.Module) -> list[Mutant]:
    """Returns all mutants of a module, in the order of its code."""
    found, seen = [], Counter[str]()
    for mutant in _inside(tree, "", (1, 1), top=True):
        seen[mutant.key] += 1
        number = f" ({seen[mutant.key]})" if seen[mutant.key] > 1 else ""
        found.append(Mutant(**{**vars(mutant), "change": mutant.change + number}))
    return found


def _inside(parent: ast.AST, function: str, lines: tuple[int, int], top: bool) -> Iterator[Mutant]:
    for field, value in ast.iter_fields(parent):
        if field in ("annotation", "returns", "decorator_list", "bases", "type_params"):
            continue
        inner = top and not (field == "body" and isinstance(parent, (*_FUNCTION, ast.Lambda)))
        for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(node, ast.AST) or isinstance(node, _TEXT) or _is_left_alone(node):
                continue
            at = (node.lineno, _last_line(node)) if isinstance(node, ast.stmt) else lines
            for new in _variants(node, parent):
                if ast.dump(new) == ast.dump(node):
                    continue
                ast.fix_missing_locations(ast.copy_location(new, node) if hasattr(node, "lineno") else new)
                line = getattr(node, "lineno", at[0])
                yield Mutant(function, _change(node, new, parent), (line, at[1]), inner, parent, field, index, new)
            yield from _inside(node, _name(node, function), at, inner)


def _name(node: ast.AST, above: str) -> str:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return f"{above}.{name}" if above else name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)) if not above:
            return name
    return above


def _is_left_alone(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Constant()) | ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.keyword(arg="strict"):
            return True
        case ast.Call(func=ast.Name(id="TypeVar" | "cast") | ast.Attribute(value=ast.Name(id="warnings" | "logger"))):
            return True
        case ast.Call(func=ast.Attribute(attr="errstate")):
            return True
    return False


def _last_line(node: ast.stmt) -> int:
    body = getattr(node, "body", None)
    return max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno


def _change(old: ast.AST, new: ast.AST, parent: ast.AST) -> str:
    if isinstance(old, ast.Constant | ast.UnaryOp | ast.keyword | ast.Name) and isinstance(parent, ast.expr):
        shown = ast.unparse(parent)  # a bare 1 would say nothing
        return f"{ast.unparse(old)} -> {ast.unparse(new)} in {' '.join(shown.split())}"
    tests = [node.test if isinstance(node, ast.If) else node for node in (old, new)]
    return " -> ".join(" ".join(ast.unparse(node).split()) for node in tests)


def _variants(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST]:
    """Yields what comes in the place of a node, a change each."""
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            yield from map(ast.Constant, (-value + 1, -value - 1, value))
        case ast.UnaryOp(op=ast.USub() | ast.Not() | ast.Invert(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value) if not _is_minus(parent):
            yield from map(ast.Constant, [value + 1, value - 1 if isinstance(value, int) or not value else -value])
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            for place, op in enumerate(ops):
                for other in _COMPARED[type(op)]:
                    yield ast.Compare(left, [*ops[:place], other(), *ops[place + 1 :]], comparators)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _COMPUTED:
            yield ast.BinOp(left, _COMPUTED[type(op)](), right)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.Subscript(value=value, slice=ast.Slice(lower=low, upper=high, step=step), ctx=ctx):
            for bounds in ((None, high, step), (low, None, step)):
                if bounds != (low, high, step):
                    yield ast.Subscript(value, ast.Slice(*bounds), ctx)
        case ast.Call():
            yield from _calls(node)
        case ast.AugAssign(target=target, op=op, value=value):
            yield ast.Pass()
            if type(op) in _COMPUTED:
                yield ast.AugAssign(target, _COMPUTED[type(op)](), value)
        case ast.Expr(value=ast.Call()) | ast.Assign(targets=[ast.Subscript() | ast.Attribute()]):
            yield ast.Pass()
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None))
        case ast.If(test=test, body=body, orelse=other) if not isinstance(test, ast.Compare | ast.UnaryOp):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, other)
        case ast.IfExp(test=test, body=body, orelse=other) if not isinstance(test, ast.Compare | ast.UnaryOp):
            yield ast.IfExp(test, other, body)
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()


def _calls(call: ast.Call) -> Iterator[ast.expr]:
    name = ""
    match call.func:
        case ast.Name(id=name):
            if name in _BUILT_IN:
                yield ast.Call(ast.Name(_BUILT_IN[name], ast.Load()), call.args, call.keywords)
            if name in _UNWRAPPED and call.args:
                yield call.args[0]
        case ast.Attribute(value=value, attr=name):
            if name in _ATTRIBUTES:
                yield ast.Call(ast.Attribute(value, _ATTRIBUTES[name], ast.Load()), call.args, call.keywords)
            if name in _UNWRAPPED:
                yield call.args[0] if isinstance(value, ast.Name) and value.id in _LIBRARIES and call.args else value
    plain = not any(isinstance(one, ast.Starred) for one in call.args[:2])
    if len(call.args) > 1 and plain and name not in _SYMMETRIC:
        yield ast.Call(call.func, [call.args[1], call.args[0], *call.args[2:]], call.keywords)
    for place, keyword in enumerate(call.keywords):
        if keyword.arg not in (None, "strict"):
            yield ast.Call(call.func, call.args, [*call.keywords[:place], *call.keywords[place + 1 :]])


def _is_minus(parent: ast.AST) -> bool:
    return isinstance(parent, ast.UnaryOp) and isinstance(parent.op, ast.USub)
