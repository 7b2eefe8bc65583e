//! Tables of nftables: the one place that speaks to `nft`.
//!
//! Every call works in the network namespace of the calling thread, which `nft` inherits, and blocks it for some
//! milliseconds: on another thread a teardown could not stop it.

use std::{
    borrow::Cow,
    io::{ErrorKind, Write},
    net::Ipv4Addr,
    path::PathBuf,
    process::{Command, Stdio},
};

use nftables::{
    batch::Batch,
    expr::{CT, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix},
    helper::{self, NftablesError},
    schema::{Chain as NftChain, NfCmd, NfListObject, NfObject, Nftables, Rule as NftRule, Table as NftTable},
    stmt::{Match, Operator, Statement},
    types::{NfChainPolicy, NfChainType, NfFamily, NfHook},
};

use crate::{
    error::{Error, Kind},
    host::find_program,
};

/// With what the name of each of our tables begins.
const OURS: &str = "vmtest-";
const PROGRAM: &str = "nft";
const INSTALL: &str = "nft is not installed: run `sudo apt-get install -y nftables`";
/// For IPv4 and IPv6 alike.
const FAMILY: NfFamily = NfFamily::INet;
/// Where the kernel's own defaults are, between conntrack and everything that comes late.
const FILTER_PRIORITY: i32 = 0;
/// After all filters.
const NAT_PRIORITY: i32 = 100;

/// A table of a run: made as a whole, and removed as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    name: String,
    /// Written into each rule: `nft` does not list the comments of tables.
    mark: String,
    chains: Vec<Chain>,
}

#[derive(Debug, Clone)]
struct Chain {
    hook: Hook,
    otherwise: Verdict,
    rules: Vec<Rule>,
}

/// What a chain sees; also its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// What comes for this namespace itself.
    Input,
    /// What passes through it.
    Forward,
    /// What leaves it, for [`Verdict::Masquerade`].
    Postrouting,
}

/// Packets of which all of this is so.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    when: Vec<Condition>,
    then: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It has come through this interface.
    From(String),
    /// It leaves through this interface.
    To(String),
    /// It leaves through another interface.
    NotTo(String),
    /// It is IPv4.
    Ipv4,
    /// It was sent by an address of this network.
    Source(Ipv4Net),
    /// It belongs to a connection that was let through, or is an error about one.
    Answer,
}

/// An IPv4 network: its address and the length of its prefix in bits.
pub(crate) type Ipv4Net = (Ipv4Addr, u8);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    /// It leaves with the address of the interface through which it does.
    Masquerade,
}

impl Rule {
    pub(crate) fn new(when: impl Into<Vec<Condition>>, then: Verdict) -> Self {
        Self { when: when.into(), then }
    }
}

impl Table {
    /// A table without chains. Its name, without what all of ours begin with, is unique in its namespace; the mark says
    /// whose it is, in at most 128 bytes.
    pub(crate) fn new(name: &str, mark: &str) -> Self {
        Self { name: format!("{OURS}{name}"), mark: mark.to_owned(), chains: Vec::new() }
    }

    /// Adds a chain, with what becomes of packets for which no rule says it.
    pub(crate) fn chain(mut self, hook: Hook, otherwise: Verdict, rules: impl Into<Vec<Rule>>) -> Self {
        self.chains.push(Chain { hook, otherwise, rules: rules.into() });
        self
    }

