//! The versions of one format, and which of them writes. Pure.
//!
//! ```text
//! Staged ──▶ Probed ──▶ (Canary) ──▶ Active ──▶ Past: draining while segments of it run, then retired
//!    └─▶ Failed             └──────────────▲───────┘ rolled back, or swapped to again
//! ```
//!
//! A version that can't be loaded when the server starts, for a reason that may pass, stays what it is without its code.
//! If it is the active one, what a roll back would go to writes meanwhile.
//!
//! One version is active, or none. Those that were active before stand in the order in which they were, so that the
//! last one is what a roll back goes to.

use serde::{Deserialize, Serialize};

use super::trial::Terms;

/// Past versions that stay loaded, ready to be rolled back to.
const KEPT_PAST: usize = 2;
/// Versions of a format that are neither active nor past.
const MAX_WAITING: usize = 16;
/// Failures of a version in [`STRIKE_WINDOW_US`] after which the one before takes over.
const STRIKES: usize = 3;
const STRIKE_WINDOW_US: i64 = 600_000_000;

/// Where a component came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The binary.
    Embedded,
    /// A file of the formats folder.
    Folder(std::path::PathBuf),
    /// `loadFormat`.
    Command(std::path::PathBuf),
}

impl Source {
    /// As lists show it: `embedded`, or the file.
    pub fn to_text(&self) -> String {
        match self {
            Source::Embedded => "embedded".into(),
            Source::Folder(path) | Source::Command(path) => path.display().to_string(),
        }
    }
}

/// When recordings that run take a version that has become active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// With their next file, whenever that comes.
    #[default]
    Drain,
    /// At the next key frame, where a file begins for it.
    NextChunk,
    /// At the next frame.
    Now,
}

impl Mode {
    /// The words for them.
    pub const WORDS: [&'static str; 3] = ["drain", "next-chunk", "now"];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Drain => "drain",
            Mode::NextChunk => "next-chunk",
            Mode::Now => "now",
        }
    }

    /// What a word means.
    pub fn parse(word: &str) -> Option<Self> {
        [Mode::Drain, Mode::NextChunk, Mode::Now].into_iter().find(|mode| mode.as_str() == word)
    }
}

/// How far a version has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Loaded, and not yet tried.
    Staged,
    /// It has passed the probe.
    Probed,
    /// It has not, and why.
    Failed(String),
    /// It writes beside the active version, for a few recordings, and is compared.
    Canary,
    /// It writes.
    Active,
    /// It wrote before.
    Past,
}

/// A version of a format. `V` is what can be run.
#[derive(Clone, Debug)]
pub struct Member<V> {
    pub sha256: String,
    /// As its manifest has it.
    pub version: String,
    pub source: Source,
    pub stage: Stage,
    /// Since when it is in that stage, in microseconds since 1970.
    pub since_us: i64,
    /// It was rolled back, so that nothing but an operator takes it again.
    pub rolled_back: bool,
    /// Why its last trial as a canary ended before it took over.
    pub reason: Option<String>,
    /// What it was before it became a canary, and whether it was rolled back.
    former: Option<(Stage, bool)>,
    /// `None`: it can't be run for now.
    pub code: Option<V>,
    /// When its writers failed, lately.
    strikes: Vec<i64>,
}

impl<V> Member<V> {
    /// A version that has just come.
    pub fn staged(sha256: String, version: String, source: Source, code: V, now_us: i64) -> Self {
        Self {
            sha256,
            version,
            source,
            stage: Stage::Staged,
            since_us: now_us,
            rolled_back: false,
            reason: None,
            former: None,
            code: Some(code),
            strikes: Vec::new(),
        }
    }
}

/// Why a version can't be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineupError {
    #[error("there is no version of it with the sha256 {0}")]
    Unknown(String),
    #[error("{0} versions have a sha256 that begins so; give more digits")]
    Ambiguous(usize),
    #[error("at least 8 digits of the sha256 are needed, in hexadecimal")]
    Prefix,
    #[error("it is pinned to {}; pinFormat with pinned=0 lets it go", short(.0))]
    Pinned(String),
    #[error("that version did not pass its probe: {0}")]
    Failed(String),
    #[error("that version can't be loaded for now; the log says why, and it is tried again")]
    Missing,
    #[error("that version has not passed its probe yet")]
    Staged,
    #[error("that version is active already")]
    IsActive,
    #[error("there is no version to go back to")]
    NoPast,
    #[error("that version writes now; swap to another first")]
    InUse,
    #[error("it is in the binary, and stays")]
    Embedded,
    #[error("{MAX_WAITING} versions of it wait already; unload some")]
    TooMany,
}

