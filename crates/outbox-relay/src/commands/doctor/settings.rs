//! What the relay's own settings say against each other, and against what waits.

use gamemesh_outbox::diagnosis::{Check, Finding};

use crate::adapters::OutboxStore;
use crate::config::Config;
use crate::output::one_line;

/// The topics that are looked at, those with the most waiting events.
const TOPICS_MAX: u32 = 1_000;
/// Topics that are named.
const NAMED_MAX: usize = 5;

/// Everything that is looked at, for the page of checks.
#[cfg(test)]
pub(super) static CHECKS: [&Check; 3] = [&CONTRADICTIONS, &EARLIER, &TOPICS];

static CONTRADICTIONS: Check = Check {
    name: "settings.contradictions",
    looks_at: "settings that cannot both hold ([configuration.md](configuration.md#settings-that-contradict-each-other))",
    risk: "the relay does not do what one of them says",
};

static EARLIER: Check = Check {
    name: "settings.earlier",
    looks_at: "variables of the earlier relay that are set to something else than is used",
    risk: "the relay does not do what somebody meant by them",
};

static TOPICS: Check = Check {
    name: "settings.topics",
    looks_at: "waiting events against `OUTBOX_TOPIC_PREFIXES`",
    risk: "nobody will receive them: each is refused, attempt by attempt, until it is set aside",
};

pub(super) async fn examine(config: &Config, store: &dyn OutboxStore) -> Vec<Finding> {
    let mut findings = contradictions(&config.contradictions());
    findings.extend(reinterpreted(config.reinterpreted()));
    findings.extend(topics(config, store).await);
    findings
}

fn contradictions(warnings: &[String]) -> Vec<Finding> {
    if warnings.is_empty() {
        return vec![CONTRADICTIONS.ok("none")];
    }
    warnings.iter().map(|warning| CONTRADICTIONS.warning(warning, "change one of the two settings")).collect()
}

fn reinterpreted(told: &[String]) -> Vec<Finding> {
    if told.is_empty() {
        return vec![EARLIER.ok("none")];
    }
    told.iter().map(|told| EARLIER.warning(told, "set the variable to what is meant, or unset it")).collect()
}

/// Says nothing where the store cannot be asked: its own checks say why.
async fn topics(config: &Config, store: &dyn OutboxStore) -> Option<Finding> {
    let validator = &config.relay.validator;
    if validator.topic_prefixes.is_empty() {
        return Some(TOPICS.ok("every topic is allowed"));
    }
    let overview = store.overview(TOPICS_MAX).await.ok()?;
    let refused: Vec<_> = overview.topics.iter().filter(|topic| !validator.allows(&topic.topic)).collect();
    if refused.is_empty() {
        return Some(TOPICS.ok("all that wait are allowed"));
    }
    let events: u64 = refused.iter().map(|topic| topic.pending).sum();
    let named: Vec<String> = refused.iter().take(NAMED_MAX).map(|topic| one_line(&topic.topic)).collect();
    let more = if refused.len() > NAMED_MAX { ", ..." } else { "" };
    let found = format!("{events} waiting events have a topic that is not allowed: {}{more}", named.join(", "));
    let fix = "add the topic to OUTBOX_TOPIC_PREFIXES, or stop who inserts it; a value allows its topic and what is below it, \
               and none of its neighbours";
    Some(TOPICS.warning(found, fix))
}