    /// Makes it, all at once or not at all, and reads it back.
    ///
    /// # Errors
    /// [`Kind::Missing`] without `nft`; [`Kind::Host`] when there is a table of this name, or when the kernel has
    /// not got what was asked, with what it has not.
    pub(crate) fn make(&self) -> Result<(), Error> {
        let what = || format!("make the table `{}`", self.name);
        let mut batch = Batch::new();
        for (number, object) in self.objects().into_iter().enumerate() {
            // Where another has it already, its chains must not be added to.
            batch.add_cmd(if number == 0 { NfCmd::Create(object) } else { NfCmd::Add(object) });
        }
        apply(&batch.to_nftables()).map_err(|e| failed(what(), e))?;
        self.check()
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`Kind::Host`] with what is not there or not as it was asked.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let there = read(&self.name)?;
        let missing = self.objects().into_iter().find(|asked| !there.contains(asked));
        let surplus = || there.iter().find(|found| !self.objects().contains(found));
        let (what, object) = match (&missing, surplus()) {
            (Some(missing), _) => ("it has not got", missing),
            (None, Some(surplus)) => ("nobody has asked for", surplus),
            (None, None) => return Ok(()),
        };
        let object = serde_json::to_string(object).unwrap_or_default();
        let message = format!("the kernel's table `{}` is not what was made: {what} {object}", self.name);
        Err(Error::new(Kind::Host, message))
    }

    /// The table, its chains and their rules, as `nft` takes and lists them.
    fn objects(&self) -> Vec<NfListObject<'static>> {
        let table = || Cow::from(self.name.clone());
        let mut objects = vec![NfListObject::Table(NftTable { family: FAMILY, name: table(), handle: None })];
        for Chain { hook, otherwise, rules } in &self.chains {
            let (kind, place, name) = hook.names();
            objects.push(NfListObject::Chain(NftChain {
                family: FAMILY,
                table: table(),
                name: name.into(),
                _type: Some(kind),
                hook: Some(place),
                prio: Some(if kind == NfChainType::NAT { NAT_PRIORITY } else { FILTER_PRIORITY }),
                policy: Some(if *otherwise == Verdict::Drop { NfChainPolicy::Drop } else { NfChainPolicy::Accept }),
                ..NftChain::default()
            }));
            let rule = |rule: &Rule| NftRule {
                family: FAMILY,
                table: table(),
                chain: name.into(),
                expr: rule.statements().into(),
                comment: Some(self.mark.clone().into()),
                ..NftRule::default()
            };
            objects.extend(rules.iter().map(rule).map(NfListObject::Rule));
        }
        objects
    }
}

impl Hook {
    fn names(self) -> (NfChainType, NfHook, &'static str) {
        match self {
            Self::Input => (NfChainType::Filter, NfHook::Input, "input"),
            Self::Forward => (NfChainType::Filter, NfHook::Forward, "forward"),
            Self::Postrouting => (NfChainType::NAT, NfHook::Postrouting, "postrouting"),
        }
    }
}

impl Rule {
    fn statements(&self) -> Vec<Statement<'static>> {
        let verdict = match self.then {
            Verdict::Accept => Statement::Accept(None),
            Verdict::Drop => Statement::Drop(None),
            Verdict::Masquerade => Statement::Masquerade(None),
        };
        self.when.iter().map(Condition::statement).chain([verdict]).collect()
    }
}

impl Condition {
    fn statement(&self) -> Statement<'static> {
        let text = |text: &str| Expression::String(text.to_owned().into());
        let meta = |key| NamedExpression::Meta(Meta { key });
        let (left, op, right) = match self {
            Self::From(link) => (meta(MetaKey::Iifname), Operator::EQ, text(link)),
            Self::To(link) => (meta(MetaKey::Oifname), Operator::EQ, text(link)),
            Self::NotTo(link) => (meta(MetaKey::Oifname), Operator::NEQ, text(link)),
            Self::Ipv4 => (meta(MetaKey::Nfproto), Operator::EQ, text("ipv4")),
            Self::Source((address, prefix)) => {
                let field = PayloadField { protocol: "ip".into(), field: "saddr".into() };
                let network = Prefix { addr: Box::new(text(&address.to_string())), len: (*prefix).into() };
                let network = Expression::Named(NamedExpression::Prefix(network));
                (NamedExpression::Payload(Payload::PayloadField(field)), Operator::EQ, network)
            }
            Self::Answer => {
                let state = NamedExpression::CT(CT { key: "state".into(), family: None, dir: None });
                (state, Operator::IN, Expression::List(vec![text("established"), text("related")]))
            }
        };
        Statement::Match(Match { left: Expression::Named(left), right, op })
    }
}