/// What a change of the active version was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    pub from: Option<String>,
    pub to: Option<String>,
    pub mode: Mode,
    pub reason: String,
    /// Microseconds since 1970.
    pub at_us: i64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Lineup<V> {
    /// In the order of when they came; past ones in the order of when they were active last.
    members: Vec<Member<V>>,
    pub pin: Option<String>,
    /// How runs take the active version.
    pub mode: Mode,
}

impl<V> Default for Lineup<V> {
    fn default() -> Self {
        Self { members: Vec::new(), pin: None, mode: Mode::Drain }
    }
}

impl<V: Clone> Lineup<V> {
    /// All versions: the active one, a canary, those that wait, then past ones, the latest first.
    pub fn members(&self) -> Vec<&Member<V>> {
        let mut members: Vec<_> = self.members.iter().collect();
        members.reverse();
        members.sort_by_key(|member| match member.stage {
            Stage::Active => 0,
            Stage::Canary => 1,
            Stage::Staged | Stage::Probed | Stage::Failed(_) => 2,
            Stage::Past => 3,
        });
        members
    }

    /// Whether there is nothing left of it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The version that writes: the active one or, as long as that can't be run, what a roll back would go to.
    pub fn active(&self) -> Option<&Member<V>> {
        let chosen = self.chosen()?;
        if chosen.code.is_some() { Some(chosen) } else { self.before() }
    }

    /// The active version, whether it can be run or not.
    pub fn chosen(&self) -> Option<&Member<V>> {
        self.members.iter().find(|member| member.stage == Stage::Active)
    }

    /// The version that is compared with it.
    pub fn canary(&self) -> Option<&Member<V>> {
        self.members.iter().find(|member| member.stage == Stage::Canary)
    }

    /// A version by its whole sha256.
    pub fn get(&self, sha256: &str) -> Option<&Member<V>> {
        self.members.iter().find(|member| member.sha256 == sha256)
    }

    /// The one version whose sha256 begins so; in any case, at least 8 digits.
    pub fn find(&self, prefix: &str) -> Result<&Member<V>, LineupError> {
        let prefix = prefix_of(prefix)?;
        let found: Vec<_> = self.members.iter().filter(|m| m.sha256.starts_with(&prefix)).collect();
        match found[..] {
            [one] => Ok(one),
            [] => Err(LineupError::Unknown(prefix)),
            _ => Err(LineupError::Ambiguous(found.len())),
        }
    }

    /// Adds a version that has come, unless it is there. One that was unloaded gets its code back.
    pub fn add(&mut self, member: Member<V>) -> Result<(), LineupError> {
        if let Some(known) = self.members.iter_mut().find(|known| known.sha256 == member.sha256) {
            known.code = member.code;
            if matches!(known.stage, Stage::Failed(_)) {
                (known.stage, known.since_us, known.reason) = (Stage::Staged, member.since_us, None);
            }
            return Ok(());
        }
        let waits = |m: &Member<V>| matches!(m.stage, Stage::Staged | Stage::Probed | Stage::Failed(_));
        if self.members.iter().filter(|m| waits(m) && m.source != Source::Embedded).count() >= MAX_WAITING {
            // What did not pass is only kept to be looked at.
            let Some(failed) = self.members.iter().position(|m| matches!(m.stage, Stage::Failed(_))) else {
                return Err(LineupError::TooMany);
            };
            self.members.remove(failed);
        }
        self.members.push(member);
        Ok(())
    }

    /// Says what came of the probe of a version that is staged.
    pub fn probed(&mut self, sha256: &str, result: Result<(), String>, now_us: i64) {
        if let Some(member) = self.member(sha256).filter(|member| member.stage == Stage::Staged) {
            member.stage = match result {
                Ok(()) => Stage::Probed,
                Err(why) => Stage::Failed(why),
            };
            member.since_us = now_us;
        }
    }

    /// Whether a version may become active, or a canary.
    pub fn may_take(&self, sha256: &str) -> Result<(), LineupError> {
        let unknown = || LineupError::Unknown(sha256.to_owned());
        let member = self.get(sha256).ok_or_else(unknown)?;
        match (&member.stage, &self.pin) {
            (Stage::Active, _) => Err(LineupError::IsActive),
            (Stage::Staged, _) => Err(LineupError::Staged),
            (Stage::Failed(why), _) => Err(LineupError::Failed(why.clone())),
            (_, Some(pin)) if pin != sha256 => Err(LineupError::Pinned(pin.clone())),
            _ if member.code.is_none() => Err(LineupError::Missing),
            _ => Ok(()),
        }
    }

    /// Makes a version the active one.
    pub fn activate(
        &mut self,
        sha256: &str,
        mode: Mode,
        reason: &str,
        now_us: i64,
    ) -> Result<Swap, LineupError> {
        self.may_take(sha256)?;
        Ok(self.take(Some(sha256), mode, reason, now_us))
    }

