//! Each rule of the usage guard, and what it lacks: permissions for its targets, a room for its words, a source that proves
//! a reset.

use super::Finding;
use crate::chat;
use crate::cluster::{Access, Cluster, Target};
use crate::config::{Account, Config, GuardMode, Usage, UsageRule, UsageSource};
use crate::daemon;
use crate::store::Store;
use crate::usage::guard::Rule;
use crate::usage::{Source, overview};

const AREA: &str = "usage guard";

/// What is known of the surroundings of the rules.
struct Known {
    /// The room for what nobody asked for.
    room: Option<String>,
    /// Whether the targets may be scaled, as the API server says; one that did not answer is not here.
    scale: Vec<(String, bool)>,
    /// Buckets that were seen so far; `None` where nothing was.
    seen: Option<Vec<crate::usage::Bucket>>,
}

pub(super) async fn findings(config: &Config, cluster: Option<&Cluster>, store: Option<&Store>) -> Vec<Finding> {
    let rules = &config.usage.rules;
    if rules.is_empty() {
        return Vec::new();
    }
    let named = |target: &&crate::config::Target| rules.iter().any(|rule| rule.stop.contains(&target.name));
    let targets: Vec<Target> = config.targets.iter().filter(named).map(daemon::target).collect();
    let scale = match cluster {
        Some(cluster) => cluster.access(&targets).await.iter().filter_map(scalable).collect(),
        None => Vec::new(),
    };
    let mut known = Known { room: config.matrix.home_room.clone(), scale, seen: None };
    if let Some(store) = store {
        known.room = chat::home_room(store, config.matrix.home_room.as_deref()).await.ok().flatten();
        let states = overview::states(store).await.unwrap_or_default();
        known.seen = Some(states.into_iter().map(|state| state.bucket).collect());
    }
    rules.iter().flat_map(|rule| judge(rule, &config.usage, &known)).collect()
}

fn scalable(access: &Access) -> Option<(String, bool)> {
    let scale = access.permission.verb == "patch" && access.permission.resource.ends_with("/scale");
    let allowed = access.allowed.as_ref().ok().copied()?;
    scale.then(|| (access.target.name.clone(), allowed))
}

fn judge(rule: &UsageRule, usage: &Usage, known: &Known) -> Vec<Finding> {
    let acts = rule.mode == GuardMode::Act;
    let subject = format!("rule {}", rule.name);
    let lacks = |detail: String, remedy: &str| Finding::warning(AREA, subject.clone(), detail, remedy);
    let mut lacking = Vec::new();
    for target in &rule.stop {
        match known.scale.iter().find(|(name, _)| name == target) {
            Some((_, true)) => {}
            // A rule that only speaks needs no permission yet.
            Some((_, false)) => {
                let remedy = "apply k8s/base, or add patch on its scale to the Role that is bound to this account";
                let detail = format!("{target} cannot be scaled: the permission is missing");
                lacking.push(if acts {
                    Finding::failure(AREA, subject.clone(), detail, remedy)
                } else {
                    lacks(detail, remedy)
                });
            }
            None => lacking.push(lacks(
                format!("whether {target} may be scaled is not known: the API server did not say"),
                "see kubernetes above",
            )),
        }
    }
    if known.room.is_none() {
        lacking.push(lacks(
            "no room is known for what it says".to_owned(),
            "set matrix.home_room, or write a command in a room",
        ));
    }
    let (account, kind) = rule.parts();
    let mut watched: Vec<&Account> =
        usage.accounts.iter().filter(|a| account.is_none_or(|name| a.name == name)).collect();
    watched.dedup_by_key(|account| (&account.name, account.source));
    let pushed = usage.unprovable(rule);
    if !pushed.is_empty() {
        lacking.push(lacks(
            format!(
                "no source proves a reset of {}, so what it stops for that is not started again by itself",
                pushed.join(", ")
            ),
            "add a source for the account that is asked (anthropic-oauth or command); `start` in the room works",
        ));
    }
    if let Some(seen) = &known.seen
        && !seen.iter().any(|bucket| Rule::from(rule).watches(bucket))
    {
        lacking.push(lacks(
            format!("no limit {kind} was seen yet, so it watches nothing"),
            "`pilothouse usage --json` shows the limits that there are",
        ));
    }
    let sources: Vec<String> =
        watched.iter().map(|account| format!("{} by {}", account.name, source(account.source).word())).collect();
    let room = known.room.as_deref().map_or(String::new(), |room| format!("; speaks in {room}"));
    let detail = format!("{}; watched: {}{room}", intent(rule), sources.join(", "));
    let head = if lacking.is_empty() {
        Finding::good(AREA, subject.clone(), detail)
    } else {
        Finding::skipped(AREA, subject.clone(), detail)
    };
    std::iter::once(head).chain(lacking).collect()
}

