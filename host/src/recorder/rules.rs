//! Rules by which recordings are ordered: every stream whose name fits is recorded while it is live.
//!
//! A recording of a rule has a stream's name and an id of its own. It is there before the stream's first sample, and
//! no more when the stream has ended for good; the rule makes another when it comes again, so it is not kept.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

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
    pub(super) async fn restore_rules(&self) -> Result<(), StoreError> {
        let kept: Vec<(u64, serde_json::Value)> = self.0.parts.store.all(Table::Rules)?;
        if !kept.is_empty() {
            // A failure is logged by the store.
            let _ = self.0.parts.ids.reserve(&self.0.parts.store).await;
        }
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
        if any.overwrite {
            return Err(RecordError::Overwrites);
        }
        self.check_alone(&any)?;
        self.destination(&any, 0).await?;
        let ids = &self.0.parts.ids;
        let rule_id = ids.next();
        self.0.parts.store.apply(vec![ids.change(), Change::put(Table::Rules, rule_id, &rule)]).await?;
        let _ = ids.reserve(&self.0.parts.store).await;
        lock(&self.0.rules).insert(rule_id, kept.clone());
        tracing::info!(rule_id, streams = rule.streams, "streams will be recorded by a rule");
        for stream in self.0.parts.registry.list() {
            if kept.matcher.is_match(&stream.name) {
                let mut orders = lock(&self.0.orders);
                let made = self.apply_rule(&mut orders, rule_id, rule.clone(), &stream);
                if let Some(order) = made.and_then(|config_id| orders.get_mut(&config_id)) {
                    self.start_order(order, &stream, Duration::ZERO);
                }
            }
        }
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

    /// The rules that order a recording of a stream.
    pub(super) fn rules_for(&self, name: &str) -> Vec<(u64, Rule)> {
        let rules = lock(&self.0.rules);
        let fitting = rules.iter().filter(|(_, kept)| kept.matcher.is_match(name));
        fitting.map(|(&id, kept)| (id, kept.rule.clone())).collect()
    }

    /// Makes the recording that a rule orders for a stream, unless it is there. Returns its id.
    pub(super) fn apply_rule(
        &self,
        orders: &mut BTreeMap<u64, Order>,
        rule_id: u64,
        rule: Rule,
        stream: &LiveStream,
    ) -> Option<u64> {
        // A rule that is older than the refusal may have overwrite.
        let settings = Settings { local_stream_name: stream.name.clone(), overwrite: false, ..rule.record };
        let its = |order: &&Order| {
            order.recording.rule_id == Some(rule_id)
                && order.recording.settings.local_stream_name == stream.name
        };
        // One that does not wait for its stream to come back has no use for this one.
        let is_there = |order: &Order| {
            order.recording.settings.keep_alive || order.runs.iter().any(|run| run.in_stream_id == stream.id)
        };
        if orders.values().filter(its).any(is_there) {
            return None;
        }
        let parts = &self.0.parts;
        let config_id = parts.ids.next();
        self.reserve_ids();
        let extension = parts.formats.get(&settings.format).map(|version| version.manifest.extension.clone());
        let extension = extension.unwrap_or_else(|| settings.format.clone());
        let destination = Destination::new(&parts.disk.roots, &settings, config_id, &extension);
        let destination = match destination {
            Ok(destination) => destination,
            Err(error) => {
                tracing::error!(rule_id, stream = stream.name, %error, "a rule can't be applied");
                return None;
            }
        };
        if let Err(rival) = self.rival(orders, &settings, &destination) {
            // Both are recorded all the same: this one takes the next free name.
            tracing::error!(rule_id, config_id, stream = stream.name, %rival, "a rule has a rival");
        }
        let recording = Recording::new(config_id, settings, destination, false).of_rule(rule_id);
        let order = Order { recording: Arc::new(recording), runs: Vec::new(), held: false, stays: false };
        orders.insert(config_id, order);
        Some(config_id)
    }

    /// Keeps ids in reserve for streams that will come, beside what goes on: samples do not wait for it.
    fn reserve_ids(&self) {
        let parts = self.0.parts.clone();
        if parts.ids.runs_out()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // A failure is logged by the store.
            runtime.spawn(async move { parts.ids.reserve(&parts.store).await });
        }
    }
}