    /// Goes back to the version that was active before; the one that is now is not taken again by itself.
    pub fn roll_back(&mut self, mode: Mode, reason: &str, now_us: i64) -> Result<Swap, LineupError> {
        let before = self.before().ok_or(LineupError::NoPast)?.sha256.clone();
        if let Some(pin) = &self.pin {
            return Err(LineupError::Pinned(pin.clone()));
        }
        let from = self.chosen().map(|member| member.sha256.clone());
        let swap = self.take(Some(&before), mode, reason, now_us);
        if let Some(member) = from.and_then(|from| self.member(&from)) {
            member.rolled_back = true;
        }
        Ok(swap)
    }

    /// What a roll back goes to.
    pub fn before(&self) -> Option<&Member<V>> {
        self.before_of(|member| member.code.is_some())
    }

    /// The same, of those that fit.
    fn before_of(&self, fit: impl Fn(&Member<V>) -> bool) -> Option<&Member<V>> {
        let fit = |member: &&Member<V>| fit(member) && !member.rolled_back;
        let past = self.members.iter().rev().filter(|member| member.stage == Stage::Past).find(fit);
        let embedded = || {
            let waits = |m: &&Member<V>| m.source == Source::Embedded && m.stage == Stage::Probed;
            self.members.iter().rev().filter(waits).find(fit)
        };
        past.or_else(embedded)
    }

    /// Who may write in place of a version, best first.
    pub fn fallbacks(&self, sha256: &str) -> Vec<V> {
        let writes = self.active().map(|member| &*member.sha256);
        let fit = |member: &&Member<V>| member.sha256 != sha256 && !member.rolled_back;
        let active = self.active().into_iter().filter(fit);
        let past = self.members.iter().rev().filter(|member| member.stage == Stage::Past);
        let embedded =
            self.members.iter().filter(|m| m.source == Source::Embedded && m.stage == Stage::Probed);
        let others = past.chain(embedded).filter(fit).filter(|member| Some(&*member.sha256) != writes);
        active.chain(others).filter_map(|member| member.code.clone()).collect()
    }

    /// Versions without their code, in the order in which they are wanted.
    pub fn missing(&self) -> impl Iterator<Item = &Member<V>> {
        self.members().into_iter().filter(|member| member.code.is_none())
    }

    /// Of those, what it takes to write as it should: the active one and, when that was tried in vain, the one before.
    pub fn needed(&self, was_tried: impl Fn(&str) -> bool) -> Option<&Member<V>> {
        let chosen = self.chosen().filter(|chosen| chosen.code.is_none())?;
        let stand_in = self.before_of(|_| true).filter(|member| member.code.is_none());
        [Some(chosen), stand_in].into_iter().flatten().find(|member| !was_tried(&member.sha256))
    }

    /// A version that was missing can be run. Returns the swap that this makes, if it is the active one.
    pub fn loaded(&mut self, sha256: &str, code: V, now_us: i64) -> Option<Swap> {
        let from = self.active().map(|member| member.sha256.clone());
        let member = self.member(sha256).filter(|member| member.code.is_none())?;
        member.code = Some(code);
        let is_chosen = member.stage == Stage::Active;
        is_chosen.then(|| {
            self.mode = Mode::Drain;
            let reason = "it can be loaded again".into();
            Swap { from, to: Some(sha256.to_owned()), mode: self.mode, reason, at_us: now_us }
        })
    }

    /// A version that was missing will never be loaded again. If it is the active one, the one before takes over.
    pub fn lost(&mut self, sha256: &str, reason: &str, now_us: i64) -> Option<Swap> {
        let is_chosen = self.chosen().is_some_and(|chosen| chosen.sha256 == sha256);
        let swap = is_chosen.then(|| {
            // Whose turn it is to be loaded may be still to come.
            let before = self.before_of(|_| true).map(|member| member.sha256.clone());
            self.take(before.as_deref(), Mode::Drain, reason, now_us)
        });
        self.members.retain(|member| member.sha256 != sha256);
        if self.pin.as_deref() == Some(sha256) {
            self.pin = None;
        }
        swap
    }

    /// Makes a version a canary, in place of the one that is.
    pub fn try_out(&mut self, sha256: &str, now_us: i64) -> Result<(), LineupError> {
        self.may_take(sha256)?;
        self.end_canary("another one took its place", now_us);
        if let Some(member) = self.member(sha256) {
            member.former = Some((member.stage.clone(), member.rolled_back));
            (member.stage, member.since_us, member.rolled_back) = (Stage::Canary, now_us, false);
            member.reason = None;
        }
        Ok(())
    }