/// Removes the table of exactly this name, without what all of ours begin with, if all of its rules have this mark. One
/// that is not there is no error.
///
/// # Errors
/// [`Kind::Missing`] without `nft`; [`Kind::Host`] when it is somebody else's, or cannot be removed.
pub(crate) fn remove_table(name: &str, mark: &str) -> Result<(), Error> {
    if !tables()?.iter().any(|found| found == name) {
        return Ok(());
    }
    let full = format!("{OURS}{name}");
    let is_foreign =
        |object: &NfListObject| matches!(object, NfListObject::Rule(rule) if rule.comment.as_deref() != Some(mark));
    if read(&full)?.iter().any(is_foreign) {
        let message = format!("the table `{full}` has rules that are not of `{mark}`: it is left alone");
        return Err(Error::new(Kind::Host, message));
    }
    let mut batch = Batch::new();
    batch.delete(NfListObject::Table(NftTable { family: FAMILY, name: full.clone().into(), handle: None }));
    match apply(&batch.to_nftables()) {
        // Somebody else was faster.
        Err(_) if !tables()?.iter().any(|found| found == name) => Ok(()),
        removed => removed.map_err(|e| failed(format!("remove the table `{full}`"), e)),
    }
}

/// The tables of the namespace that have names of ours, without what all of them begin with.
///
/// # Errors
/// [`Kind::Missing`] without `nft`; [`Kind::Host`] when it cannot list them.
pub(crate) fn tables() -> Result<Vec<String>, Error> {
    let listed = list(&["list", "tables", "inet"]).map_err(|e| failed("list the tables".into(), e))?;
    let ours = |object| match object {
        NfListObject::Table(table) => table.name.strip_prefix(OURS).map(str::to_owned),
        _ => None,
    };
    Ok(listed.into_iter().filter_map(ours).collect())
}

/// The table of somebody else, if there is one, that decides about packets which pass through this namespace. What one
/// table lets through another may still drop.
///
/// # Errors
/// [`Kind::Missing`] without `nft`; [`Kind::Host`] when it cannot list the chains.
pub(crate) fn foreign_forward_filter() -> Result<Option<String>, Error> {
    let listed = list(&["list", "chains"]).map_err(|e| failed("list the chains".into(), e))?;
    let foreign = |object| match object {
        NfListObject::Chain(chain)
            if chain.hook == Some(NfHook::Forward)
                && matches!(chain.family, NfFamily::IP | NfFamily::INet)
                && !chain.table.starts_with(OURS) =>
        {
            Some(chain.table.into_owned())
        }
        _ => None,
    };
    Ok(listed.into_iter().find_map(foreign))
}

/// What this host lacks for it, with the remedy.
pub(crate) fn missing() -> Option<String> {
    find_program(PROGRAM).is_none().then(|| INSTALL.to_owned())
}

/// What is in the table of this full name, without what the kernel adds.
fn read(name: &str) -> Result<Vec<NfListObject<'static>>, Error> {
    let found = list(&["list", "table", "inet", name]).map_err(|e| failed(format!("read the table `{name}`"), e))?;
    let plain = |object| match object {
        NfListObject::Table(table) => Some(NfListObject::Table(NftTable { handle: None, ..table })),
        NfListObject::Chain(chain) => Some(NfListObject::Chain(NftChain { handle: None, ..chain })),
        NfListObject::Rule(rule) => Some(NfListObject::Rule(NftRule { handle: None, index: None, ..rule })),
        NfListObject::MetainfoObject(_) => None,
        other => Some(other),
    };
    Ok(found.into_iter().filter_map(plain).collect())
}

/// Everything that filters packets in the network namespace of the calling thread.
///
/// # Errors
/// [`Kind::Missing`] without `nft`; [`Kind::Host`] when it cannot list it.
pub(super) fn ruleset() -> Result<Vec<NfListObject<'static>>, Error> {
    list(&["list", "ruleset"]).map_err(|e| failed("list the rules".into(), e))
}

fn list(args: &[&str]) -> Result<Vec<NfListObject<'static>>, NftablesError> {
    let found = helper::get_current_ruleset_with_args(Some(&program()), args.iter().copied())?;
    let listed = |object| match object {
        NfObject::ListObject(object) => Some(object),
        NfObject::CmdObject(_) => None,
    };
    Ok(found.objects.into_owned().into_iter().filter_map(listed).collect())
}

