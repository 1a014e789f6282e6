//! What the settings that belong to no adapter must be to each other. An adapter has its own list.
//!
//! Not in any list, because nothing is wrong with them: a retention beside rows that are deleted (rows marked before are still
//! removed), settings of a bus that is not chosen (one environment may serve several relays), `DATABASE_URL` beside
//! `POSTGRES_DSN` and a credentials file beside a login in the URL (which goes first is part of their help), a payload that
//! may be larger than a batch (one event is taken whatever its size), the settings of spans while spans are off.

use gamemesh_outbox::relay::Charge;

use super::general::{
    ADMIN_TOKEN, BATCH_SIZE, BATCH_SIZE_MAX, CHARGE, CHARGE_ROUTES_AFTER, DRAIN_TIMEOUT, HTTP_HOSTS, MAX_ATTEMPTS,
    OTEL_SAMPLER, OTEL_SAMPLER_ARG, PUBLISH_TIMEOUT, RETRY_BACKOFF, RETRY_BACKOFF_MAX, WORKERS, WORKERS_MAX,
};
use crate::settings::Setting;
use crate::settings::contradictions::Consequence::{Refused, Told};
use crate::settings::contradictions::{Contradiction, is_chosen};
use crate::settings::load::Values;
use crate::settings::types::Sampler;

/// What is refused or told, whatever the store and the bus.
pub(super) static CONTRADICTIONS: &[Contradiction] = &[
    Contradiction {
        settings: [BATCH_SIZE.about.env, BATCH_SIZE_MAX.about.env],
        expected: "the first to be at most the second, up to which batches grow; where only one is set, the other follows",
        consequence: Refused,
        found: |values, _| both_chosen_and_above(values, &BATCH_SIZE, &BATCH_SIZE_MAX),
    },
    Contradiction {
        settings: [RETRY_BACKOFF.about.env, RETRY_BACKOFF_MAX.about.env],
        expected: "the first to be at most the second, where its doubling stops; where only one is set, the other follows",
        consequence: Refused,
        found: |values, _| both_chosen_and_above(values, &RETRY_BACKOFF, &RETRY_BACKOFF_MAX),
    },
    Contradiction {
        settings: [WORKERS.about.env, WORKERS_MAX.about.env],
        expected: "the first to be at most the second, and so many are used: each is a database connection",
        consequence: Told,
        found: |values, _| values.get(&WORKERS) > values.get(&WORKERS_MAX),
    },
    Contradiction {
        settings: [CHARGE_ROUTES_AFTER.about.env, MAX_ATTEMPTS.about.env],
        expected: "a maximum beside the time: without one what is counted sets nothing aside",
        consequence: Told,
        found: |values, relay| is_chosen(values, &CHARGE_ROUTES_AFTER) && relay.attempts_max == 0,
    },
    Contradiction {
        settings: [CHARGE_ROUTES_AFTER.about.env, CHARGE.about.env],
        expected: "only one of them: with all, every failed publish counts from the first on",
        consequence: Told,
        found: |values, relay| is_chosen(values, &CHARGE_ROUTES_AFTER) && relay.charge == Charge::All,
    },
    Contradiction {
        settings: [DRAIN_TIMEOUT.about.env, PUBLISH_TIMEOUT.about.env],
        expected: "the first to be longer than the second: a stop gives back batches that the bus may still take, and they are \
                   sent again",
        consequence: Told,
        found: |_, relay| relay.drain_timeout <= relay.publish_timeout,
    },
    Contradiction {
        settings: [HTTP_HOSTS.about.env, ADMIN_TOKEN.about.env],
        expected: "a token beside the names: they are for changes, and without a token nobody makes any",
        consequence: Told,
        found: |values, _| is_chosen(values, &HTTP_HOSTS) && !is_chosen(values, &ADMIN_TOKEN),
    },
    Contradiction {
        settings: [OTEL_SAMPLER_ARG.about.env, OTEL_SAMPLER.about.env],
        expected: "a sampler that takes a share: traceidratio or parentbased_traceidratio",
        consequence: Told,
        found: |values, _| {
            let shares = [Sampler::TraceIdRatio, Sampler::ParentBasedTraceIdRatio];
            // All of them is no share.
            values.get(&OTEL_SAMPLER_ARG) < 1.0 && !shares.contains(&values.get(&OTEL_SAMPLER))
        },
    },
];

/// A setting that nobody chose follows the one that somebody did.
pub(super) fn least_and_most<T: Copy + PartialOrd>(values: &Values, least: &Setting<T>, most: &Setting<T>) -> (T, T) {
    let (low, high) = (values.get(least), values.get(most));
    match low > high {
        true if is_chosen(values, least) => (low, low),
        true => (high, high),
        false => (low, high),
    }
}

fn both_chosen_and_above<T: Copy + PartialOrd>(values: &Values, least: &Setting<T>, most: &Setting<T>) -> bool {
    is_chosen(values, least) && is_chosen(values, most) && values.get(least) > values.get(most)
}
