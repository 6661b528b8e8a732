//! What a component may use: the limits by name, and what is set of them.
//!
//! Each limit is a line of one table ([`ALL`]) from which settings, errors, metrics and the page for operators are
//! made. A value holds for all formats or for one, which is known only when a component has said its name: until
//! then it may use as much memory as any format ([`Limits::to_describe`]).

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, MapAccess, Visitor},
};
use wasmtime::ResourceLimiter;

use crate::{config::Span, control::table::closest};

/// How often the epoch advances: how long a component runs before others get their turn.
pub const TICK: Duration = Duration::from_millis(5);
/// Bytes of stack of a component; the engine's, so the same for all.
pub(super) const STACK: u64 = 512 << 10;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    /// Milliseconds.
    Time,
    /// Things of a kind.
    Count(&'static str),
    /// So many times something.
    Times,
}

/// What there is to know of a limit.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub name: &'static str,
    pub unit: Unit,
    pub default: u64,
    /// The least and the most that it can be set to.
    pub min: u64,
    pub max: u64,
    /// What it is a limit of.
    pub help: &'static str,
}

/// A field's value as a number in the limit's unit.
trait Quantity {
    fn to_raw(self) -> u64;
    fn from_raw(raw: u64) -> Self;
}

impl Quantity for u64 {
    fn to_raw(self) -> u64 {
        self
    }

    fn from_raw(raw: u64) -> Self {
        raw
    }
}

impl Quantity for Duration {
    fn to_raw(self) -> u64 {
        u64::try_from(self.as_millis()).unwrap_or(u64::MAX)
    }

    fn from_raw(raw: u64) -> Self {
        Duration::from_millis(raw)
    }
}

/// Makes the table, the names and the fields of one list.
macro_rules! limits {
    ($($variant:ident $field:ident: $type:ty = $name:literal, $unit:expr, $default:expr, $min:expr, $max:expr,
        $help:literal;)*) => {
        /// A limit, by its place in [`ALL`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Limit {
            $(#[doc = $help] $variant,)*
        }

        /// All limits, in the order of [`Limit`].
        pub static ALL: [Spec; [$(Limit::$variant),*].len()] = [
            $(Spec { name: $name, unit: $unit, default: $default, min: $min, max: $max, help: $help },)*
        ];

        /// Every [`Limit`].
        const LIMITS: [Limit; ALL.len()] = [$(Limit::$variant),*];

        /// The values of all limits.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits {
            $(#[doc = $help] pub $field: $type,)*
            /// What differs for a format, by its name. None of these is in force; see [`Limits::for_format`].
            pub overrides: BTreeMap<String, Vec<(Limit, u64)>>,
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($field: Quantity::from_raw($default),)* overrides: BTreeMap::new() }
            }
        }

        impl Limits {
            /// A limit's value in its unit.
            pub fn get(&self, limit: Limit) -> u64 {
                match limit {
                    $(Limit::$variant => self.$field.to_raw(),)*
                }
            }

            fn set(&mut self, limit: Limit, raw: u64) {
                match limit {
                    $(Limit::$variant => self.$field = Quantity::from_raw(raw),)*
                }
            }
        }
    };
}

const MIB: u64 = 1 << 20;