/// What a rule does, in one line.
fn intent(rule: &UsageRule) -> String {
    let percent = rule.percent.map(|percent| format!("{percent} % used"));
    let probability = rule.probability.map(|least| format!("{:.0} % likely to run out", least * 100.0));
    let when: Vec<String> = percent.into_iter().chain(probability).collect();
    let does = if rule.mode == GuardMode::Act { "acts: stops" } else { "only observes: would stop" };
    format!("{does} {} from {} of {} on", rule.stop.join(", "), when.join(" or "), rule.bucket)
}

fn source(source: UsageSource) -> Source {
    match source {
        UsageSource::AnthropicOauth => Source::AnthropicOauth,
        UsageSource::Push => Source::Push,
        UsageSource::Command => Source::Command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;
    use crate::config::{Config, Sources};

    /// A configuration with these accounts and one rule.
    fn read(accounts: &str, mode: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pilothouse.toml");
        let toml = format!(
            "[matrix]\nuser = \"bot\"\npassword = \"x\"\n[policy]\nusers = [\"@you:example.org\"]\n[[targets]]\nname = \"web\"\n\
             namespace = \"apps\"\n{accounts}[[usage.rules]]\nname = \"night\"\nbucket = \"work/weekly_all\"\npercent = 90\n\
             probability = 0.8\nstop = [\"web\"]\nmode = {mode:?}\n"
        );
        std::fs::write(&path, toml).unwrap();
        Config::load(&Sources { argument: Some(path), environment: [].into(), usual: vec![] }).unwrap().config
    }

    const ASKED: &str = "[[usage.accounts]]\nname = \"work\"\ndirectory = \"/data/claude\"\n";
    const PUSHED: &str = "[[usage.accounts]]\nname = \"work\"\nsource = \"push\"\npush_token_file = \"/run/token\"\n";

    fn verdicts(config: &Config, known: &Known) -> Vec<(Verdict, String)> {
        let found = judge(&config.usage.rules[0], &config.usage, known);
        found.into_iter().map(|finding| (finding.verdict, finding.detail)).collect()
    }

    fn complete() -> Known {
        Known {
            room: Some("!room:example.org".to_owned()),
            scale: vec![("web".to_owned(), true)],
            seen: Some(vec!["work/weekly_all".parse().unwrap()]),
        }
    }

    #[test]
    fn a_rule_that_has_all_it_needs_stands_in_one_line() {
        let found = verdicts(&read(ASKED, "act"), &complete());
        let line = "acts: stops web from 90 % used or 80 % likely to run out of work/weekly_all on; watched: work by \
                    anthropic-oauth; speaks in !room:example.org";
        assert_eq!(found, [(Verdict::Good, line.to_owned())]);
    }

    #[test]
    fn whatever_a_rule_lacks_is_told_and_nothing_is_ticked() {
        for (known, mode, verdict, words) in [
            (
                Known { scale: vec![("web".to_owned(), false)], ..complete() },
                "act",
                Verdict::Failure,
                "cannot be scaled",
            ),
            (Known { scale: vec![("web".to_owned(), false)], ..complete() }, "observe", Verdict::Warning, "cannot be"),
            (Known { scale: vec![], ..complete() }, "act", Verdict::Warning, "is not known"),
            (Known { room: None, ..complete() }, "act", Verdict::Warning, "no room is known"),
            (Known { seen: Some(vec![]), ..complete() }, "act", Verdict::Warning, "no limit weekly_all was seen"),
        ] {
            let found = verdicts(&read(ASKED, mode), &known);
            assert_eq!((found.len(), found[0].0), (2, Verdict::Skipped), "{found:?}");
            assert!(found[1].0 == verdict && found[1].1.contains(words), "{found:?}");
        }
        let pushed = verdicts(&read(PUSHED, "observe"), &complete());
        assert!(
            pushed[0].1.contains("only observes: would stop web")
                && pushed[1].1.contains("no source proves a reset of work,")
        );
        // A second source of the same account does.
        let both = verdicts(&read(&format!("{PUSHED}{ASKED}"), "act"), &complete());
        assert!(both.len() == 1 && both[0].1.contains("work by push, work by anthropic-oauth"), "{both:?}");
        // A rule for a kind may stop for an account that is asked, and for one that is not.
        let mut every = read(&format!("{}{ASKED}", PUSHED.replace("work", "desk")), "act");
        every.usage.rules[0].bucket = "weekly_all".to_owned();
        let every = verdicts(&every, &complete());
        assert!(every.len() == 2 && every[1].1.contains("no source proves a reset of desk,"), "{every:?}");
    }
}
