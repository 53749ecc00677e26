//! What a template may say: a part of Jinja in which nothing grows unseen.
//!
//! An engine's fuel bounds the steps of a template, and not what each of them holds in memory: twenty `{% set a = a ~ a %}`
//! make a megabyte of one byte. So texts are put together only where the result is written, which the limit of the whole
//! counts, and what gets a name (`set`, `for`) is always a part of what is there already.

use super::template::BadTemplate;
use minijinja::{
    machinery::{
        Span,
        ast::{BinOpKind, CallArg, Expr, ForLoop, IfCond, Set, Spanned, Stmt},
        parse,
    },
    syntax::SyntaxConfig,
};

/// What templates are about. There is nothing else in them.
pub const ROOTS: &[&str] = &["labels", "facts", "machine", "boot", "image"];

/// The filters that there are: none makes more than its operand holds, but for those in [`GROWING`].
pub const FILTERS: &[&str] = &[
    "default", "first", "indent", "int", "items", "join", "last", "length", "lower", "replace", "sort", "split",
    "tojson", "trim", "upper",
];

/// Filters whose result may be longer than what they are given. `replace` bounds itself.
const GROWING: &[&str] = &["indent", "join", "replace", "tojson"];

const TESTS: &[&str] = &["defined", "undefined", "none", "startingwith", "endingwith"];

/// `~` and `+` in one template. Each may write out all that is known of a machine.
const JOINS: usize = 256;

/// Statements and expressions in one another.
const DEPTH: usize = 32;

/// Jinja's delimiters, and its `trim_blocks` and `lstrip_blocks`: a line with a statement alone leaves no empty line.
pub fn delimiters() -> SyntaxConfig {
    let mut syntax = SyntaxConfig::builder();
    syntax.keep_trailing_newline(true).trim_blocks(true).lstrip_blocks(true);
    syntax.build().unwrap_or_default()
}

/// Whether a template says only what it may.
pub fn check(text: &str) -> Result<(), BadTemplate> {
    let parsed = parse(text, "template", delimiters()).map_err(|error| BadTemplate {
        line: error.line().unwrap_or(1),
        reason: format!(
            "this is no template: {}. '{{{{', '{{%' and '{{#' begin its own words; {{% raw %}} … {{% endraw %}} encloses text that has them",
            error.detail().unwrap_or("it cannot be read")
        ),
    })?;
    match &parsed {
        Stmt::Template(template) => Reader { names: Vec::new(), depth: 0, joins: 0 }.body(&template.children),
        _ => Ok(()),
    }
}

/// What an expression is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// To be written.
    Written,
    /// To be named, compared, or chosen by.
    Held,
}

struct Reader<'a> {
    /// What `for` and `set` named so far.
    names: Vec<&'a str>,
    depth: usize,
    joins: usize,
}

type Checked = Result<(), BadTemplate>;

fn refuse(at: Span, reason: impl Into<String>) -> Checked {
    Err(BadTemplate { line: usize::from(at.start_line), reason: reason.into() })
}

impl<'a> Reader<'a> {
    fn deeper(&mut self, at: Span, check: impl FnOnce(&mut Self) -> Checked) -> Checked {
        if self.depth == DEPTH {
            return refuse(at, format!("more than {DEPTH} levels in one another"));
        }
        self.depth += 1;
        let checked = check(self);
        self.depth -= 1;
        checked
    }