limits! {
    Memory memory: u64 = "memory", Unit::Bytes, 64 * MIB, MIB, 4096 * MIB,
        "linear memory, all memories together";
    Table table: u64 = "table", Unit::Count("elements"), 20_000, 100, 10_000_000,
        "elements of all tables together";
    Stack stack: u64 = "stack", Unit::Bytes, STACK, STACK, STACK,
        "stack of nested calls; the same for all formats";
    DescribeTime describe_time: Duration = "describe-time", Unit::Time, 200, 5, 60_000,
        "computing in one `describe`";
    OpenTime open_time: Duration = "open-time", Unit::Time, 1_000, 5, 600_000,
        "computing of the instantiation, and in one `open`";
    WriteTime write_time: Duration = "write-time", Unit::Time, 1_000, 5, 60_000,
        "computing in one `write` or `update-tracks`";
    FinishTime finish_time: Duration = "finish-time", Unit::Time, 20_000, 5, 3_600_000,
        "computing in one `finish` or `recover`";
    HostcallBytes hostcall_bytes: u64 = "hostcall-bytes", Unit::Bytes, 32 * MIB, MIB, 1024 * MIB,
        "what one call of a host function carries, or one answer of the component";
    InlineBytes inline_bytes: u64 = "inline-bytes", Unit::Bytes, 16 * MIB, 64 << 10, 1024 * MIB,
        "inline bytes of one `append`";
    Pieces pieces: u64 = "pieces", Unit::Count("pieces"), 65_536, 2048, 1 << 20,
        "pieces of one `append`";
    Outputs outputs: u64 = "outputs", Unit::Count("outputs"), 8, 1, 64,
        "outputs of a segment";
    Resources resources: u64 = "resources", Unit::Count("resources"), 256, 16, 65_536,
        "handles that the component has open: outputs, and what WASI gives it";
    Head head: u64 = "head", Unit::Bytes, 1024 * MIB, 4096, 65_536 * MIB,
        "bytes in front of an output";
    OutputPerCall output_per_call: u64 = "output-per-call", Unit::Bytes, 64 * MIB, MIB, 65_536 * MIB,
        "what one `open`, `write` or `finish` appends";
    Patches patches: u64 = "patches", Unit::Count("patches"), 256, 1, 1 << 20,
        "`patch` in one call; each may wait for the disk";
    OutputRate output_rate: u64 = "output-rate", Unit::Times, 4, 1, 1_000,
        "what a segment appends, as a multiple of the payload given to it";
    OutputTotal output_total: u64 = "output-total", Unit::Bytes, 64 * MIB, 64 << 10, 1 << 40,
        "what a segment appends beyond `output-rate`, 512 bytes a sample and 8 KiB a second";
    Held held: u64 = "held", Unit::Bytes, 64 * MIB, 64 << 10, 4096 * MIB,
        "payload kept in the host from one `write` to the next";
    HeldTime held_time: Duration = "held-time", Unit::Time, 60_000, 100, 3_600_000,
        "media between the oldest sample that is kept so and the newest";
    CompileMemory compile_memory: u64 = "compile-memory", Unit::Bytes, 2048 * MIB, 64 * MIB, 65_536 * MIB,
        "memory of the process that compiles a component";
    CompileTime compile_time: Duration = "compile-time", Unit::Time, 120_000, 1_000, 3_600_000,
        "computing of the process that compiles a component";
    ProbeTime probe_time: Duration = "probe-time", Unit::Time, 20_000, 1_000, 600_000,
        "time that the trial of a component takes, waiting counted";
    LogLines log_lines: u64 = "log-lines", Unit::Count("lines a second"), 64, 1, 10_000,
        "lines for the log; more are dropped and counted";
    LogLine log_line: u64 = "log-line", Unit::Bytes, 1024, 80, 64 << 10,
        "length of a line; the rest is cut off";
}

impl Limit {
    /// Every limit, in the order of [`ALL`].
    pub fn all() -> impl Iterator<Item = Self> {
        LIMITS.into_iter()
    }

    /// The limit of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|limit| limit.spec().name == name)
    }

    /// What there is to know of it.
    pub fn spec(self) -> &'static Spec {
        &ALL[self as usize]
    }
}

impl Spec {
    /// A value in words: `64 MiB`, `2s`.
    pub fn in_words(&self, raw: u64) -> String {
        match self.unit {
            Unit::Bytes => bytes_in_words(raw),
            Unit::Time => format!("{:?}", Duration::from_millis(raw)),
            Unit::Count(what) => format!("{raw} {what}"),
            Unit::Times => format!("{raw} times"),
        }
    }

    /// The least and the most in words: `1 to 64 outputs`.
    fn range(&self) -> String {
        let min = match self.unit {
            Unit::Bytes | Unit::Time => self.in_words(self.min),
            Unit::Count(_) | Unit::Times => self.min.to_string(),
        };
        format!("{min} to {}", self.in_words(self.max))
    }

    /// A value that was set, if it is in range.
    fn check(&self, raw: u64) -> Result<u64, String> {
        if (self.min..=self.max).contains(&raw) {
            return Ok(raw);
        }
        let name = self.name;
        Err(match self.min == self.max {
            true => format!("{name} is {}, which can't be changed", self.in_words(self.min)),
            false => format!("{name} is from {}, not {}", self.range(), self.in_words(raw)),
        })
    }