    /// The canary is again what it was before. Returns whether there was one.
    pub fn end_canary(&mut self, why: &str, now_us: i64) -> bool {
        let Some(member) = self.members.iter_mut().find(|member| member.stage == Stage::Canary) else {
            return false;
        };
        let former = member.former.take().unwrap_or((Stage::Probed, false));
        (member.stage, member.rolled_back) = former;
        (member.reason, member.since_us) = (Some(why.into()), now_us);
        true
    }

    /// The same, if it is that version.
    pub fn end_canary_of(&mut self, sha256: &str, why: &str, now_us: i64) {
        if self.canary().is_some_and(|canary| canary.sha256 == sha256) {
            self.end_canary(why, now_us);
        }
    }

    /// A canary did not stand the comparison. One that wrote before, or is in the binary, is again what it was, so that
    /// there is something to go back to.
    pub fn fail_canary(&mut self, sha256: &str, why: &str, now_us: i64) {
        if self.canary().is_none_or(|canary| canary.sha256 != sha256) {
            return;
        }
        self.end_canary(why, now_us);
        let waits =
            |member: &&mut Member<V>| member.stage == Stage::Probed && member.source != Source::Embedded;
        if let Some(member) = self.member(sha256).filter(waits) {
            member.stage = Stage::Failed(why.into());
        }
    }

    /// A writer of a version failed by its own fault. Returns whether the version before should take over.
    pub fn strike(&mut self, sha256: &str, now_us: i64) -> bool {
        let pinned = self.pin.is_some();
        let Some(member) = self.member(sha256) else { return false };
        member.strikes.retain(|at_us| now_us - at_us <= STRIKE_WINDOW_US);
        if member.strikes.len() < STRIKES {
            member.strikes.push(now_us);
        }
        let out = member.strikes.len() >= STRIKES && member.stage == Stage::Active && !pinned;
        out && self.before().is_some()
    }

    /// Takes a version away. The active one only when there is another; then that takes over.
    pub fn remove(&mut self, sha256: &str) -> Result<(), LineupError> {
        let at = self.members.iter().position(|m| m.sha256 == sha256);
        let at = at.ok_or_else(|| LineupError::Unknown(sha256.to_owned()))?;
        match &self.members[at] {
            member if member.source == Source::Embedded => Err(LineupError::Embedded),
            Member { stage: Stage::Active | Stage::Canary, .. } => Err(LineupError::InUse),
            _ if self.pin.as_deref() == Some(sha256) => Err(LineupError::Pinned(sha256.to_owned())),
            _ => {
                self.members.remove(at);
                Ok(())
            }
        }
    }

    /// Says where a version comes from now. What is in the binary stays that.
    pub fn comes_from(&mut self, sha256: &str, source: Source) {
        if let Some(member) = self.member(sha256).filter(|member| member.source != Source::Embedded) {
            member.source = source;
        }
    }

    /// What came from there is not taken again by itself.
    pub fn disown(&mut self, source: &Source) {
        for member in self.members.iter_mut().filter(|member| member.source == *source) {
            member.rolled_back = true;
        }
    }

    /// Ends the use of the active version: the one before takes over, or none.
    pub fn leave(&mut self, mode: Mode, reason: &str, now_us: i64) -> Swap {
        let before = self.before().map(|member| member.sha256.clone());
        self.take(before.as_deref(), mode, reason, now_us)
    }

    /// Keeps the format at its active version, which ends a trial of another; or lets it go.
    pub fn pin(&mut self, pinned: bool, now_us: i64) {
        self.pin = self.chosen().filter(|_| pinned).map(|member| member.sha256.clone());
        if self.pin.is_some() {
            self.end_canary("the format was pinned", now_us);
        }
    }

    /// Past versions that are one too many, and not busy.
    pub fn surplus(&self, is_busy: impl Fn(&V) -> bool) -> Vec<String> {
        let past = |m: &&Member<V>| m.stage == Stage::Past && m.source != Source::Embedded;
        let too_many = self.members.iter().filter(past).count().saturating_sub(KEPT_PAST);
        let oldest = self.members.iter().filter(past).take(too_many);
        let idle = oldest.filter(|m| !m.code.as_ref().is_some_and(&is_busy));
        idle.map(|m| m.sha256.clone()).collect()
    }

    /// Lets go of those. Returns whose files can go.
    pub fn trim(&mut self, is_busy: impl Fn(&V) -> bool) -> Vec<String> {
        let gone = self.surplus(is_busy);
        self.members.retain(|member| !gone.contains(&member.sha256));
        gone
    }

    fn member(&mut self, sha256: &str) -> Option<&mut Member<V>> {
        self.members.iter_mut().find(|member| member.sha256 == sha256)
    }