    fn body(&mut self, statements: &[Stmt<'a>]) -> Checked {
        let known = self.names.len();
        let checked = statements.iter().try_for_each(|statement| self.statement(statement));
        self.names.truncate(known);
        checked
    }

    fn statement(&mut self, statement: &Stmt<'a>) -> Checked {
        match statement {
            Stmt::EmitRaw(_) => Ok(()),
            Stmt::EmitExpr(emit) => self.expression(&emit.expr, Use::Written),
            Stmt::ForLoop(each) => self.deeper(each.span(), |reader| reader.for_loop(each)),
            Stmt::IfCond(choice) => self.deeper(choice.span(), |reader| reader.choice(choice)),
            Stmt::Set(set) => self.set(set),
            Stmt::WithBlock(at) => no_statement(at.span(), "with"),
            Stmt::SetBlock(at) => no_statement(at.span(), "set … endset"),
            Stmt::AutoEscape(at) => no_statement(at.span(), "autoescape"),
            Stmt::FilterBlock(at) => no_statement(at.span(), "filter"),
            Stmt::Do(at) => no_statement(at.span(), "do"),
            Stmt::Template(at) => no_statement(at.span(), "a template"),
        }
    }

    fn for_loop(&mut self, each: &Spanned<ForLoop<'a>>) -> Checked {
        if each.recursive {
            return refuse(each.span(), "loops cannot be recursive here");
        }
        self.expression(&each.iter, Use::Held)?;
        let known = self.names.len();
        self.name(&each.target)?;
        self.names.push("loop");
        if let Some(filter) = &each.filter_expr {
            self.expression(filter, Use::Held)?;
        }
        let checked = self.body(&each.body);
        self.names.truncate(known);
        checked?;
        self.body(&each.else_body)
    }

    fn choice(&mut self, choice: &Spanned<IfCond<'a>>) -> Checked {
        self.expression(&choice.expr, Use::Held)?;
        // What is set in one branch is known behind it, as in Jinja; where it was not set it is missing when it is rendered.
        choice.true_body.iter().try_for_each(|statement| self.statement(statement))?;
        choice.false_body.iter().try_for_each(|statement| self.statement(statement))
    }

    fn set(&mut self, set: &Spanned<Set<'a>>) -> Checked {
        self.expression(&set.expr, Use::Held)?;
        self.name(&set.target)
    }

    fn name(&mut self, target: &Expr<'a>) -> Checked {
        match target {
            Expr::Var(var) if ROOTS.contains(&var.id) => {
                refuse(var.span(), format!("'{}' is Bennu's; choose another name", var.id))
            }
            Expr::Var(var) => {
                self.names.push(var.id);
                Ok(())
            }
            Expr::List(list) => list.items.iter().try_for_each(|item| self.name(item)),
            Expr::Tuple(tuple) => tuple.items.iter().try_for_each(|item| self.name(item)),
            other => refuse(other.span(), "only a name can be set here"),
        }
    }

    fn expression(&mut self, expression: &Expr<'a>, used: Use) -> Checked {
        self.deeper(expression.span(), |reader| reader.parts(expression, used))
    }

    fn all<'e>(&mut self, parts: impl IntoIterator<Item = &'e Expr<'a>>, used: Use) -> Checked
    where
        'a: 'e,
    {
        parts.into_iter().try_for_each(|part| self.expression(part, used))
    }

    fn parts(&mut self, expression: &Expr<'a>, used: Use) -> Checked {
        let at = expression.span();
        match expression {
            Expr::Const(_) => Ok(()),
            Expr::Var(var) if ROOTS.contains(&var.id) || self.names.contains(&var.id) => Ok(()),
            Expr::Var(var) => refuse(
                at,
                format!(
                    "there is no '{}'; templates are about {} (text is written in quotes)",
                    var.id,
                    ROOTS.join(", ")
                ),
            ),
            Expr::GetAttr(part) => self.expression(&part.expr, Use::Held),
            Expr::GetItem(part) => self.all([&part.expr, &part.subscript_expr], Use::Held),
            Expr::Slice(slice) => {
                self.expression(&slice.expr, Use::Held)?;
                self.all([&slice.start, &slice.stop, &slice.step].into_iter().flatten(), Use::Held)
            }
            Expr::UnaryOp(op) => self.expression(&op.expr, Use::Held),
            Expr::Compare(compare) => {
                self.expression(&compare.expr, Use::Held)?;
                self.all(compare.ops.iter().map(|op| &op.expr), Use::Held)
            }
            Expr::BinOp(op) => {
                let both = [&op.left, &op.right];
                match op.op {
                    BinOpKind::Mul | BinOpKind::Pow => refuse(at, "'*' is not there in templates"),
                    BinOpKind::Concat | BinOpKind::Add if used == Use::Held => refuse(
                        at,
                        "texts are put together only where they are written, in {{ … }}, and not in set, for, if or under a filter",
                    ),
                    BinOpKind::Concat | BinOpKind::Add if self.joins == JOINS => {
                        refuse(at, format!("'~' and '+' more than {JOINS} times in one template"))
                    }
                    BinOpKind::Concat | BinOpKind::Add => {
                        self.joins += 1;
                        self.all(both, Use::Written)
                    }
                    _ => self.all(both, Use::Held),
                }
            }
            Expr::IfExpr(choice) => {
                self.expression(&choice.test_expr, Use::Held)?;
                self.expression(&choice.true_expr, used)?;
                self.all(choice.false_expr.iter(), used)
            }
            Expr::Filter(filter) => {
                let grows = GROWING.contains(&filter.name);
                if !FILTERS.contains(&filter.name) {
                    return refuse(
                        at,
                        format!("there is no filter '{}'; there are {}", filter.name, FILTERS.join(", ")),
                    );
                }
                if grows && used == Use::Held {
                    return refuse(
                        at,
                        format!("'{}' stands only where its result is written, in {{{{ … }}}}", filter.name),
                    );
                }
                // What `replace` leaves may be shorter than what it was given.
                let of_operand = if grows && filter.name != "replace" { Use::Written } else { Use::Held };
                self.all(filter.expr.iter(), of_operand)?;
                self.arguments(at, &filter.args)
            }
            Expr::Test(test) => {
                if !TESTS.contains(&test.name) {
                    return refuse(at, format!("there is no test '{}'; there are {}", test.name, TESTS.join(", ")));
                }
                self.expression(&test.expr, Use::Held)?;
                self.arguments(at, &test.args)
            }
            Expr::Call(call) => match &call.expr {
                Expr::Var(var) if var.id == "range" => self.arguments(at, &call.args),
                _ => refuse(at, "nothing but range can be called"),
            },
            Expr::List(list) => self.literal(at, &list.items, used),
            Expr::Tuple(tuple) => self.literal(at, &tuple.items, used),
            Expr::Map(map) => self.literal(at, map.keys.iter().chain(&map.values), used),
        }
    }

    /// Lists that get a name hold constants alone: lists of lists of named lists would grow with each name.
    fn literal<'e>(&mut self, at: Span, items: impl IntoIterator<Item = &'e Expr<'a>>, used: Use) -> Checked
    where
        'a: 'e,
    {
        let mut items = items.into_iter();
        match used {
            Use::Written => self.all(items, Use::Written),
            Use::Held if items.all(|item| matches!(item, Expr::Const(_))) => Ok(()),
            Use::Held => refuse(at, "a list or map that is written here holds constants alone"),
        }
    }

    fn arguments(&mut self, at: Span, arguments: &[CallArg<'a>]) -> Checked {
        arguments.iter().try_for_each(|argument| match argument {
            CallArg::Pos(value) | CallArg::Kwarg(_, value) => self.expression(value, Use::Held),
            CallArg::PosSplat(_) | CallArg::KwargSplat(_) => refuse(at, "arguments are written one by one"),
        })
    }
}

fn no_statement(at: Span, name: &str) -> Checked {
    refuse(at, format!("'{name}' is not there in templates; there are if, for and set"))
}