    /// Reads a value as it is in the settings: `64MiB`, `2s`, `8`.
    fn read(&self, text: &str) -> Result<u64, String> {
        let raw = match self.unit {
            Unit::Bytes => bytes_of(text),
            Unit::Time => text.parse::<Span>().map(|span| span.0.to_raw()),
            Unit::Count(_) | Unit::Times => {
                text.trim().parse().map_err(|_| format!("`{}` is no number", short(text)))
            }
        };
        raw.map_err(|error| format!("{}: {error}", self.name)).and_then(|raw| self.check(raw))
    }
}

fn bytes_in_words(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} bytes"),
    }
}

fn bytes_of(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        unit => return Err(format!("`{unit}` is no unit of bytes: KiB, MiB, GiB")),
    };
    let number = digits.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    number.ok_or_else(|| format!("`{}` is no number of bytes, such as 65536 or 64MiB", short(text)))
}

/// As much of a text as an error has room for.
fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

impl Limits {
    /// The limits of a format, by its name.
    pub fn for_format(&self, name: &str) -> Self {
        let mut limits = Self { overrides: BTreeMap::new(), ..self.clone() };
        for &(limit, raw) in self.overrides.get(name).into_iter().flatten() {
            limits.set(limit, raw);
        }
        limits
    }

    /// The limits of a component that has not said its format: the largest of each that a component may need before
    /// it does.
    pub fn to_describe(&self) -> Self {
        let mut limits = Self { overrides: BTreeMap::new(), ..self.clone() };
        for &(limit, raw) in self.overrides.values().flatten() {
            use Limit::{DescribeTime, HostcallBytes, Memory, OpenTime, Resources, Table};
            if [Memory, Table, DescribeTime, OpenTime, HostcallBytes, Resources].contains(&limit) {
                limits.set(limit, raw.max(limits.get(limit)));
            }
        }
        limits
    }

    /// The values in force, by name.
    pub fn values(&self) -> BTreeMap<String, u64> {
        Limit::all().map(|limit| (limit.spec().name.to_owned(), self.get(limit))).collect()
    }

    /// Limits of such values; those that are missing have their defaults. A wrong name or value is an error.
    pub fn of_values(values: &BTreeMap<String, u64>) -> Result<Self, String> {
        let mut limits = Self::default();
        for (name, raw) in values {
            let limit = Limit::named(name).ok_or_else(|| unknown(name))?;
            limits.set(limit, *raw);
        }
        Ok(limits)
    }

    /// The error for going beyond a limit.
    pub(super) fn exceeded(&self, limit: Limit) -> Exceeded {
        let value = limit.spec().in_words(self.get(limit));
        let text = match limit {
            Limit::DescribeTime | Limit::OpenTime | Limit::WriteTime | Limit::FinishTime => {
                format!("{value} of computing")
            }
            Limit::HeldTime => format!("{value} of media"),
            Limit::OutputRate => format!("{value} the payload"),
            Limit::OutputTotal => {
                let times = self.output_rate;
                format!("{value} beyond {times} times the payload, 512 bytes a sample and 8 KiB a second")
            }
            _ => value,
        };
        Exceeded { limit, text }
    }
}

/// The table of all limits for the page about formats, in Markdown.
pub fn markdown() -> String {
    let mut text = "| limit | default | range | of |\n| --- | --- | --- | --- |\n".to_owned();
    for spec in &ALL {
        let range = if spec.min == spec.max { "fixed".into() } else { spec.range() };
        text += &format!("| `{}` | {} | {range} | {} |\n", spec.name, spec.in_words(spec.default), spec.help);
    }
    text
}

fn unknown(name: &str) -> String {
    let name = short(name);
    match closest(&name, ALL.iter().map(|spec| spec.name)) {
        Some(meant) => format!("there is no limit `{name}`; did you mean `{meant}`?"),
        None => {
            let names: Vec<_> = ALL.iter().map(|spec| spec.name).collect();
            format!("there is no limit `{name}`; there are {}", names.join(", "))
        }
    }
}