    /// Makes a version active, whatever it is, or none.
    fn take(&mut self, sha256: Option<&str>, mode: Mode, reason: &str, now_us: i64) -> Swap {
        let from = self.members.iter().position(|member| member.stage == Stage::Active);
        let from = from.map(|at| {
            let mut member = self.members.remove(at);
            (member.stage, member.since_us) = (Stage::Past, now_us);
            let sha256 = member.sha256.clone();
            self.members.push(member);
            sha256
        });
        if let Some(member) = sha256.and_then(|sha256| self.member(sha256)) {
            (member.stage, member.since_us, member.rolled_back) = (Stage::Active, now_us, false);
            (member.reason, member.former) = (None, None);
            member.strikes.clear();
        }
        self.mode = mode;
        Swap { from, to: sha256.map(str::to_owned), mode, reason: reason.into(), at_us: now_us }
    }
}

/// What is kept of a lineup over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub members: Vec<KeptMember>,
    #[serde(default)]
    pub pin: Option<String>,
    /// What its canary is to show.
    #[serde(default)]
    pub trial: Option<Terms>,
}

/// What is kept of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptMember {
    pub sha256: String,
    pub version: String,
    pub source: Source,
    pub stage: Stage,
    pub since_us: i64,
    #[serde(default)]
    pub rolled_back: bool,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub former: Option<(Stage, bool)>,
}

impl<V: Clone> Lineup<V> {
    /// What is to be kept.
    pub fn keep(&self) -> Kept {
        let member = |m: &Member<V>| KeptMember {
            sha256: m.sha256.clone(),
            version: m.version.clone(),
            source: m.source.clone(),
            stage: m.stage.clone(),
            since_us: m.since_us,
            rolled_back: m.rolled_back,
            reason: m.reason.clone(),
            former: m.former.clone(),
        };
        Kept { members: self.members.iter().map(member).collect(), pin: self.pin.clone(), trial: None }
    }

    /// A lineup as it was kept. All but the embedded version is missing, and what failed is left out. An embedded version
    /// that another binary had makes room for this one's, which is given as `embedded`.
    pub fn restore(kept: Kept, embedded: Option<Member<V>>) -> Self {
        let mut lineup = Self { pin: kept.pin, ..Self::default() };
        let mut was_embedded = kept.members.is_empty();
        for member in kept.members {
            let is_ours = embedded.as_ref().is_some_and(|ours| ours.sha256 == member.sha256);
            if member.source == Source::Embedded && !is_ours {
                was_embedded |= member.stage == Stage::Active;
                continue;
            }
            if matches!(member.stage, Stage::Failed(_)) {
                continue;
            }
            let code = embedded.as_ref().filter(|_| is_ours).and_then(|ours| ours.code.clone());
            let KeptMember { sha256, version, source, stage, since_us, rolled_back, reason, former } = member;
            let strikes = Vec::new();
            lineup.members.push(Member {
                sha256,
                version,
                source,
                stage,
                since_us,
                rolled_back,
                reason,
                former,
                code,
                strikes,
            });
        }
        if let Some(mut ours) = embedded
            && lineup.get(&ours.sha256).is_none()
        {
            ours.stage = Stage::Probed;
            lineup.members.insert(0, ours);
        }
        if lineup.chosen().is_none() && was_embedded {
            let ours = lineup.members.iter_mut().find(|member| member.source == Source::Embedded);
            if let Some(ours) = ours {
                ours.stage = Stage::Active;
            } else if let Some(before) = lineup.before_of(|_| true).map(|member| member.sha256.clone()) {
                let now_us = lineup.get(&before).map_or(0, |member| member.since_us);
                lineup.take(Some(&before), Mode::Drain, "restored", now_us);
            }
        }
        if lineup.pin.as_ref().is_some_and(|pin| lineup.chosen().is_none_or(|a| a.sha256 != *pin)) {
            lineup.pin = None;
        }
        lineup
    }
}

/// The start of a sha256, checked.
pub fn prefix_of(text: &str) -> Result<String, LineupError> {
    let prefix = text.to_ascii_lowercase();
    let valid = (8..=64).contains(&prefix.len()) && prefix.bytes().all(|b| b.is_ascii_hexdigit());
    if valid { Ok(prefix) } else { Err(LineupError::Prefix) }
}

