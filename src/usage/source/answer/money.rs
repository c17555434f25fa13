//! What an account spends beyond its plan.

use serde_json::Value;

use crate::usage::bucket::{Bucket, Kind, Reading, Reset, Unit};

/// An amount in minor units.
struct Amount {
    minor: f64,
    currency: Option<String>,
    exponent: Option<u8>,
}

/// Reads `spend`, and `extra_usage` for what it lacks. Gives nothing where the account neither has nor had any.
///
/// # Errors
/// The section that has something but cannot be read.
pub(super) fn read(
    account: &str,
    extra: Option<&Value>,
    spend: Option<&Value>,
) -> Result<Option<Reading>, &'static str> {
    let (extra, spend) = (present(extra), present(spend));
    let flag = |section: Option<&Value>, key: &str| section.and_then(|section| section.get(key)?.as_bool());
    let enabled = flag(spend, "enabled").or_else(|| flag(extra, "is_enabled")).unwrap_or(false);
    let number = |key: &str| extra.and_then(|extra| extra.get(key)?.as_f64());
    let decimals = extra.and_then(|extra| small(extra.get("decimal_places")?));
    let currency = extra.and_then(|extra| word(extra.get("currency")?));
    let beside = |minor| Amount { minor, currency: currency.clone(), exponent: decimals };

    let used = spend.and_then(|spend| amount(spend.get("used")?)).or_else(|| number("used_credits").map(beside));
    let Some(used) = used.filter(|used| used.minor >= 0.0) else {
        // An enabled one without a number is a loss, a disabled one is nothing.
        return if enabled { Err(if spend.is_some() { "spend" } else { "extra_usage" }) } else { Ok(None) };
    };
    if !enabled && used.minor <= 0.0 {
        return Ok(None);
    }
    let limit = spend.and_then(|spend| amount(spend.get("limit")?)).or_else(|| number("monthly_limit").map(beside));
    let why_off = [spend, extra].into_iter().flatten().find_map(|section| word(section.get("disabled_reason")?));
    let active = enabled && why_off.is_none();
    let severity = if enabled { spend.and_then(|spend| word(spend.get("severity")?)) } else { why_off };
    Ok(Some(Reading {
        bucket: Bucket { account: account.to_owned(), kind: Kind::Extra, scope: None },
        unit: Unit::Money {
            currency: used.currency.or(currency).unwrap_or_else(|| "credits".to_owned()),
            exponent: used.exponent.or(decimals).unwrap_or(2),
        },
        used: used.minor,
        limit: limit.map(|limit| limit.minor),
        window: None,
        resets_at: None,
        reset: Reset::Calendar,
        active,
        severity,
    }))
}

fn present(section: Option<&Value>) -> Option<&Value> {
    section.filter(|section| section.is_object())
}

fn amount(value: &Value) -> Option<Amount> {
    Some(Amount {
        minor: value.get("amount_minor")?.as_f64()?,
        currency: value.get("currency").and_then(word),
        exponent: value.get("exponent").and_then(small),
    })
}

fn word(value: &Value) -> Option<String> {
    value.as_str().map(super::shortened).filter(|word| !word.is_empty())
}

fn small(value: &Value) -> Option<u8> {
    value.as_u64().and_then(|number| u8::try_from(number).ok()).filter(|number| *number <= 9)
}