/// The table `[limits]`, with a table in it for each format that differs.
impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WholeTable)
    }
}

struct WholeTable;

impl<'de> Visitor<'de> for WholeTable {
    type Value = Limits;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of limits")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Limits, A::Error> {
        let mut limits = Limits::default();
        while let Some(name) = map.next_key::<String>()? {
            match Limit::named(&name) {
                Some(limit) => limits.set(limit, map.next_value_seed(Value(limit))?),
                None => {
                    let of_format = map.next_value_seed(FormatTable { name: &name, nested: false })?;
                    limits.overrides.insert(name, of_format);
                }
            }
        }
        Ok(limits)
    }
}

/// The value of a limit.
struct Value(Limit);

impl<'de> DeserializeSeed<'de> for Value {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Value {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let example = match self.0.spec().unit {
            Unit::Bytes => "bytes, such as 65536 or \"64MiB\"",
            Unit::Time => "a time, such as 2 or \"250ms\"",
            Unit::Count(_) | Unit::Times => "a number",
        };
        write!(f, "{} as {example}", self.0.spec().name)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
        // A time without a unit is in seconds.
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        self.0.spec().read(text).map_err(E::custom)
    }
}

/// The table of a format's own limits; anything else is a limit that there is not.
struct FormatTable<'a> {
    name: &'a str,
    /// Within such a table no other can be.
    nested: bool,
}

impl<'de> DeserializeSeed<'de> for FormatTable<'_> {
    type Value = Vec<(Limit, u64)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl FormatTable<'_> {
    fn unknown<E: de::Error>(&self) -> E {
        E::custom(unknown(self.name))
    }
}

impl<'de> Visitor<'de> for FormatTable<'_> {
    type Value = Vec<(Limit, u64)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&unknown(self.name))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        if self.nested {
            return Err(self.unknown());
        }
        let mut limits = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            match Limit::named(&name) {
                Some(limit) => limits.push((limit, map.next_value_seed(Value(limit))?)),
                // It is none, and always an error.
                None => limits.extend(map.next_value_seed(FormatTable { name: &name, nested: true })?),
            }
        }
        Ok(limits)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
        Err(self.unknown())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
        Err(self.unknown())
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
        Err(self.unknown())
    }
}

/// A limit that was exceeded, as an error that crosses wasmtime.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limit `{}` of {text}", limit.spec().name)]
pub(super) struct Exceeded {
    pub(super) limit: Limit,
    /// How much it is.
    pub(super) text: String,
}

impl From<Exceeded> for super::Cause {
    fn from(Exceeded { limit, text }: Exceeded) -> Self {
        super::Cause::Limit { name: limit.spec().name, limit: text }
    }
}

/// Refuses memory and tables beyond the limits, and remembers that it did: the component then fails in its own way.
#[derive(Debug)]
pub(super) struct Growth {
    memory: u64,
    table: u64,
    memory_used: u64,
    table_used: u64,
    pub(super) refused: Option<Limit>,
}

impl Growth {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { memory: limits.memory, table: limits.table, memory_used: 0, table_used: 0, refused: None }
    }

    /// Bytes of linear memory in use.
    pub(super) fn memory_used(&self) -> u64 {
        self.memory_used
    }
}

/// Counts what something grows by; `false`: it would be too much.
fn grow(used: &mut u64, max: u64, current: usize, desired: usize) -> bool {
    let after = used.saturating_add(desired.saturating_sub(current) as u64);
    if after > max {
        return false;
    }
    *used = after;
    true
}