/// Enough of a sha256 for people.
pub fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha(digit: char) -> String {
        String::from(digit).repeat(64)
    }

    fn member(digit: char, source: Source) -> Member<char> {
        Member::staged(sha(digit), format!("{digit}.0.0"), source, digit, 0)
    }

    /// The embedded `a`, active, and loaded ones that have passed.
    fn lineup(others: &str) -> Lineup<char> {
        let mut lineup = Lineup::default();
        lineup.add(member('a', Source::Embedded)).unwrap();
        lineup.probed(&sha('a'), Ok(()), 0);
        lineup.activate(&sha('a'), Mode::Drain, "start", 0).unwrap();
        for digit in others.chars() {
            lineup.add(member(digit, Source::Command("x.wasm".into()))).unwrap();
            lineup.probed(&sha(digit), Ok(()), 1);
        }
        lineup
    }

    fn active(lineup: &Lineup<char>) -> Option<char> {
        lineup.active().and_then(|member| member.code)
    }

    #[test]
    fn a_swap_and_back() {
        let mut l = lineup("b");
        let swap = l.activate(&sha('b'), Mode::Now, "asked", 5).unwrap();
        assert_eq!((swap.from, swap.to, swap.mode), (Some(sha('a')), Some(sha('b')), Mode::Now));
        assert_eq!((active(&l), l.mode), (Some('b'), Mode::Now));
        assert_eq!(l.fallbacks(&sha('b')), ['a']);
        assert_eq!(l.activate(&sha('b'), Mode::Now, "", 6), Err(LineupError::IsActive));
        l.roll_back(Mode::NextChunk, "asked", 7).unwrap();
        assert_eq!(active(&l), Some('a'));
        assert_eq!(l.roll_back(Mode::NextChunk, "", 8), Err(LineupError::NoPast), "not back to what was bad");
        assert!(l.fallbacks(&sha('a')).is_empty());
        l.activate(&sha('b'), Mode::Drain, "asked again", 9).unwrap();
        assert_eq!(active(&l), Some('b'));
    }

    #[test]
    fn the_last_two_past_versions_are_kept() {
        let mut l = lineup("bcde");
        for (i, digit) in "bcde".chars().enumerate() {
            l.activate(&sha(digit), Mode::Drain, "", i as i64).unwrap();
        }
        assert!(l.trim(|code| *code == 'b').is_empty(), "files of it are open");
        assert!(l.get(&sha('b')).is_some());
        assert_eq!(l.trim(|_| false), [sha('b')]);
        assert!(l.trim(|_| false).is_empty());
        assert_eq!(l.fallbacks(&sha('e')), ['d', 'c', 'a']);
        for digit in ['d', 'c', 'a'] {
            l.roll_back(Mode::Drain, "", 9).unwrap();
            assert_eq!(active(&l), Some(digit));
        }
    }

    #[test]
    fn what_failed_is_not_taken() {
        let mut l = lineup("");
        l.add(member('b', Source::Command("x".into()))).unwrap();
        l.probed(&sha('b'), Err("it differs".into()), 1);
        assert_eq!(l.activate(&sha('b'), Mode::Now, "", 2), Err(LineupError::Failed("it differs".into())));
        assert_eq!(l.activate(&sha('c'), Mode::Now, "", 2), Err(LineupError::Unknown(sha('c'))));
        assert_eq!(active(&l), Some('a'));
        // Loaded again, it is tried again.
        l.add(member('b', Source::Command("x".into()))).unwrap();
        assert_eq!(l.activate(&sha('b'), Mode::Now, "", 2), Err(LineupError::Staged));
        assert_eq!(l.try_out(&sha('b'), 2), Err(LineupError::Staged));
        l.probed(&sha('b'), Ok(()), 3);
        l.activate(&sha('b'), Mode::Now, "", 4).unwrap();
    }

    #[test]
    fn a_pin_holds() {
        let mut l = lineup("b");
        l.try_out(&sha('b'), 1).unwrap();
        l.pin(true, 1);
        assert!(l.canary().is_none());
        assert_eq!(l.get(&sha('b')).unwrap().reason.as_deref(), Some("the format was pinned"));
        let pinned = LineupError::Pinned(sha('a'));
        assert_eq!(l.activate(&sha('b'), Mode::Now, "", 2), Err(pinned.clone()));
        assert_eq!(l.try_out(&sha('b'), 2), Err(pinned));
        assert!(!(0..9).any(|at| l.strike(&sha('a'), at)));
        l.pin(false, 2);
        l.activate(&sha('b'), Mode::Now, "", 3).unwrap();
    }

    #[test]
    fn failures_in_a_row_call_for_the_version_before() {
        let mut l = lineup("b");
        assert!(!(0..9).any(|at| l.strike(&sha('a'), at)), "there is none before");
        l.activate(&sha('b'), Mode::Now, "", 0).unwrap();
        assert!(!l.strike(&sha('b'), 0));
        assert!(!l.strike(&sha('b'), STRIKE_WINDOW_US + 1), "the first was long ago");
        assert!(!l.strike(&sha('b'), STRIKE_WINDOW_US + 2));
        assert!(!l.strike(&sha('a'), STRIKE_WINDOW_US + 3), "it is not active");
        assert!(l.strike(&sha('b'), STRIKE_WINDOW_US + 3));
    }

    #[test]
    fn a_canary_fails_or_takes_over() {
        let mut l = lineup("bc");
        l.try_out(&sha('b'), 1).unwrap();
        l.try_out(&sha('c'), 2).unwrap();
        assert_eq!(l.canary().unwrap().code, Some('c'));
        assert_eq!(l.get(&sha('b')).unwrap().stage, Stage::Probed);
        l.fail_canary(&sha('c'), "slow", 3);
        assert!(l.canary().is_none());
        assert_eq!(active(&l), Some('a'));
        l.try_out(&sha('b'), 4).unwrap();
        l.activate(&sha('b'), Mode::Drain, "it stood", 5).unwrap();
        assert_eq!((active(&l), l.canary().is_none()), (Some('b'), true));
    }

    #[test]
    fn a_canary_that_wrote_before_or_is_embedded_stays_what_it_was() {
        let mut l = lineup("bc");
        l.activate(&sha('b'), Mode::Drain, "", 1).unwrap();
        l.activate(&sha('c'), Mode::Drain, "", 2).unwrap();
        for digit in ['a', 'b'] {
            l.try_out(&sha(digit), 3).unwrap();
            l = restored(l.keep(), 'a');
            l.fail_canary(&sha(digit), "slow", 4);
            let failed = l.get(&sha(digit)).unwrap();
            assert_eq!((&failed.stage, failed.reason.as_deref()), (&Stage::Past, Some("slow")), "{digit}");
        }
        assert_eq!(l.fallbacks(&sha('c')), ['b', 'a']);
        l.roll_back(Mode::Drain, "", 5).unwrap();
        assert_eq!((active(&l), l.active().unwrap().reason.as_ref()), (Some('b'), None));
        // What was rolled back is not taken again by itself.
        l.try_out(&sha('c'), 6).unwrap();
        l.end_canary("no longer", 7);
        assert!(l.get(&sha('c')).unwrap().rolled_back);
        // An embedded version that never wrote.
        let mut l = lineup("b");
        l.add(member('d', Source::Embedded)).unwrap();
        l.probed(&sha('d'), Ok(()), 1);
        l.try_out(&sha('d'), 2).unwrap();
        l.fail_canary(&sha('d'), "slow", 3);
        assert_eq!(l.get(&sha('d')).unwrap().stage, Stage::Probed);
    }

    #[test]
    fn versions_are_found_by_their_first_digits() {
        let mut l = lineup("b");
        assert_eq!(l.find("BBBBBBBB").unwrap().code, Some('b'));
        for short in ["bbbbbbb", "", "xxxxxxxxx"] {
            assert_eq!(l.find(short).unwrap_err(), LineupError::Prefix);
        }
        assert_eq!(l.find("cccccccc").unwrap_err(), LineupError::Unknown("cccccccc".into()));
        let mut other = member('b', Source::Embedded);
        other.sha256 = format!("{}{}", "b".repeat(60), "cccc");
        l.add(other).unwrap();
        assert_eq!(l.find("bbbbbbbb").unwrap_err(), LineupError::Ambiguous(2));
        assert!(l.find(&sha('b')).is_ok());
    }

    #[test]
    fn only_what_is_not_in_use_is_removed() {
        let mut l = lineup("b");
        assert_eq!(l.remove(&sha('a')), Err(LineupError::Embedded));
        l.activate(&sha('b'), Mode::Drain, "", 1).unwrap();
        assert_eq!(l.remove(&sha('b')), Err(LineupError::InUse));
        assert_eq!(l.remove(&sha('a')), Err(LineupError::Embedded));
        let swap = l.leave(Mode::Drain, "unloaded", 2);
        assert_eq!(swap.to, Some(sha('a')));
        l.remove(&sha('b')).unwrap();
        assert!(l.get(&sha('b')).is_none());
    }

    #[test]
    fn what_has_lost_its_file_does_not_come_back() {
        let mut l = lineup("");
        let file = Source::Folder("x.wasm".into());
        for digit in ['b', 'c'] {
            l.add(member(digit, file.clone())).unwrap();
            l.probed(&sha(digit), Ok(()), 1);
            l.activate(&sha(digit), Mode::Drain, "", 1).unwrap();
        }
        l.disown(&file);
        l.leave(Mode::Drain, "its file is gone", 2);
        assert_eq!((active(&l), l.fallbacks(&sha('a'))), (Some('a'), vec![]));
        // It is there again.
        l.activate(&sha('c'), Mode::Drain, "", 3).unwrap();
        assert_eq!(active(&l), Some('c'));
    }

    #[test]
    fn waiting_versions_are_bounded() {
        let mut l = lineup("");
        let many =
            |i: usize| Member { sha256: format!("{i:064}"), ..member('b', Source::Command("x".into())) };
        (0..MAX_WAITING).for_each(|i| l.add(many(i)).unwrap());
        assert_eq!(l.add(many(99)), Err(LineupError::TooMany));
        l.probed(&format!("{:064}", 3), Err("bad".into()), 1);
        l.add(many(99)).unwrap();
        assert!(l.get(&format!("{:064}", 3)).is_none());
    }

    #[test]
    fn a_restart_changes_nothing() {
        let mut l = lineup("bc");
        l.activate(&sha('b'), Mode::Now, "", 3).unwrap();
        l.activate(&sha('c'), Mode::Now, "", 4).unwrap();
        l.roll_back(Mode::Now, "", 5).unwrap();
        l.pin(true, 6);
        let again = restored(l.keep(), 'a');
        assert_eq!(again.keep(), l.keep());
        // Another binary, which has another one embedded, and the loaded one stays.
        let again = restored(l.keep(), 'd');
        assert_eq!(active(&again), Some('b'));
        assert_eq!(again.before().unwrap().code, Some('d'));
        // Its file is gone.
        let mut again = Lineup::restore(l.keep(), Some(member('a', Source::Embedded)));
        assert_eq!(again.lost(&sha('b'), "it is lost", 7).unwrap().to, Some(sha('a')));
        assert!(again.lost(&sha('c'), "it is lost", 7).is_none());
        assert_eq!((active(&again), again.pin.is_none()), (Some('a'), true));
        // The embedded one was active: now the new one is.
        let l = lineup("b");
        let again = restored(l.keep(), 'd');
        assert_eq!(active(&again), Some('d'));
        // Nothing was kept.
        let again = restored(Kept::default(), 'a');
        assert_eq!(active(&again), Some('a'));
        // A format without anything embedded.
        let mut l = Lineup::default();
        l.add(member('b', Source::Folder("x".into()))).unwrap();
        l.probed(&sha('b'), Ok(()), 1);
        l.activate(&sha('b'), Mode::Drain, "", 2).unwrap();
        let mut again = Lineup::restore(l.keep(), None);
        assert_eq!(active(&again), None);
        again.loaded(&sha('b'), 'b', 3);
        assert_eq!(active(&again), Some('b'));
    }

    /// After a restart of a binary that has this one.
    fn restored(kept: Kept, embedded: char) -> Lineup<char> {
        let mut lineup = Lineup::restore(kept, Some(member(embedded, Source::Embedded)));
        let missing: Vec<String> = lineup.missing().map(|member| member.sha256.clone()).collect();
        missing.iter().for_each(|sha256| drop(lineup.loaded(sha256, sha256.chars().next().unwrap(), 9)));
        lineup
    }

    #[test]
    fn what_is_missing_stays_and_the_one_before_writes_meanwhile() {
        let mut before = lineup("bcd");
        for digit in ['b', 'c', 'd'] {
            before.activate(&sha(digit), Mode::Now, "", 2).unwrap();
        }
        before.pin(true, 3);
        let mut l = Lineup::restore(before.keep(), Some(member('a', Source::Embedded)));
        assert_eq!(l.keep(), before.keep(), "nothing is forgotten");
        assert_eq!((active(&l), l.fallbacks("")), (Some('a'), vec!['a']));
        assert_eq!(l.try_out(&sha('c'), 3), Err(LineupError::Pinned(sha('d'))));
        // First the active one, then what stands in for it.
        assert_eq!(l.needed(|_| false).unwrap().sha256, sha('d'));
        assert_eq!(l.needed(|tried| tried == sha('d')).unwrap().sha256, sha('c'));
        assert!(l.loaded(&sha('c'), 'c', 4).is_none());
        assert!(l.needed(|tried| tried == sha('d')).is_none());
        assert_eq!((active(&l), l.fallbacks(&sha('c'))), (Some('c'), vec!['a']));
        let swap = l.loaded(&sha('d'), 'd', 5).unwrap();
        assert_eq!((swap.from, swap.to, swap.mode), (Some(sha('c')), Some(sha('d')), Mode::Drain));
        assert_eq!((active(&l), l.missing().count()), (Some('d'), 1));
        // Lost for good, the one before is active, though it is still to be loaded.
        let mut l = Lineup::restore(before.keep(), Some(member('a', Source::Embedded)));
        assert_eq!(l.lost(&sha('d'), "it is damaged", 4).unwrap().to, Some(sha('c')));
        assert_eq!((active(&l), l.pin.is_none()), (Some('a'), true));
        l.loaded(&sha('c'), 'c', 5);
        assert_eq!(active(&l), Some('c'));
    }
}