fn apply(batch: &Nftables<'_>) -> Result<(), NftablesError> {
    let batch = serde_json::to_vec(batch).map_err(NftablesError::NftInvalidJson)?;
    let program = program();
    // The crate would let what `nft` complains of go to the terminal, where nobody knows what it is about.
    let mut command = Command::new(&program);
    let command = command.args(["-j", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut run = || {
        let mut nft = command.spawn()?;
        let written = nft.stdin.take().map_or(Ok(()), |mut input| input.write_all(&batch));
        let ended = nft.wait_with_output()?;
        // One that ends before it has read everything says why.
        if ended.status.success() { written.map(|()| ended) } else { Ok(ended) }
    };
    let ended = run().map_err(|inner| NftablesError::NftExecution { program: program.clone().into(), inner })?;
    if ended.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    Err(NftablesError::NftFailed { program: program.into(), hint: "applying".into(), stdout: String::new(), stderr })
}

/// By its name where it is not there: then the kernel says so.
fn program() -> PathBuf {
    find_program(PROGRAM).unwrap_or_else(|| PROGRAM.into())
}

fn failed(what: String, why: NftablesError) -> Error {
    match why {
        NftablesError::NftExecution { inner, .. } if inner.kind() == ErrorKind::NotFound => {
            Error::new(Kind::Missing, INSTALL)
        }
        NftablesError::NftFailed { stderr, .. } => {
            Error::new(Kind::Host, format!("cannot {what}: nft says: {}", stderr.trim()))
        }
        other => Error::new(Kind::Host, format!("cannot {what}")).caused_by(other),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::net::enter_new_namespace;

    /// Does this in a network namespace of its own.
    fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            enter_new_namespace().unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|e| std::panic::resume_unwind(e))
    }

    fn table(name: &str, mark: &str) -> Table {
        let (from, to) = (Condition::From("br0".into()), Condition::To("up0".into()));
        let passing = [
            Rule::new([from.clone(), to.clone()], Verdict::Accept),
            Rule::new([Condition::From("up0".into()), Condition::Answer], Verdict::Accept),
        ];
        let source = Condition::Source(([10, 77, 0, 0].into(), 24));
        Table::new(name, mark)
            .chain(Hook::Input, Verdict::Accept, [Rule::new([from], Verdict::Drop)])
            .chain(Hook::Forward, Verdict::Drop, passing)
            .chain(
                Hook::Postrouting,
                Verdict::Accept,
                [
                    Rule::new([source.clone(), to], Verdict::Masquerade),
                    Rule::new([source, Condition::NotTo("br0".into())], Verdict::Masquerade),
                ],
            )
    }

    #[test]
    fn what_is_made_is_there_until_it_is_removed() {
        apart(|| {
            let (one, two) = (table("one", "run 1"), table("two", "run 2"));
            one.make().unwrap();
            two.make().unwrap();
            assert_eq!(tables().unwrap(), ["one", "two"]);
            let error = one.make().unwrap_err().to_string();
            assert!(error.contains("cannot make the table `vmtest-one`: nft says: "), "{error}");
            assert!(error.contains("File exists"), "{error}");
            one.check().unwrap();
            remove_table("one", "run 1").unwrap();
            remove_table("one", "run 1").unwrap();
            assert_eq!(tables().unwrap(), ["two"]);
            two.check().unwrap();
        });
        apart(|| assert_eq!(tables().unwrap(), Vec::<String>::new()));
    }

    #[test]
    fn what_is_not_as_it_was_made_is_named() {
        apart(|| {
            let made = table("one", "run 1");
            made.make().unwrap();
            let more = table("one", "run 1").chain(Hook::Forward, Verdict::Drop, [Rule::new([], Verdict::Drop)]);
            let error = more.check().unwrap_err().to_string();
            assert!(error.contains("it has not got {\"rule\":") && error.contains("{\"drop\":null}"), "{error}");
            let less = Table { chains: made.chains[..2].to_vec(), ..made };
            let error = less.check().unwrap_err().to_string();
            assert!(error.contains("nobody has asked for {\"chain\":"), "{error}");
        });
    }

    #[test]
    fn what_is_of_somebody_else_stays() {
        apart(|| {
            table("one", "run 1").make().unwrap();
            let error = remove_table("one", "run 2").unwrap_err().to_string();
            assert!(error.contains("rules that are not of `run 2`: it is left alone"), "{error}");
            remove_table("on", "run 1").unwrap();
            assert_eq!(tables().unwrap(), ["one"]);
        });
    }
}