impl ResourceLimiter for Growth {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let may = grow(&mut self.memory_used, self.memory, current, desired);
        if !may {
            self.refused = Some(Limit::Memory);
        }
        Ok(may)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let may = grow(&mut self.table_used, self.table, current, desired);
        if !may {
            self.refused = Some(Limit::Table);
        }
        Ok(may)
    }

    fn instances(&self) -> usize {
        200
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        for limit in Limit::all() {
            let spec = limit.spec();
            assert_eq!(Limit::named(spec.name), Some(limit), "{}", spec.name);
            assert!(spec.min <= spec.default && spec.default <= spec.max, "{}", spec.name);
            assert_eq!(Limits::default().get(limit), spec.default, "{}", spec.name);
            assert!(Limits::default().exceeded(limit).to_string().contains(spec.name));
        }
        let values = Limits { held: 1 << 20, ..Limits::default() }.values();
        assert_eq!(Limits::of_values(&values).unwrap().held, 1 << 20);
    }

    #[test]
    fn the_page_about_formats_has_the_table() {
        let page = include_str!("../../design/formats.md");
        assert!(page.contains(&markdown()), "host/design/formats.md should have:\n{}", markdown());
    }

    #[test]
    fn memory_and_tables_are_counted_over_all_of_them() {
        let limits = Limits { memory: 3 << 20, table: 100, ..Limits::default() };
        let mut growth = Growth::new(&limits);
        assert!(growth.memory_growing(0, 1 << 20, None).unwrap());
        assert!(growth.memory_growing(0, 1 << 20, None).unwrap(), "a second memory");
        assert!(growth.memory_growing(1 << 20, 2 << 20, None).unwrap());
        assert!(!growth.memory_growing(1 << 20, 2 << 20, None).unwrap());
        assert_eq!(growth.memory_used(), 3 << 20);
        assert_eq!(growth.refused, Some(Limit::Memory));
        assert_eq!(limits.exceeded(Limit::Memory).to_string(), "limit `memory` of 3 MiB");
        assert!(growth.table_growing(0, 60, None).unwrap());
        assert!(!growth.table_growing(0, 60, None).unwrap(), "a second table");
        assert!(growth.table_growing(0, 40, None).unwrap());
        assert_eq!(growth.refused, Some(Limit::Table));
    }

    #[derive(Debug, Deserialize)]
    struct Settings {
        limits: Limits,
    }

    fn parse(text: &str) -> Result<Limits, String> {
        toml::from_str::<Settings>(text).map(|settings| settings.limits).map_err(|error| error.to_string())
    }

    #[test]
    fn a_format_may_differ() {
        let text = "[limits]\nheld = \"32MiB\"\nwrite-time = 2\noutputs = 4\n\
                    [limits.py-hls]\nmemory = \"256 MiB\"\nopen-time = \"500ms\"\nheld = 65536\n";
        let limits = parse(text).unwrap();
        assert_eq!((limits.held, limits.outputs, limits.memory), (32 << 20, 4, 64 << 20));
        assert_eq!(limits.write_time, Duration::from_secs(2));
        let of = limits.for_format("py-hls");
        assert_eq!((of.memory, of.held, of.outputs), (256 << 20, 65536, 4));
        assert_eq!(of.open_time, Duration::from_millis(500));
        assert!(of.overrides.is_empty());
        assert_eq!(limits.for_format("flv").memory, 64 << 20);
        let unnamed = limits.to_describe();
        assert_eq!((unnamed.memory, unnamed.held), (256 << 20, 32 << 20));
        assert_eq!(unnamed.open_time, Duration::from_secs(1), "never less than for others");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (line, words) in [
            ("memroy = \"1MiB\"", "did you mean `memory`?"),
            ("whatever = 7", "there is no limit `whatever`; there are memory, table,"),
            ("memory = \"64MB\"", "`mb` is no unit of bytes"),
            ("memory = \"much\"", "is no unit of bytes"),
            ("memory = \"1KiB\"", "memory is from 1 MiB to 4 GiB, not 1 KiB"),
            ("memory = -1", "is no number of bytes"),
            ("memory = true", "memory as bytes, such as 65536 or \"64MiB\""),
            ("write-time = \"1 day\"", "write-time: `day` is no unit of time"),
            ("write-time = 0", "write-time is from 5ms to 60s, not 0ns"),
            ("stack = \"1MiB\"", "stack is 512 KiB, which can't be changed"),
            ("outputs = \"x\"", "outputs: `x` is no number"),
            ("flv.memroy = 7", "did you mean `memory`?"),
            ("flv.memory = \"1GB\"", "`gb` is no unit"),
            ("flv.more.memory = 7", "there is no limit `more`"),
        ] {
            let error = parse(&format!("[limits]\n{line}")).unwrap_err();
            assert!(error.contains("line 2") && error.contains(words), "{line}: {error}");
        }
    }
}
