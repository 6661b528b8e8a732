//! Rules by which recordings are ordered: every stream whose name fits is recorded while it is live.
//!
//! A recording of a rule has a stream's name and an id of its own. It is there before the stream's first sample, and
//! no more when the stream has ended for good; the rule makes another when it comes again, so it is not kept.

use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

use super::{Destination, Order, RecordError, Recording, Recordings, Settings};
use crate::{
    registry::LiveStream,
    store::{Change, StoreError, Table},
    sync::lock,
};

/// What stands for the stream's name when a rule is checked.
const ANY_STREAM: &str = "stream";

/// What to record, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// A glob for names of streams: `cam*`, `{front,back}-?`.
    pub streams: String,
    /// Without a stream's name.
    pub record: Settings,
}

/// A rule and what it is matched by.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    rule: Rule,
    matcher: GlobMatcher,
}

impl Kept {
    fn new(rule: Rule) -> Result<Self, RecordError> {
        let glob = GlobBuilder::new(&rule.streams).build();
        let glob = glob.map_err(|error| RecordError::Glob(error.kind().to_string()))?;
        Ok(Self { matcher: glob.compile_matcher(), rule })
    }
}

impl Recordings {
    /// Takes up the rules that an earlier server was given.
    pub(super) fn restore_rules(&self) -> Result<(), StoreError> {
        let kept: Vec<(u64, serde_json::Value)> = self.0.parts.store.all(Table::Rules)?;
        for (rule_id, value) in kept {
            let rule = serde_json::from_value(value).map_err(|error| error.to_string());
            match rule.and_then(|rule| Kept::new(rule).map_err(|error| error.to_string())) {
                Ok(kept) => {
                    lock(&self.0.rules).insert(rule_id, kept);
                }
                Err(error) => {
                    tracing::error!(
                        rule_id,
                        error,
                        "a rule that was kept makes no sense; it stays in the database"
                    );
                }
            }
        }
        Ok(())
    }

    /// Checks a rule, keeps it, and records the live streams that fit. Returns its id.
    pub async fn add_rule(&self, rule: Rule) -> Result<u64, RecordError> {
        let kept = Kept::new(rule.clone())?;
        let any = Settings { local_stream_name: ANY_STREAM.into(), ..rule.record.clone() };
        let one = Settings { local_stream_name: "other".into(), ..any.clone() };
        self.check_alone(&any)?;
        let destination = self.destination(&any, 0).await?;
        if any.overwrite && destination.meets(&self.destination(&one, 0).await?) {
            return Err(RecordError::OneName);
        }
        let ids = &self.0.parts.ids;
        let rule_id = ids.next();
        self.0.parts.store.apply(vec![ids.change(), Change::put(Table::Rules, rule_id, &rule)]).await?;
        lock(&self.0.rules).insert(rule_id, kept);
        tracing::info!(rule_id, streams = rule.streams, "streams will be recorded by a rule");
        self.0.parts.registry.list().iter().for_each(|stream| self.stream_started(stream));
        Ok(rule_id)
    }

    /// Removes a rule, for good when this returns. What it has begun to record goes on until its stream ends.
    pub async fn remove_rule(&self, rule_id: u64) -> Result<Option<Rule>, StoreError> {
        if !lock(&self.0.rules).contains_key(&rule_id) {
            return Ok(None);
        }
        self.0.parts.store.apply(vec![Change::remove(Table::Rules, rule_id)]).await?;
        tracing::info!(rule_id, "rule removed");
        Ok(lock(&self.0.rules).remove(&rule_id).map(|kept| kept.rule))
    }

    /// All rules, by id.
    pub fn rules(&self) -> Vec<(u64, Rule)> {
        lock(&self.0.rules).iter().map(|(&id, kept)| (id, kept.rule.clone())).collect()
    }

    /// Makes the recordings that rules order for a stream, unless they are there.
    pub(super) fn apply_rules(&self, stream: &LiveStream) {
        let fitting: Vec<(u64, Rule)> = lock(&self.0.rules)
            .iter()
            .filter(|(_, kept)| kept.matcher.is_match(&stream.name))
            .map(|(&id, kept)| (id, kept.rule.clone()))
            .collect();
        for (rule_id, rule) in fitting {
            let settings = Settings { local_stream_name: stream.name.clone(), ..rule.record };
            let mut orders = lock(&self.0.orders);
            let its = |order: &&Order| {
                order.recording.rule_id == Some(rule_id)
                    && order.recording.settings.local_stream_name == stream.name
            };
            // One that does not wait for its stream to come back has no use for this one.
            let is_there = |order: &Order| {
                order.recording.settings.keep_alive
                    || order.runs.iter().any(|run| run.in_stream_id == stream.id)
            };
            if orders.values().filter(its).any(is_there) {
                continue;
            }
            let config_id = self.0.parts.ids.next();
            let parts = &self.0.parts;
            let extension =
                parts.formats.get(&settings.format).map(|version| version.manifest.extension.clone());
            let extension = extension.unwrap_or_else(|| settings.format.clone());
            let destination = Destination::new(&parts.disk.roots, &settings, config_id, &extension);
            let destination = match destination {
                Ok(destination) => destination,
                Err(error) => {
                    tracing::error!(rule_id, stream = stream.name, %error, "a rule can't be applied");
                    continue;
                }
            };
            let recording = Recording::new(config_id, settings, destination, false).of_rule(rule_id);
            let order = Order { recording: Arc::new(recording), runs: Vec::new(), held: false, stays: false };
            orders.insert(config_id, order);
            drop(orders);
            self.remember_ids();
        }
    }

    /// Remembers the ids that were given, beside what goes on: samples do not wait for it.
    fn remember_ids(&self) {
        let parts = self.0.parts.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // A failure is logged by the store.
            runtime.spawn(async move { parts.store.apply(vec![parts.ids.change()]).await });
        }
    }
}
